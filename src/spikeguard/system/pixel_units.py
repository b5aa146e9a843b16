"""Radii of balls around an image, in pixel units of [0, 1]: the largest one that means anything."""

from __future__ import annotations

import math

__all__ = ["fraction_text", "radius_problem", "reach"]

_ROUNDING = 1e-6  # relative


def reach(norm: str, pixels: int) -> float:
    """Return the radius at which the ball around any image of so many pixels is the whole box.

    Infinite for the norm of a threat set that is not of this package: its unit is not known.
    """
    known = {"linf": 1.0, "l2": math.sqrt(pixels), "l1": float(pixels)}
    return known.get(norm, math.inf)


def radius_problem(norm: str, eps: float, pixels: int | None = None) -> str:
    """Return why a ball is larger than the box of all images; empty if it is not.

    Args:
        norm: "linf", "l2" or "l1".
        eps: Radius, >= 0.
        pixels: Number of pixels of an image; None if not known, then only linf is tested.
    """
    if norm != "linf" and pixels is None:
        return ""
    largest = reach(norm, pixels or 1)
    if eps <= largest * (1 + _ROUNDING):
        return ""
    unit = "pixel units, [0, 1]"
    box = "" if norm == "linf" else f", and {norm} {largest:.4g} reaches all images of this size"
    return f"eps is in {unit}{box}, got {eps:g}; did you mean {eps:g}/255?"


def fraction_text(value: float) -> str:
    """Format a length as papers do: "8/255", but "0.1" where the decimal is shorter.

    Example:
        >>> fraction_text(8 / 255), fraction_text(0.1), fraction_text(2.0)
        ('8/255', '0.1', '2')
    """
    if float(value).is_integer():
        return str(int(value))
    decimal, parts = f"{value!r}", round(value * 255)
    fraction = f"{parts}/255"
    return fraction if parts / 255 == value and len(fraction) < len(decimal) else decimal
