"""foreign(): wrap a foreign network as an ordinary classifier that can be attacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from spikeguard.encoders.input_space import PIXELS, InputSpace
from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.models.adapters.frameworks import FRAMEWORKS
from spikeguard.models.adapters.frameworks.base import Framework
from spikeguard.models.adapters.presentation import (
    Presentation,
    present,
    present_frames,
    probe,
)
from spikeguard.models.adapters.recognition import recognised
from spikeguard.models.adapters.recording import publishing
from spikeguard.models.adapters.resting_state import at_rest
from spikeguard.models.adapters.wrappers import plainly, unwrapped
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.system.swapping import restored

__all__ = ["Foreign", "ForeignReadout", "foreign"]

ForeignReadout = Literal["mean", "sum", "last", "max"]
FrameworkName = Literal["auto", "spikingjelly", "snntorch", "norse", "stateless"]


def foreign(
    model: nn.Module,
    *,
    T: int,
    framework: FrameworkName = "auto",
    readout: ForeignReadout | None = None,
    presentation: Presentation | Literal["auto"] = "auto",
    output: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    example: Tensor | None = None,
    space: InputSpace | None = None,
) -> Foreign:
    """Wrap a network of SpikingJelly, snnTorch, Norse or a paper's code as a classifier.

    The result is ``model(x [B, ...] in [0, 1]) -> logits [B, K]``. Its output depends only on x,
    because all states are reset before every call. It can be attacked, audited and recorded like
    the networks of ``spikeguard.models``. The state dict holds the network's weights under
    ``model.``.

    Args:
        model: The foreign network; its states are reset. The wrappers of torch.compile and
            DataParallel are taken off.
        T: Time steps, >= 1. A network that loops over time itself must make exactly T steps; they
            are not counted if it has no known spiking layer and returns [B, K].
        framework: The framework it is built with; "auto" detects it.
        readout: "mean" (default), "sum", "last" or "max" over time of outputs [T, B, K], or
            [B, T, K] of a network that loops over time itself. A network that returns [B, K] has
            its own readout.
        presentation: How an image is presented: the model is called once with T copies ("sequence",
            [T, B, ...]), T times ("steps"), or once with the image because it loops over time
            itself ("inside"). "auto" detects it by trial calls with two and three images. In
            "steps", the states that the model returns after its output are passed back if its
            forward takes them: ``forward(x, mem=None) -> (spk, mem)``. Event frames are
            [T, B, C, H, W] in a "sequence" and [B, T, C, H, W] "inside".
        output: Index of the element to use where the model returns a tuple; default 0, the spikes.
            A network that returns its T steps, T >= 3, must put them in a list or stack them: a
            tuple of T tensors [B, K] needs ``output``.
        mean: Per-channel mean, or one number for all channels; subtracted first, for a network
            trained on normalised images.
        std: Per-channel standard deviation, > 0, divided by after that.
        example: Images [B, ...] for the trial calls; default the images of the first call.
        space: The inputs that the network takes, for one of event frames [B, T, C, H, W]:
            ``InputSpace(high=1.0, whole=True, temporal=True)`` are frames of 0 and 1. Default:
            images in [0, 1].

    Raises:
        ValueError: If an argument is invalid, the framework is not recognised, or the model cannot
            be run in T steps: at once if an example is given, else at the first call.

    Example:
        >>> model = sg.foreign(net, T=4, readout="mean")               # doctest: +SKIP
        >>> sg.check(model, x, y)                                      # doctest: +SKIP
        >>> sg.evaluate(model, (x, y), sg.attacks.suite("quick", eps=8/255))  # doctest: +SKIP
    """
    adapted = Foreign(
        model,
        T=T,
        framework=framework,
        readout=readout,
        presentation=presentation,
        output=output,
        mean=mean,
        std=std,
        space=space or PIXELS,
    )
    if example is not None:
        with torch.no_grad():
            adapted(example)
    return adapted


class Foreign(nn.Module):
    """A foreign network as a classifier; made by :func:`foreign`.

    Attributes:
        model: The foreign network.
        T: Time steps.
        framework: "spikingjelly", "snntorch", "norse" or "stateless".
        readout: How outputs over time become logits; "own" if the network returns logits.
        presentation: "sequence", "steps" or "inside"; "auto" until the first call.
        input_space: The inputs that the network takes.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        T: int,
        framework: FrameworkName,
        readout: ForeignReadout | None,
        presentation: Presentation | Literal["auto"],
        output: int | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        space: InputSpace = PIXELS,
    ):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise ValueError(f"foreign: expects an nn.Module, got {type(model).__name__}.")
        if T < 1:
            raise ValueError(f"foreign: T must be >= 1 time steps, got {T}.")
        if readout is not None and readout not in get_args(ForeignReadout):
            known = ", ".join(map(repr, get_args(ForeignReadout)))
            raise ValueError(f"foreign: readout is one of {known}; got {readout!r}.")
        if presentation not in ("auto", *get_args(Presentation)):
            known = ", ".join(map(repr, ("auto", *get_args(Presentation))))
            raise ValueError(f"foreign: presentation is one of {known}; got {presentation!r}.")
        if (mean is None) != (std is None):
            raise ValueError("foreign: mean and std come together; pass both or neither.")
        scale = [float(s) for s in std or ()]
        if len(mean or ()) != len(scale) or not all(s > 0 for s in scale):
            raise ValueError(
                f"foreign: mean and std need as many numbers, std > 0; got {mean} and {std}."
            )
        model = unwrapped(model)
        self.model = model
        self.T = T
        self.input_space = space
        self.framework = recognised(model, framework)
        self.presentation: Presentation | Literal["auto"] = presentation
        self.readout: ForeignReadout | Literal["own"] | None = readout
        self.output = 0 if output is None else output
        self._output_given = output is not None
        self.register_buffer("mean", torch.tensor([float(m) for m in mean or ()]), persistent=False)
        self.register_buffer("std", torch.tensor(scale), persistent=False)
        known_by: Framework = FRAMEWORKS[self.framework]
        self._known_by = known_by
        self._layers = [m for m in model.modules() if known_by.owns(m)]
        self._neurons = {
            f"model.{name}" if name else "model": ForeignNeuron(name or "the model", m, known_by)
            for name, m in model.named_modules()
            if known_by.owns(m) and known_by.spikes(m)
        }
        self._tried = False
        self._counted = True
        self._batch_first = False
        for layer in self._layers:
            known_by.reset(layer)

    def spiking_layers(self) -> Mapping[str, ForeignNeuron]:
        """Return the network's spiking layers; see ``spikeguard.neurons.spiking_layers``."""
        return self._neurons

    @property
    def settled(self) -> bool:
        """Whether presentation and readout are known; the first call detects them."""
        return self._tried

    @property
    def steps_counted(self) -> bool:
        """Whether the steps of the network were counted, or are made by the caller.

        False for a network that loops over time itself, has no known spiking layer and returns
        [B, K]: nothing shows that it makes T steps.
        """
        return self._counted

    def forward(self, x: Tensor) -> Tensor:
        """Map images [B, ...] in [0, 1] to logits [B, K], in the type of the network's weights.

        A network of event frames takes [B, T, C, H, W].
        """
        if not x.is_floating_point():
            remedy = "x.float()" if self.input_space.temporal else "x.float() / 255"
            raise ValueError(
                f"foreign: expects floating-point inputs in {self.input_space.box}, got {x.dtype}; "
                f"use {remedy}."
            )
        if self.input_space.temporal and (x.ndim != 5 or x.shape[1] != self.T):
            raise ValueError(
                f"foreign: expects event frames [B, T, C, H, W] with T = {self.T}, got "
                f"{list(x.shape)}."
            )
        x = self._normalised(in_dtype_of(self.model, x))
        if not self._tried:
            self._try(x)
        assert self.presentation != "auto"
        with self._running():
            out = present(
                self.model,
                x,
                self.T,
                self.presentation,
                self.output,
                temporal=self.input_space.temporal,
            )
        return self._read(out, len(x))

    def present(self, frames: Tensor) -> Tensor:
        """Map one image per step, [T, B, ...], to logits [B, K]; see :meth:`forward`.

        Raises:
            ValueError: If the network takes event frames, loops over time itself, or the steps are
                not T.
        """
        if self.input_space.temporal:
            raise ValueError("foreign: the network takes event frames; call it with them.")
        if len(frames) != self.T:
            raise ValueError(f"foreign: {len(frames)} frames for T={self.T} steps.")
        if not self._tried:
            self(frames[0])
        assert self.presentation != "auto"
        flat = self._normalised(in_dtype_of(self.model, frames.flatten(0, 1)))
        with self._running():
            out = present_frames(
                self.model, flat.view(frames.shape), self.presentation, self.output
            )
        return self._read(out, frames.shape[1])

    @contextmanager
    def _running(self) -> Iterator[None]:
        with plainly(self.model), self._from_rest(), publishing(self._neurons.values(), self.T):
            yield

    def _read(self, out: Tensor, images: int) -> Tensor:
        """Return the logits [B, K] of an output [T, B, K], or of the network's own readout."""
        if out.ndim == 2 and self.readout == "own":
            return out
        if out.ndim == 3 and self._batch_first:
            out = out.transpose(0, 1)
        if out.ndim != 3 or out.shape[:2] != (self.T, images):
            raise ValueError(
                f"foreign: the model returned {list(out.shape)} for {images} images at T={self.T}; "
                f"expected [{self.T}, {images}, K]."
            )
        if self.readout == "last":
            return out[-1]
        if self.readout == "max":
            return out.amax(0)
        return out.sum(0) if self.readout == "sum" else out.mean(0)

    def _normalised(self, x: Tensor) -> Tensor:
        if not len(self.std):
            return x
        axis = 2 if self.input_space.temporal else 1
        if len(self.std) not in (1, x.shape[axis]):
            raise ValueError(
                f"foreign: mean and std have {len(self.std)} numbers, the images "
                f"{list(x.shape[1:])} have {x.shape[axis]} channels; pass one number for each."
            )
        shape = (-1, *[1] * (x.ndim - axis - 1))
        return (x - self.mean.to(x).view(shape)) / self.std.to(x).view(shape)

    def _try(self, x: Tensor) -> None:
        """Detect presentation and readout by trial calls that change nothing."""
        with restored(self.modules(), "training"):
            self.eval()
            with torch.no_grad(), torch.random.fork_rng(devices=[]), plainly(self.model):
                found = probe(
                    self.model,
                    self._layers,
                    x[:1],
                    self.T,
                    wish=self.presentation,
                    output=self.output if self._output_given else None,
                    framework=self._known_by,
                    from_rest=self._from_rest,
                    temporal=self.input_space.temporal,
                )
        if found.own_readout and self.readout not in (None, "own"):
            raise ValueError(
                f"foreign: the model returns [B, K] by itself; readout={self.readout!r} would "
                "change nothing, leave it out."
            )
        self.presentation = found.presentation
        self.readout = "own" if found.own_readout else self.readout or "mean"
        self._counted, self._batch_first = found.counted, found.batch_first
        for neuron in self._neurons.values():
            neuron.layout = found.layouts.get(neuron.module)
        self._tried = True

    def _from_rest(self) -> AbstractContextManager[None]:
        return at_rest(self._layers, self._neurons.values(), self._known_by)

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        readout = self.readout or "mean"
        return (
            f"framework={self.framework!r}, T={self.T}, presentation={self.presentation!r}, "
            f"readout={readout!r}, spiking_layers={len(self._neurons)}"
            + (f", space={self.input_space}" if self.input_space.temporal else "")
        )
