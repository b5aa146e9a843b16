"""Pixels and labels as tensors: conversion, digest, and checks that say how to convert."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikeguard.encoders.input_space import InputSpace

__all__ = [
    "as_labels",
    "as_tensor",
    "check_frames",
    "check_labels",
    "check_pixels",
    "frames_space",
]

_CHUNK = 256  # recordings whose frames are checked at once


def as_tensor(value: Any, where: str) -> Tensor:
    """Return a tensor, an array or nested lists of numbers as a tensor that shares its memory.

    Raises:
        ValueError: If its entries differ in shape, or are not numbers.
    """
    if isinstance(value, Tensor):
        return value.detach()
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(len(value), dtype=object)
        array[:] = list(value)
    if array.dtype == object:
        shapes = [np.shape(entry) for entry in array.flat]
        other = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
        if other is not None:
            raise ValueError(
                f"{where}: entry {other} has shape {list(shapes[other])}, entry 0 "
                f"{list(shapes[0])}; resize all to one shape first."
            )
        raise ValueError(f"{where}: they are Python objects, not numbers; write np.stack(list(x)).")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where}: they are {array.dtype}, not numbers.")
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    if native.dtype.kind == "u" and native.dtype.itemsize > 1:  # torch computes with uint8 alone
        native = native.astype(np.int32 if native.dtype.itemsize == 2 else np.int64)
    if not native.flags.writeable:
        native = native.copy()
    try:
        shared: Tensor = torch.from_numpy(native)
    except TypeError as error:
        raise ValueError(f"{where}: {array.dtype} is not known to torch; use float32.") from error
    return shared


def as_labels(y: Any, where: str = "data") -> Tensor:
    """Return class numbers of any integer type as int64 [N]; a column [N, 1] is flattened.

    Raises:
        ValueError: If they are not class numbers; the message says how to convert them.
    """
    if not isinstance(y, Tensor) and np.asarray(y).dtype.kind in "US":
        raise ValueError(
            f"{where}: labels are class numbers, got text; write "
            "classes, y = np.unique(y, return_inverse=True)."
        )
    labels = as_tensor(y, f"{where}: labels")
    if not labels.numel():
        return torch.zeros(0, dtype=torch.int64)  # "not empty" is said of the images
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(
            f"{where}: labels are class numbers [N], got {list(labels.shape)}; of one-hot "
            "labels write y.argmax(1)."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(
            f"{where}: labels are class numbers of an integer type, got {labels.dtype}; write "
            "y.long(), of an array y.astype('int64')."
        )
    if labels.ndim == 2:
        labels = labels.flatten()
    if labels.ndim != 1:
        raise ValueError(f"{where}: labels are class numbers [N], got shape {list(labels.shape)}.")
    return labels.long()


def check_pixels(where: str, images: Tensor, peak: float) -> None:
    """Raise ValueError unless images are [N, C, H, W] or [N, F], uint8 or float in [0, peak]."""
    if images.ndim not in (2, 4) or images.numel() == 0:
        raise ValueError(
            f"{where}: images are [N, C, H, W], or flat [N, F], and not empty, "
            f"got shape {tuple(images.shape)}."
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(f"{where}: images are uint8 or float, got {images.dtype}.")
    if not 0 < peak < float("inf"):
        raise ValueError(f"{where}: peak is the stored value of white, > 0, got {peak:g}.")
    low, high = (float(value) for value in images.aminmax())
    if low != low or high != high:
        raise ValueError(f"{where}: images hold NaN; clean them before they are scored.")
    if low < 0 or high > peak:
        raise ValueError(
            f"{where}: pixels lie in [0, peak={peak:g}], got {low:g} .. {high:g}; "
            f"{_remedy(low, high, peak)}"
        )


def check_frames(where: str, frames: Tensor, space: InputSpace) -> None:
    """Raise ValueError unless frames are [N, T, C, H, W] numbers inside a space."""
    if frames.ndim != 5 or frames.numel() == 0:
        raise ValueError(
            f"{where}: event frames are [N, T, C, H, W] and not empty, got shape "
            f"{tuple(frames.shape)}."
        )
    if frames.is_complex() or frames.dtype == torch.bool:
        raise ValueError(f"{where}: frames are numbers, got {frames.dtype}; write x.to(uint8).")
    for part in _chunks(frames):
        space.check(part if part.is_floating_point() else part.float(), where)


def frames_space(frames: Tensor, where: str) -> InputSpace:
    """Return the narrowest space that holds all values of frames [N, T, C, H, W].

    It is one of three: 0 and 1, whole numbers >= 0 without a bound, real numbers in [0, 1].

    Raises:
        ValueError: If no such space holds them.
    """
    if not frames.numel() or frames.isnan().any():
        return InputSpace(whole=True, temporal=True)  # the check of the frames says so
    whole = not frames.is_floating_point() or all(
        bool((part == part.round()).all()) for part in _chunks(frames)
    )
    high = 1.0 if float(frames.max()) <= 1 else math.inf
    if not whole and high > 1:
        raise ValueError(
            f"{where}: frames are whole numbers, or real numbers in [0, 1], got values up to "
            f"{float(frames.max()):.4g} that are not whole; divide by the largest, or state "
            "space=InputSpace(high=..., temporal=True)."
        )
    return InputSpace(high=high, whole=whole, temporal=True)


def _chunks(frames: Tensor) -> Iterator[Tensor]:
    return (frames[start : start + _CHUNK] for start in range(0, len(frames), _CHUNK))


def _remedy(low: float, high: float, peak: float) -> str:
    """Say how to bring pixels into [0, peak]."""
    if low < 0:
        return (
            "undo the normalisation, x * std + mean. Normalisation belongs in the model, mean= and "
            "std= of it."
        )
    if peak == 1 and 1 < high <= 255 and high == round(high):
        white = f"{high:g}" if high < 128 else "255"
        return f"float pixels up to {high:g}: divide by {white}, or set peak={white}."
    return "rescale them or set peak. Normalisation belongs in the model."


def check_labels(
    where: str, labels: Tensor, count: int, num_classes: int, what: str = "images"
) -> None:
    """Raise ValueError unless there are ``count`` labels in 0 .. num_classes - 1."""
    if len(labels) != count:
        raise ValueError(f"{where}: {count} {what} but {len(labels)} labels.")
    low, high = (int(value) for value in labels.aminmax())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{where}: labels lie in 0 .. {num_classes - 1} (num_classes={num_classes}), "
            f"got {low} .. {high}{_first_class(low, num_classes)}."
        )


def _first_class(low: int, num_classes: int) -> str:
    """Say how to convert labels that count from 1 or mark unknown images with -1."""
    if low < 0:
        return "; remove the images without a class, x[y >= 0], y[y >= 0]"
    return "; of labels that count from 1 write y - 1" if low == 1 else ""
