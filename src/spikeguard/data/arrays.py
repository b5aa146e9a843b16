"""from_arrays(): labelled images or event frames in memory from arrays of any layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from spikeguard.data.conversion import as_labels, as_tensor
from spikeguard.data.images import ImageSet, as_image_set
from spikeguard.encoders.input_space import InputSpace

__all__ = ["from_arrays"]

_CHANNELS = ((1, 3), (1, 2, 3, 4))  # likely ones first
_POLARITIES = (1, 2)


def from_arrays(
    x: Any,
    y: Any,
    *,
    classes: Sequence[str] = (),
    num_classes: int | None = None,
    name: str = "arrays",
    space: InputSpace | None = None,
) -> ImageSet:
    """Return arrays, tensors or lists of numbers as labelled images or event frames.

    Args:
        x: Images [N, C, H, W], [N, H, W, C], or grey ones [N, H, W]; or flat [N, F]. uint8 in
            0 .. 255, or float in [0, 1]; kept as they are, and scaled batch by batch. Five axes
            are event frames [N, T, C, H, W], or [N, T, H, W, C] with 1 or 2 polarities C last, of
            any number type; they are not scaled.
        y: Class numbers [N] or [N, 1], of any integer type, from 0.
        classes: Names of the classes.
        num_classes: Number of classes; that of the names, else the largest label + 1.
        name: Name in messages and results.
        space: For frames; the values they may have. Default: see ``as_image_set``.

    Raises:
        ValueError: If the arrays are not as above; the message says how to convert them.

    Example:
        >>> photos = from_arrays(np.zeros((2, 32, 32, 3), "uint8"), [0, 1], classes=["cat", "dog"])
        >>> len(photos), photos.shape, photos.num_classes
        (2, (3, 32, 32), 2)
    """
    images = _channels_first(as_tensor(x, f"{name}: images"), name)
    pair = (images, as_labels(y, name))
    return as_image_set(pair, num_classes=num_classes, name=name, classes=classes, space=space)


def _channels_first(x: Tensor, name: str) -> Tensor:
    """Return images as [N, C, H, W]; channels are the axis of 1 or 3, or else of 2 or 4."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 5:
        last = x.shape[4] in _POLARITIES and x.shape[2] not in _POLARITIES
        return x.movedim(4, 2).contiguous() if last else x
    if x.ndim != 4:
        return x
    for channels in _CHANNELS:
        first, last = x.shape[1] in channels, x.shape[3] in channels
        if first != last:
            break
    else:  # tiny images, or many channels: the two equal sides are height and width
        first, last = x.shape[2] == x.shape[3], x.shape[1] == x.shape[2]
        if not first and not last:
            raise ValueError(
                f"{name}: images of shape {list(x.shape)} have their channels neither first nor "
                "last; write x.transpose(...) to [N, C, H, W]."
            )
    return x if first else x.movedim(3, 1).contiguous()
