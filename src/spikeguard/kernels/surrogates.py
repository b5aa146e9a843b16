"""The surrogate derivatives that the fused kernels contain in compiled form."""

from __future__ import annotations

__all__ = ["PARAMETER", "compiled_as"]

PARAMETER: dict[str, str | None] = {  # name of the derivative -> attribute with its parameter
    "Triangular": "width",
    "Rectangular": "width",
    "ATan": "alpha",
    "Sigmoid": "alpha",
    "Gaussian": "sigma",
    "SuperSpike": "beta",
    "StraightThrough": None,
}


def compiled_as(surrogate: object) -> str | None:
    """Return the name of the compiled derivative that equals ``surrogate``; None if none does.

    A class declares its derivative by an attribute ``compiled_as``. The declaration is not
    inherited, because a subclass may compute another derivative.
    """
    name: str | None = vars(type(surrogate)).get("compiled_as")
    return name if name in PARAMETER else None
