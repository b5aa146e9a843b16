"""Convert images to the floating-point type of a network's weights."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["in_dtype_of"]


def in_dtype_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return images in the type of a network's first floating-point parameter.

    A float64 network thus takes the float32 images of a data set, and gradients with respect to
    them are float32. A network without such parameters gets x unchanged.

    Args:
        model: The network.
        x: Images [B, ...], floating point.
    """
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), x.dtype)
    return x.to(own)
