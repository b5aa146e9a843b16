"""The section on certified radii: a lower bound, and attacks on the same classifier beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spikeguard.analysis.plots import Plot, Series, Table
from spikeguard.certification.result import Certification
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting import formatting
from spikeguard.reporting.charts.analyses import drawn
from spikeguard.reporting.charts.base import Look
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.sections.analyses import AnalysisBlock, AnalysisSection

__all__ = ["certificate_sections"]

_ABOUT = (
    "The smoothed classifier returns the class that the network returns most often under noise. It "
    "is what is certified here, not the bare network, which the other sections attack: their "
    "numbers do not compare with these. The certified accuracy is a lower bound of the accuracy "
    "under any perturbation of a radius; the attacked accuracy is an upper bound for the same norm "
    "and the same classifier. The truth is between them."
)
_SOURCES = {
    "l2": "Cohen et al., ICML 2019 (arXiv:1902.02918), Theorem 1",
    "l1": "Mukhoty et al., ICLR 2024, with SpikeGuard's own radius for T steps",
}


def certificate_sections(
    networks: Sequence[Network], look: Mapping[str, Look]
) -> list[AnalysisSection]:
    """Return the section, or nothing if no network was certified."""
    blocks = []
    kinds = dict.fromkeys((c.smoothing, c.norm) for n in networks for c in n.certificates)
    for number, (smoothing, norm) in enumerate(kinds):
        found = {
            network.label: result
            for network in networks
            for result in _best(network.certificates, smoothing, norm)
        }
        blocks.append(_block(number, smoothing, norm, found, look))
    return [AnalysisSection("certified", "Certified radii", blocks)] if blocks else []


def _best(results: Sequence[Certification], smoothing: str, norm: str) -> list[Certification]:
    """Return the result of most images, and among equals of most draws; of several, one."""
    same = [each for each in results if (each.smoothing, each.norm) == (smoothing, norm)]
    return sorted(same, key=lambda each: (len(each.records), each.settings["n"]))[-1:]


def _block(
    number: int,
    smoothing: str,
    norm: str,
    found: Mapping[str, Certification],
    look: Mapping[str, Look],
) -> AnalysisBlock:
    plot = _plot(norm, found)
    chart = drawn(plot, look, id=f"certified-{number}", caption=f"{plot.title}: {smoothing}")
    return AnalysisBlock(
        name=f"certified-{number}",
        analysis="certified",
        title=f"{smoothing[0].upper()}{smoothing[1:]}",
        about=_ABOUT,
        source=_SOURCES[norm],
        result=_result(found),
        table=_table(found),
        charts=[(plot, chart)],
        settings=_settings(found),
    )


def _plot(norm: str, found: Mapping[str, Certification]) -> Plot:
    marks = []
    for label, result in found.items():
        lower, upper = result.radii(), sorted(result.attacks)
        certified = [100 * result.certified(radius).accuracy for radius in lower]
        marks.append(Series(lower, certified, name=f"{label}, certified", network=label))
        bounds = [bound for radius in upper if (bound := result.attacked(radius)) is not None]
        if bounds:
            at_most, low, high = (
                [100 * getattr(bound, end) for bound in bounds]
                for end in ("accuracy", "low", "high")
            )
            name = f"{label}, attacked"
            marks.append(Series(upper, at_most, name, label, low, high, "points", dash="dot"))
    return Plot(
        name="radius",
        title="Accuracy against radius",
        summary=_result(found),
        marks=marks,
        x_title=f"radius in pixels of [0, 1], {formatting.norm(norm)}",
        y_title="accuracy, %",
        y_range=(-3, 103),
        width="full",
        height=320,
    )


def _result(found: Mapping[str, Certification]) -> str:
    """Return the bracket at the largest attacked radius, or the certified accuracy alone.

    Of attacks that cover different numbers of images, those of the most are meant; both ends are of
    the images that the attack covers.
    """
    parts = []
    for label, result in found.items():
        whose = f"{label}: " if len(found) > 1 else ""
        bounds = [(u.n, r, u) for r in result.attacks if (u := result.attacked(r)) is not None]
        if not bounds:
            parts.append(
                f"{whose}{_percent(result.certified(0.0))} certified, not attacked: an upper bound "
                "for this classifier is not known"
            )
            continue
        n, radius, upper = max(bounds, key=lambda each: each[:2])
        where = f"{whose}at radius {radius:g}" if whose else f"At radius {radius:g}"
        lower = _percent(result.first(n).certified(radius))
        few = "" if n == len(result.records) else f" (first {n} of {len(result.records)} images)"
        parts.append(f"{where} between {lower} certified and {_percent(upper)} attacked{few}")
    return "; ".join(parts)


def _table(found: Mapping[str, Certification]) -> Table:
    rows = []
    for label, result in found.items():
        most = max(each.radius for each in result.records)
        for radius in sorted({0.0, *(round(most * k / 4, 3) for k in (1, 2, 3)), *result.attacks}):
            upper = result.attacked(radius)
            cells = (_cell(result.certified(radius)), _attacked(upper, len(result.records)))
            rows.append((label, f"{radius:g}", *cells, _cell(result.abstained)))
    caption = (
        "Intervals: Wilson, 95 %, over the images. Each certificate is wrong with the probability "
        "alpha at most."
    )
    few = {radius: result for result in found.values() for radius in _unfinished(result)}
    if few:
        most = max(len(result.records) for result in few.values())
        radii = ",".join(f"{radius:g}" for radius in sorted(few))
        caption += (
            " An attack on fewer images than were certified names their number; continue it with "
            f"--limit {most} --attack {radii}."
        )
    broken = sum(result.contradictions for result in found.values())
    if broken:
        caption += f" {broken} images were broken inside their certified radius: not to be trusted."
    head = ("network", "radius", "certified: at least, %", "attacked: at most, %", "abstained, %")
    return Table(head, rows, caption)


def _unfinished(result: Certification) -> list[float]:
    """Return the radii whose attack covers fewer images than were certified."""
    return [r for r, broken in result.attacks.items() if len(broken) < len(result.records)]


def _attacked(upper: Score | None, images: int) -> str:
    if upper is None:
        return "not attacked"
    return _cell(upper) + ("" if upper.n == images else f" of {upper.n} images")


def _settings(found: Mapping[str, Certification]) -> str:
    kept = ("n0", "n", "alpha", "seed", "attack_steps", "attack_draws", "checkpoint")
    lines = {
        label: ", ".join(f"{key.replace('_', ' ')} {result.settings[key]}" for key in kept)
        + f", images {len(result.records)}"
        for label, result in found.items()
    }
    if len(set(lines.values())) == 1:
        return next(iter(lines.values()))
    return "; ".join(f"{label}: {line}" for label, line in lines.items())


def _percent(score: Score) -> str:
    return f"{100 * score.accuracy:.1f} %"


def _cell(score: Score) -> str:
    return f"{100 * score.accuracy:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"
