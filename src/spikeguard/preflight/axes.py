"""Event frames shown to a network for images: refused before a gradient is computed."""

from __future__ import annotations

from torch import Tensor, nn

from spikeguard.encoders.input_space import space_of

__all__ = ["require_axes"]


def require_axes(model: nn.Module, x: Tensor) -> None:
    """Reject event frames for a network of images, and images for a network of event frames.

    Raises:
        ValueError: If the axes of x do not fit the ``space_of`` the model.
    """
    space = space_of(model)
    if not space.temporal and x.ndim == 5:
        raise ValueError(
            f"check: the network takes {space}, got event frames {list(x.shape)}; train one with "
            "the encoder event_frames, of a foreign network state space=."
        )
    if space.temporal and x.ndim != 5:
        raise ValueError(
            f"check: the network takes {space}, got {list(x.shape)}; show it recordings as frames."
        )
