"""SNN: normalise -> encode -> layers over time -> readout, called like an ordinary classifier."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from spikeguard.encoders.coding import Direct, Encoder
from spikeguard.encoders.input_space import PIXELS, InputSpace
from spikeguard.kernels.layout import regular
from spikeguard.models import efficient_layers as lean
from spikeguard.models.activation_checkpointing import run_checkpointed
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.models.options import NetworkOptions, Readout
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.lif import LIF
from spikeguard.neurons.spike_marks import are_spikes
from spikeguard.rng import random_sources, randomness, stream
from spikeguard.system.swapping import restored

__all__ = [
    "SNN",
    "Temporal",
    "TimeSequential",
    "assemble",
    "fold",
    "initialise",
    "quiet_construction",
    "readout_layers",
    "scaled",
    "spiking",
]


_NEURONS = 2  # spiking layers of a group, where no block says what belongs together
_POOLING = (nn.AvgPool2d, nn.MaxPool2d)


class Temporal(nn.Module):
    """Base of modules that process the time axis: ``module(x, T)``, [T or 1, B, ...] to the same.

    A first axis of length 1 represents T equal steps: with direct coding nothing before the first
    neuron depends on t, so it is computed once. Batch normalisation there gets B samples instead of
    T equal copies of them: mean and variance are the same, but the unbiased variance stored for
    evaluation is n / (n - 1) times that of n values, not of T n.
    """


class TimeSequential(nn.Sequential, Temporal):
    """Layers in sequence. Stateless ones get time folded into the batch, neurons [T, B, ...].

    Attributes:
        checkpointing: Whether only the inputs of groups of layers are kept for the backward pass;
            set by ``checkpointed``.
    """

    checkpointing = False

    def forward(self, x: Tensor, T: int) -> Tensor:  # type: ignore[override]
        """Map [T or 1, B, ...] to [T or 1, B, ...]."""
        if not self.checkpointing:
            return self._run(list(self), T, x)
        for group in _groups(list(self)):
            x = run_checkpointed(group, partial(self._run, group, T), x)
        return x

    def _run(self, layers: list[nn.Module], T: int, x: Tensor) -> Tensor:
        """Run some of the layers; those that a kernel computes in one pass are among them."""
        norm: nn.Module | None = None
        pool: nn.Module | None = None  # pooling already done by the previous neuron
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if layer is pool:
                pool = None
            elif isinstance(layer, Temporal):
                x = layer(x, T)
            elif isinstance(layer, Neuron):
                pool = following if following and layer.averages(following, x) else None
                with layer.averaging(pool):
                    x = layer(x, T=T, norm=norm)
                norm = None
            elif isinstance(following, Neuron) and following.absorbs(layer, x):
                norm = layer
            else:
                x = fold(layer, x)
        return x


def _groups(layers: list[nn.Module]) -> list[list[nn.Module]]:
    """Divide layers into groups to checkpoint: a block, or up to two neurons with their pooling."""
    groups: list[list[nn.Module]] = [[]]
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, Temporal) and groups[-1]:
            groups.append([])
        groups[-1].append(layer)
        neurons = sum(isinstance(each, Neuron) for each in groups[-1])
        full = neurons == _NEURONS and not isinstance(following, _POOLING)
        if isinstance(layer, Temporal) or full:
            groups.append([])
    return [group for group in groups if group]


class SNN(nn.Module):
    """A spiking network as an ordinary classifier; no state survives a call.

    Args:
        stages: Named stages of the network, run in order; the layer names of ``record`` start with
            these.
        T: Time steps, >= 1.
        num_classes: Length K of the logits.
        in_shape: Shape of one image, or of one frame of event data, without the batch axis. The
            attribute of this name is the shape of one input, (T, C, H, W) for event data; it is
            checked at every call.
        encoder: Default ``Direct()``.
        mean: Per-channel mean of the inputs (or one number for all), subtracted inside the model.
        std: Per-channel standard deviation, > 0, divided by inside the model.

    Raises:
        ValueError: If T < 1, or mean and std do not fit; at a call, if x has another shape or holds
            integers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        stages: Mapping[str, Temporal],
        *,
        T: int,
        num_classes: int,
        in_shape: Sequence[int],
        encoder: Encoder | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ):
        super().__init__()
        if T < 1:
            raise ValueError(f"SNN: T must be >= 1 time steps, got {T}.")
        channels = in_shape[0]
        if len(mean) != len(std) or len(mean) not in (1, channels) or not all(s > 0 for s in std):
            raise ValueError(
                f"SNN: mean and std need 1 or {channels} numbers and std > 0, got {mean} and {std}."
            )
        self.T = T
        self.num_classes = num_classes
        shape = (-1, *[1] * (len(in_shape) - 1))
        self.register_buffer("mean", torch.tensor([float(m) for m in mean]).view(shape))
        self.register_buffer("std", torch.tensor([float(s) for s in std]).view(shape))
        self.encoder: Encoder = copy.deepcopy(encoder) if encoder is not None else Direct()
        self.in_shape = (T, *in_shape) if self.input_space.temporal else tuple(in_shape)
        self._stages = tuple(stages)
        for name, stage in stages.items():
            self.add_module(name, stage)
        for number, source in enumerate(random_sources(self)):
            source.seed = number  # without a bound source, layers still draw different sequences
        self._settle_neurons()

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, *in_shape] in [0, 1], or event frames [B, T, C, H, W], to logits [B, K].

        If the encoder gives the same frame at every step, as direct coding does, x may also be
        [T, B, *in_shape]: one image per step.
        """
        frames = x.ndim == len(self.in_shape) + 2 and len(x) == self.T and self.encoder.constant
        if tuple(x.shape[2 if frames else 1 :]) != self.in_shape:
            shape = ", ".join(["B", *map(str, self.in_shape)])
            raise ValueError(f"SNN: expects inputs [{shape}], got {list(x.shape)}{self._why(x)}.")
        if not x.is_floating_point():
            remedy = "x.float()" if self.input_space.temporal else "x.float() / 255"
            raise ValueError(
                f"SNN: expects floating-point inputs in {self.input_space.box}, got {x.dtype}; "
                f"use {remedy}."
            )
        x = in_dtype_of(self, x)
        if self.encoder.normalised:
            x = (x - self.mean) / self.std
        if frames:
            drive = self.encoder(x.flatten(0, 1), 1)[0].view(x.shape)
        else:
            drive = self.encoder(x, 1 if self.encoder.constant else self.T)
        for name in self._stages:
            drive = getattr(self, name)(drive, self.T)
        return drive.mean(0)

    @property
    def last_stage(self) -> nn.Module:
        """The stage whose output [T, B, K] is averaged over time to the logits."""
        last: nn.Module = getattr(self, self._stages[-1])
        return last

    @property
    def input_space(self) -> InputSpace:
        """The inputs that the encoder takes."""
        return getattr(self.encoder, "space", PIXELS)

    def _why(self, x: Tensor) -> str:
        """Explain a shape of event data where images are expected, and the other way round."""
        if self.input_space.temporal and x.ndim == 4:
            return "; it takes event frames [B, T, C, H, W], not images"
        if self.input_space.temporal and x.ndim == 5 and x.shape[1] != self.T:
            return f"; it takes T = {self.T} frames per recording"
        if not self.input_space.temporal and len(self.in_shape) == 3 and x.ndim == 5:
            return "; event frames are for a network with the encoder event_frames"
        return ""

    @property
    def stochastic(self) -> bool:
        """Whether two calls on the same input can differ in the current mode."""
        return any(getattr(m, "stochastic", False) for m in self.modules() if m is not self)

    @torch.no_grad()
    def _settle_neurons(self) -> None:
        """Run one black image to set the shape of the neurons that need it."""
        waiting = [m for m in self.modules() if isinstance(m, Neuron) and not m.settled]
        if not waiting:
            return

        def settle(neuron: Neuron, inputs: tuple[Tensor, ...]) -> None:
            neuron.settle(inputs[0].shape[2:])

        hooks = [neuron.register_forward_pre_hook(settle) for neuron in waiting]
        try:
            with (
                restored(self.modules(), "training"),
                randomness(self.eval(), stream(0, "settle")),
            ):
                self(torch.zeros(1, *self.in_shape))
        finally:
            for hook in hooks:
                hook.remove()


def fold(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Run a stateless layer on [T, B, ...], with time folded into the batch."""
    y = regular(lean.run(layer, regular(x.flatten(0, 1)), spikes=are_spikes(x)))
    return y.view(*x.shape[:2], *y.shape[1:])


