"""Frames of the input replaced by Gaussian noise, one after another, until a network fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.analysis.base import NotApplicable
from spikeguard.encoders.input_space import space_of
from spikeguard.models.adapters.classifier import Foreign
from spikeguard.models.snn import SNN
from spikeguard.rng import SampleStreams

__all__ = ["Classifier", "Replaced", "present_frames", "replace_until_failure", "spare_frames"]

Classifier = Callable[[Tensor, Tensor], Tensor]
"""``classify(frames [T, n, ...], index [n]) -> classes [n]``: the index counts inside the batch."""


@dataclass(frozen=True, eq=False)
class Replaced:
    """Images with some frames replaced by noise.

    Attributes:
        frames: Input of every step [T, B, ...].
        count: Number of replaced frames [B], 0 to T.
        correct: Whether the prediction is right with these frames [B].
    """

    frames: Tensor
    count: Tensor
    correct: Tensor


def present_frames(model: nn.Module, frames: Tensor) -> Tensor:
    """Return the logits [B, K] of one image per step.

    Args:
        model: A network of ``spikeguard.models`` or ``spikeguard.foreign``; left unchanged.
        frames: Images [T, B, ...], one for each step; T is the network's.

    Raises:
        NotApplicable: If the network cannot take another image at every step.
    """
    if space_of(model).temporal:
        raise NotApplicable(
            "replaces one of T equal images; the frames of events differ from step to step already."
        )
    if isinstance(model, SNN):
        if model.encoder.constant:
            return require_logits(model(frames))
        raise NotApplicable(
            f"{type(model.encoder).__name__} derives the frames of all steps from one image; "
            "replacing a frame needs direct coding."
        )
    if isinstance(model, Foreign):
        if not model.settled:
            model(frames[0])
        if model.presentation != "inside":
            return require_logits(model.present(frames))
        raise NotApplicable("the network loops over time itself; it takes no image per step.")
    raise NotApplicable(f"{type(model).__name__} takes no image per step.")


def require_logits(logits: Tensor) -> Tensor:
    """Return logits; reject those that are not finite, because a class of NaN means nothing."""
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("the logits are not finite; check the weights of the network.")
    return logits


def replace_until_failure(
    classify: Classifier, x: Tensor, y: Tensor, T: int, streams: SampleStreams
) -> Replaced:
    """Replace the frames of every image by noise, in random order, until its class is wrong.

    Frame t of image i is replaced by noise from N(0, 1), in the units of the pixels, without
    clipping. At most all T frames are replaced: an image whose class is right after that never
    fails. An image whose class is wrong without noise keeps a count of 0.

    Args:
        classify: The network.
        x: Images [B, ...], the input at every step.
        y: Labels [B].
        T: Number of steps.
        streams: One random stream an image.

    Source: operational-space paper, Algorithm 1; the loop there has no end for an image that never
        fails.
    """
    noise = _Noise(x, T, streams)
    count = torch.zeros_like(y)
    correct = classify(noise.replacing(count), torch.arange(len(y))) == y
    for k in range(1, T + 1):
        index = correct.nonzero().flatten()
        if not len(index):
            break
        count[index] = k
        frames = noise.replacing(count)[:, index]
        correct[index] = classify(frames, index.cpu()) == y[index]
    return Replaced(noise.replacing(count), count, correct)


def spare_frames(
    classify: Classifier,
    x: Tensor,
    y: Tensor,
    count: Tensor,
    T: int,
    streams: SampleStreams,
    tries: int,
) -> Replaced:
    """Replace as many frames by other noise, such that the class stays right if possible.

    The control of :func:`replace_until_failure`: the same image and the same number of replaced
    frames, but other frames and other noise, drawn anew until the class is right.

    Args:
        classify: The network.
        x: Images [B, ...].
        y: Labels [B].
        count: Number of frames to replace [B].
        T: Number of steps.
        streams: One random stream an image.
        tries: Number of draws, >= 1. An image whose class is wrong in all of them is not correct
            in the result.
    """
    correct = torch.zeros_like(y, dtype=torch.bool)
    frames = x.expand(T, *x.shape).clone()
    for attempt in range(tries):
        index = (~correct).nonzero().flatten()
        if not len(index):
            break
        drawn = _Noise(x[index], T, streams.take(index).fork("try", attempt))
        frames[:, index] = drawn.replacing(count[index])
        correct[index] = classify(frames[:, index], index.cpu()) == y[index]
    return Replaced(frames, count, correct)


class _Noise:
    """Noise for every frame of every image, and the order in which frames are replaced."""

    def __init__(self, x: Tensor, T: int, streams: SampleStreams):
        self._x = x
        order = streams.uniform((len(x), T), device=x.device).argsort(1)
        self._place = order.argsort(1).T  # [T, B]: frame t is replaced as number place + 1
        noise = streams.normal((len(x), T, *x.shape[1:]), device=x.device)
        self._noise = noise.transpose(0, 1).to(x.dtype)

    def replacing(self, count: Tensor) -> Tensor:
        """Return frames [T, B, ...] with the first ``count`` [B] of the order replaced."""
        replaced = (self._place < count).view(*self._place.shape, *[1] * (self._x.ndim - 1))
        return torch.where(replaced, self._noise, self._x)
