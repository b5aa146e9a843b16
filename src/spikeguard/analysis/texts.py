"""Numbers, shares and their intervals as text, for the results and tables of analyses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from spikeguard.analysis.measurement import Measurement

__all__ = [
    "half_text",
    "images_of",
    "interval_text",
    "labelled",
    "listed",
    "number_text",
    "percent",
    "percent_interval",
    "setting_of",
    "share_text",
    "shared",
    "signed",
    "span",
    "whole_percent",
]


def number_text(value: float) -> str:
    """Write a number in three digits, or as a whole number from 1000 on.

    Example:
        >>> number_text(0.12345), number_text(2140.4)
        ('0.123', '2,140')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval_text(middle: float, low: float, high: float) -> str:
    """Write a number with its interval: "3.48 [3.19, 3.76]"; one that does not vary stands alone.

    NaN is an en dash.
    """
    if math.isnan(middle):
        return "–"
    one, *ends = map(number_text, (middle, low, high))
    return one if low == high else f"{one} [{', '.join(ends)}]"


def half_text(middle: float, half: float) -> str:
    """Write a number with half its interval: "3.48 ± 0.3"; an unknown half is left out.

    NaN is an en dash.
    """
    if math.isnan(middle):
        return "–"
    return f"{middle:.3g}" if math.isnan(half) else f"{middle:.3g} ± {half:.1g}"


def percent(share: float) -> str:
    """Write a share in [0, 1]: "61.4 %"; "-" for NaN."""
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"


def whole_percent(share: float) -> str:
    """Write a share in [0, 1]: "61 %"."""
    return f"{100 * share:.0f} %"


def signed(change: float) -> str:
    """Write a relative change: "-64 %", with a minus sign; "-" for NaN."""
    if math.isnan(change):
        return "-"
    return f"{100 * change:+.0f} %".replace("-", "\N{MINUS SIGN}")


def percent_interval(share: float, low: float, high: float) -> str:
    """Write a share with its interval: "61.4 % [57.0, 65.6]"; an unknown interval is left out."""
    if math.isnan(low) or math.isnan(share):
        return percent(share)
    return f"{percent(share)} [{100 * low:.1f}, {100 * high:.1f}]"


def share_text(m: Measurement, name: str, **at: object) -> str:
    """Write a share of a measurement and its interval, of which the names end in _low, _high."""
    return percent_interval(*(m.number(name + end, **at) for end in ("", "_low", "_high")))


def listed(texts: Mapping[str, str]) -> str:
    """Write a text for each network: "a 3 %; b 4 %". One network has no label."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{label} {text}" for label, text in texts.items())


def labelled(texts: Mapping[str, str]) -> str:
    """Write a number for each network: "3 % (a), 4 % (b)". One network has no label."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{text} ({label})" for label, text in texts.items())


def shared(texts: Mapping[str, str]) -> str:
    """Write what most networks have, and what the others have: "16 (DLIF: 4)"."""
    values = list(texts.values())
    most = max(values, key=values.count)
    others = ", ".join(f"{label}: {text}" for label, text in texts.items() if text != most)
    return f"{most} ({others})" if others else most


def images_of(found: Mapping[str, Measurement]) -> str:
    """Write the number of images of each measurement: "16 (DLIF: 4)"."""
    return shared({label: str(m.samples) for label, m in found.items()})


def setting_of(found: Mapping[str, Measurement], name: str, scale: float = 1) -> str:
    """Write a number of the settings of each measurement, times a factor: "0.2 (DLIF: 0.1)"."""
    return shared({label: f"{scale * m.settings[name]:g}" for label, m in found.items()})


def span(values: Mapping[str, float], text: Callable[[float], str]) -> str:
    """Write the range of several networks: "3 % (a) to 4 % (b)". One network has no label.

    Equal ends are written once: "3 % (all)". NaN is left out; "undefined" if nothing else is there.
    """
    known = {label: value for label, value in values.items() if not math.isnan(value)}
    if not known:
        return "undefined"
    low, high = (end(known, key=known.__getitem__) for end in (min, max))
    if len(values) == 1:
        return text(known[low])
    ends = text(known[low]), text(known[high])
    if ends[0] == ends[1]:
        return f"{ends[0]} ({'all' if len(known) == len(values) else ', '.join(known)})"
    return f"{ends[0]} ({low}) to {ends[1]} ({high})"