def spiking(prototype: Neuron | None) -> Neuron:
    """Return a copy of the prototype; None gives ``LIF(0.5)``, the usual neuron in papers."""
    return LIF(0.5) if prototype is None else copy.deepcopy(prototype)


def readout_layers(
    features: int, num_classes: int, readout: Readout, neuron: Neuron | None
) -> list[nn.Module]:
    """Return the last linear layer, and for "rate" the neuron after it."""
    if readout not in ("logits", "rate"):
        raise ValueError(f"readout is 'logits' or 'rate', got {readout!r}.")
    last = nn.Linear(features, num_classes)
    return [last, spiking(neuron)] if readout == "rate" else [last]


def scaled(channels: int, width: float) -> int:
    """Multiply a layer's width; the result is at least 1."""
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"width is a multiplier > 0, got {width:g}.")
    return max(1, round(channels * width))


@contextmanager
def quiet_construction() -> Iterator[None]:
    """Build torch layers without advancing the global generator that initialises them."""
    with torch.random.fork_rng(devices=[]):
        yield


def assemble(
    stages: Mapping[str, Temporal],
    *,
    T: int,
    num_classes: int,
    in_shape: Sequence[int],
    options: NetworkOptions,
) -> SNN:
    """Build the network from its stages and draw its weights; the last step of every builder."""
    model = SNN(
        stages,
        T=T,
        num_classes=num_classes,
        in_shape=in_shape,
        encoder=options.get("encoder"),
        mean=options.get("mean", (0.0,)),
        std=options.get("std", (1.0,)),
    )
    return initialise(model, options.get("generator"))


def initialise(model: SNN, generator: torch.Generator | None) -> SNN:
    """Draw the weights: conv Kaiming-normal (fan_out, ReLU), linear U(+-1/sqrt(fan_in)), biases 0.

    Args:
        model: Network to initialise in place.
        generator: CPU generator; None is the stream ``(0, "init")``.

    Source: the public code of the SNN-RAT family.
    """
    generator = stream(0, "init") if generator is None else generator
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return model
