"""Peers: the same network in three other libraries, as a plain loop, and as an ANN (the floor)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.benchmarking.transcribe import MultiStep, StepLoop, Style, TimeFolded
from spikeguard.models.snn import SNN
from spikeguard.neurons.lif import LIF
from spikeguard.neurons.surrogate import Triangular

__all__ = ["FLOOR", "PEERS", "Unavailable", "floor", "peer", "versions"]

FLOOR = "floor"


class Unavailable(ImportError):
    """A library is not installed or cannot be imported; the message is one line with a remedy."""


@dataclass(frozen=True)
class _Peer:
    package: str | None
    build: Callable[[SNN], nn.Module]


def peer(name: str, model: SNN) -> nn.Module:
    """Return the network in the form of a peer, with copied weights.

    Args:
        name: One of ``PEERS``.
        model: A SpikeGuard network with LIF neurons, ``Triangular(1.0)`` and hard reset.

    Raises:
        Unavailable: If the library cannot be imported.
        ValueError: If the peer cannot express the network.
    """
    return PEERS[name].build(model)


def floor(model: SNN) -> nn.Module:
    """Return the same network as an ANN: ReLU instead of neurons, on T B images."""
    return TimeFolded(model, Style(neuron=lambda _: nn.ReLU()))


def versions() -> dict[str, str | None]:
    """Return the versions of the peers; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name, each in PEERS.items():
        if each.package is not None:
            try:
                found[name] = version(each.package)
            except PackageNotFoundError:
                found[name] = None
    return found


def _load(package: str, module: str) -> Any:
    """Import a module of a peer without its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "") == package:
            reason = f"{package} is not installed"
        else:
            reason = f"{package} cannot be imported ({' '.join(str(error).split())})"
        raise Unavailable(f"{reason}: make bench-peers") from error


def _require_comparable(neuron: LIF) -> None:
    surrogate = neuron.surrogate
    width = surrogate.width if isinstance(surrogate, Triangular) else None
    if (neuron.v_th, neuron.reset, width) != (1.0, "hard", 1.0):
        raise ValueError(
            f"peer: can only compare v_th 1, hard reset, Triangular(1.0); got {neuron}."
        )


# --- SpikingJelly: multi-step mode; stateless layers run with time folded into the batch


def _spikingjelly(model: SNN) -> nn.Module:
    modules = {
        name: _load("spikingjelly", f"spikingjelly.activation_based.{name}")
        for name in ("base", "layer", "neuron", "surrogate")
    }

    def neuron(ours: LIF) -> nn.Module:
        _require_comparable(ours)
        made: nn.Module = modules["neuron"].LIFNode(
            tau=1 / (1 - ours.decay),
            decay_input=False,
            v_threshold=ours.v_th,
            v_reset=0.0,
            surrogate_function=modules["surrogate"].PiecewiseQuadratic(alpha=1.0),
            detach_reset=ours.detach_reset,
            step_mode="m",
        )
        return made

    def stateless(layers: Sequence[nn.Module]) -> nn.Module:
        folded: nn.Module = modules["layer"].SeqToANNContainer(*layers)
        return folded

    def reset(layer: nn.Module) -> None:
        if isinstance(layer, modules["base"].MemoryModule):
            layer.reset()

    return MultiStep(model, Style(neuron, stateless), reset)


# --- snnTorch: a loop over time; its delayed reset to zero is the same recurrence


def _snntorch(model: SNN) -> nn.Module:
    library = _load("snntorch", "snntorch")
    surrogate = _load("snntorch", "snntorch.surrogate")

    def triangle(x: Tensor, grad: Tensor, spikes: Tensor) -> Tensor:
        return grad * (1 - x.abs()).clamp_min(0)

    def neuron(ours: LIF) -> nn.Module:
        _require_comparable(ours)
        made: nn.Module = library.Leaky(
            beta=ours.decay,
            threshold=ours.v_th,
            spike_grad=surrogate.custom_surrogate(triangle),
            reset_mechanism="zero",
            init_hidden=True,
        )
        made.instances.clear()  # type: ignore[operator,union-attr]  # this class-wide list would keep all neurons in memory
        return made

    def reset(layer: nn.Module) -> None:
        if isinstance(layer, library.Leaky):
            layer.reset_mem()

    return StepLoop(model, Style(neuron), reset)


# --- Norse: a loop over time with explicit states; v + (2 I - v) / 2 = v / 2 + I


def _norse(model: SNN) -> nn.Module:
    module = _load("norse", "norse.torch.module.lif_box")
    functional = _load("norse", "norse.torch.functional.lif_box")

    def neuron(ours: LIF) -> nn.Module:
        _require_comparable(ours)
        if ours.decay != 0.5:
            raise ValueError(f"peer: norse can only be compared at decay 0.5, got {ours.decay:g}.")
        settings = functional.LIFBoxParameters(
            tau_mem_inv=torch.as_tensor(0.5),
            v_th=torch.as_tensor(ours.v_th),
            method="triangle",
            alpha=torch.as_tensor(1.0),
        )
        return _Stateful(module.LIFBoxCell(settings, dt=1.0))

    return StepLoop(model, Style(neuron, drive_scale=2.0), _rest)


class _Stateful(nn.Module):
    """Wrap a cell and pass the state it returns to its next call."""

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell = cell
        self.state: Any = None

    def forward(self, current: Tensor) -> Tensor:
        spikes: Tensor
        spikes, self.state = self.cell(current, self.state)
        return spikes


# --- a plain loop over time in torch, as in the code of most papers


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        (x,) = ctx.saved_tensors
        return grad * (1 - x.abs()).clamp_min(0)


class _PlainLIF(nn.Module):
    def __init__(self, decay: float, v_th: float):
        super().__init__()
        self.decay, self.v_th = decay, v_th
        self.state: Tensor | None = None

    def forward(self, current: Tensor) -> Tensor:
        v = current if self.state is None else self.decay * self.state + current
        spikes: Tensor = _Step.apply(v - self.v_th)  # type: ignore[no-untyped-call]
        self.state = v * (1 - spikes)
        return spikes


def _plain(model: SNN) -> nn.Module:
    def neuron(ours: LIF) -> nn.Module:
        _require_comparable(ours)
        return _PlainLIF(ours.decay, ours.v_th)

    return StepLoop(model, Style(neuron), _rest)


def _rest(layer: nn.Module) -> None:
    if isinstance(layer, _Stateful | _PlainLIF):
        layer.state = None


PEERS: dict[str, _Peer] = {
    "spikingjelly": _Peer("spikingjelly", _spikingjelly),
    "snntorch": _Peer("snntorch", _snntorch),
    "norse": _Peer("norse", _norse),
    "plain": _Peer(None, _plain),
}
