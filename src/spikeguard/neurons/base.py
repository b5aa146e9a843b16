"""What all neurons share: the call into the kernel, and ``record``, the one window on membranes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from spikeguard.kernels import (
    Reset,
    can_fuse,
    fusing,
    integrate_and_fire,
    normalised,
    reset_potential,
)
from spikeguard.neurons.backward import Analogue, BackwardRule, prescribed
from spikeguard.neurons.surrogate import Surrogate, Triangular

__all__ = [
    "HasSpikingLayers",
    "LayerTrace",
    "Neuron",
    "SpikingLayer",
    "Trace",
    "are_spikes",
    "backward_mode",
    "backward_rule",
    "decay_from_tau",
    "record",
    "spiking_layers",
    "under_attack",
]

Phase = Literal["train", "attack", "test"]
_MARK = "spikes_at_version"


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What one spiking layer did in one forward pass; every tensor [T, B, *N], all differentiable.

    Attributes:
        current: Input current I.
        v: Membrane potential before reset, noise included: what the threshold saw.
        spikes: Output in {0, 1}.
        noise: The noise inside v, or None.
        v_th: The layer's threshold.
        surrogate: The surrogate its backward pass used.
        reset: "hard" or "soft".
        detach_reset: Whether the layer blocks the gradient through its reset term.
    """

    current: Tensor
    v: Tensor
    spikes: Tensor
    noise: Tensor | None
    v_th: float
    surrogate: Surrogate
    reset: Reset
    detach_reset: bool = False

    @property
    def u(self) -> Tensor:
        """Membrane potential after reset, differentiable as in the layer itself."""
        spikes = self.spikes.detach() if self.detach_reset else self.spikes
        return reset_potential(self.v, spikes, self.v_th, self.reset)

    @property
    def v_before_noise(self) -> Tensor:
        """Membrane potential before reset, without the noise of its own step."""
        return self.v if self.noise is None else self.v - self.noise


Trace = Mapping[str, LayerTrace]


class Neuron(nn.Module):
    """Base of all spiking layers: ``neuron(current [T, B, *N]) -> spikes [T, B, *N]``.

    Every call starts at rest; there is no state to reset between calls. A subclass says what its
    decay, gate and noise are; the recurrence itself is the kernel's. ``forward`` also takes ``T``,
    where the one step of the current stands for T equal ones, and ``norm``, a batch normalisation
    that comes first and that a fused kernel does in the same pass (see ``absorbs``).

    Args:
        v_th: Firing threshold in membrane units, > 0; fires at v >= v_th.
        surrogate: Stands in for H' in the backward pass only; default ``Triangular(1.0)``.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" (to 0) or "soft" (subtract v_th).

    Raises:
        ValueError: If v_th is not positive, or reset is neither word.
    """

    def __init__(
        self,
        v_th: float = 1.0,
        *,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
        reset: Reset = "hard",
    ):
        super().__init__()
        name = type(self).__name__
        if not (v_th > 0 and math.isfinite(v_th)):
            raise ValueError(f"{name}: v_th must be positive, got {v_th:g}.")
        if reset not in ("hard", "soft"):
            raise ValueError(f"{name}: reset is 'hard' or 'soft', got {reset!r}.")
        self.v_th = float(v_th)
        self.surrogate: Surrogate = Triangular() if surrogate is None else surrogate
        self.detach_reset = detach_reset
        self.reset: Reset = reset
        self.attacked = False
        self.rule: BackwardRule | Analogue | None = None
        self._recorders: list[_Recorder] = []

    @property
    def phase(self) -> Phase:
        """What the call is for: "train", "attack" (inside an attack's search) or "test"."""
        if self.attacked:
            return "attack"
        return "train" if self.training else "test"

    def absorbs(self, layer: nn.Module, x: Tensor) -> bool:
        """Whether ``layer``, about to see ``x`` before this neuron, can be left to its kernel.

        Not where a hook is looking at what passes between the two.
        """
        watched = self._forward_pre_hooks or self._forward_hooks
        return can_fuse(layer) and fusing(x.device) and not watched

    def fire(
        self,
        current: Tensor,
        *,
        decay: float | Tensor,
        gate: Tensor | None = None,
        noise: Tensor | None = None,
        T: int | None = None,
        norm: nn.Module | None = None,
    ) -> Tensor:
        """Run the kernel on a current [T, B, *N]; publish to open recorders; return the spikes.

        Inside ``backward_rule`` the spikes are the same, and the rule says how they are
        differentiated; an ``Analogue`` takes their place.
        """
        if isinstance(self.rule, Analogue):
            seen = current if norm is None else normalised(norm, current)
            return self.rule(seen, gate=gate, v_th=self.v_th, T=T)
        wanted = torch.is_grad_enabled() and current.requires_grad
        rule = self.rule if wanted else None
        with nullcontext() if rule is None else torch.no_grad():
            spikes, v = integrate_and_fire(
                current,
                decay=decay,
                gate=gate,
                noise=noise,
                v_th=self.v_th,
                reset=self.reset,
                detach_reset=self.detach_reset,
                surrogate=self.surrogate,
                potentials=bool(self._recorders) or rule is not None,
                T=T,
                norm=norm,
            )
        if rule is not None:
            assert v is not None
            spikes = prescribed(
                rule,
                self,
                current,
                spikes,
                v,
                decay=decay,
                gate=gate,
                v_th=self.v_th,
                reset=self.reset,
                detach_reset=self.detach_reset,
                norm=norm,
            )
        if self._recorders:
            assert v is not None
            trace = LayerTrace(
                (current if norm is None else normalised(norm, current)).expand(v.shape),
                v,
                spikes,
                noise,
                self.v_th,
                self.surrogate,
                self.reset,
                self.detach_reset,
            )
            for recorder in self._recorders:
                recorder.add(self, trace)
        return mark_spikes(spikes)

    @property
    def settled(self) -> bool:
        """Whether it has all its parameters; if not, ``settle`` makes them."""
        return True

    def settle(self, shape: Sequence[int]) -> None:
        """Make the parameters that depend on how many neurons there are: one sample's [*N].

        A network does so for its neurons, once, when it is built.
        """

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        reset = f"{self.reset!r}, detach_reset={self.detach_reset}"
        return f"v_th={self.v_th:g}, surrogate={self.surrogate}, reset={reset}"


class SpikingLayer(Protocol):
    """A layer whose surrogate can be exchanged and that publishes to open recorders."""

    surrogate: Surrogate
    _recorders: list[_Recorder]


@runtime_checkable
class HasSpikingLayers(Protocol):
    """A module that speaks for spiking layers which are no :class:`Neuron`."""

    def spiking_layers(self) -> Mapping[str, SpikingLayer]:
        """Return them by the names that they have inside it, in network order."""


def spiking_layers(model: nn.Module) -> dict[str, SpikingLayer]:
    """Return all spiking layers by name, in network order: ours, and those of other frameworks."""
    found: dict[str, SpikingLayer] = {}
    for name, module in model.named_modules():
        if isinstance(module, Neuron):
            found[name] = module
        elif isinstance(module, HasSpikingLayers):
            prefix = f"{name}." if name else ""
            found |= {prefix + inner: layer for inner, layer in module.spiking_layers().items()}
    return found


class _Recorder(Mapping[str, LayerTrace]):
    """A mapping from layer names, in network order, to what the layer did in the last forward."""

    def __init__(self, model: nn.Module):
        self._name = {layer: name for name, layer in spiking_layers(model).items()}
        self._seen: dict[str, LayerTrace] = {}
        for neuron in self._name:
            neuron._recorders.append(self)

    def add(self, neuron: SpikingLayer, seen: LayerTrace) -> None:
        self._seen.pop(self._name[neuron], None)
        self._seen[self._name[neuron]] = seen

    def close(self) -> None:
        for neuron in self._name:
            neuron._recorders = [r for r in neuron._recorders if r is not self]

    def __getitem__(self, name: str) -> LayerTrace:
        if name not in self._seen:
            known = ", ".join(self._seen) or "none: call the model inside the block first"
            raise KeyError(f"no spiking layer {name!r} was recorded; recorded: {known}")
        return self._seen[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)


@contextmanager
def record(model: nn.Module) -> Iterator[Trace]:
    """Record currents, potentials and spikes of every spiking layer.

    The trace is a mapping from module names to :class:`LayerTrace`, in network order; it holds the
    last forward pass and stays readable after the block. Closed, it costs nothing: potentials are
    not even stored.

    Example:
        >>> with record(model) as trace:                           # doctest: +SKIP
        ...     logits = model(x)
        >>> trace["features.2"].v.shape                            # doctest: +SKIP
        torch.Size([4, 128, 64, 32, 32])
    """
    recorder = _Recorder(model)
    try:
        yield recorder
    finally:
        recorder.close()


@contextmanager
def backward_mode(model: nn.Module, surrogate: Surrogate | float) -> Iterator[None]:
    """Differentiate every spiking layer with another surrogate inside the block.

    Args:
        model: A network with spiking layers; its forward pass does not change.
        surrogate: A surrogate for all layers, or a factor > 0 that widens each layer's own.

    Raises:
        ValueError: If the factor is not positive.
    """
    neurons = list(spiking_layers(model).values())
    before = [n.surrogate for n in neurons]
    try:
        for n in neurons:
            if isinstance(surrogate, int | float):
                n.surrogate = n.surrogate.widened(surrogate)
            else:
                n.surrogate = surrogate
        yield
    finally:
        for n, old in zip(neurons, before, strict=True):
            n.surrogate = old


@contextmanager
def backward_rule(model: nn.Module, rule: BackwardRule | Analogue) -> Iterator[None]:
    """Differentiate every spiking layer by a rule inside the block, instead of its surrogate.

    Args:
        model: A network with spiking layers. Its forward pass does not change, unless the rule is
            an ``Analogue``. Potentials that ``record`` shows carry no gradient then, and decays and
            gates get none.
        rule: Prescribes the slope ds/dv of one pass of one layer.
    """
    neurons = _neurons(model)
    before = [n.rule for n in neurons]
    try:
        for n in neurons:
            n.rule = rule
        yield
    finally:
        for n, old in zip(neurons, before, strict=True):
            n.rule = old


@contextmanager
def under_attack(model: nn.Module) -> Iterator[None]:
    """Tell every spiking layer that its caller is an attack (NoisyLIF can be quiet there)."""
    neurons = _neurons(model)
    before = [n.attacked for n in neurons]
    try:
        for n in neurons:
            n.attacked = True
        yield
    finally:
        for n, old in zip(neurons, before, strict=True):
            n.attacked = old


def mark_spikes(spikes: Tensor) -> Tensor:
    """Return the tensor, marked as one whose entries are all 0 or 1 (see ``are_spikes``)."""
    if not spikes.is_inference():  # such tensors count no versions
        spikes.__dict__[_MARK] = spikes._version
    return spikes


def are_spikes(x: Tensor) -> bool:
    """Whether ``x`` is what a neuron returned, unchanged: every entry is 0 or 1."""
    return _MARK in x.__dict__ and bool(x.__dict__[_MARK] == x._version)


def decay_from_tau(tau: float) -> float:
    """Convert a membrane time constant tau > 1, in steps, to the leak factor 1 - 1/tau."""
    if not (tau > 1 and math.isfinite(tau)):
        raise ValueError(f"from_tau: tau is a time constant in steps, > 1, got {tau:g}.")
    return 1 - 1 / tau


def require_decay(owner: str, decay: float) -> float:
    """Check a leak factor in (0, 1]; a value above 1 is probably a time constant: say so."""
    if 0 < decay <= 1:
        return float(decay)
    hint = ""
    if decay > 1:
        hint = f" If it is a time constant, pass {1 - 1 / decay:.4g} (= 1 - 1/tau) or use from_tau."
    raise ValueError(f"{owner}: decay is a leak factor in (0, 1], got {decay:g}.{hint}")


def require_neurons(
    owner: Neuron, values: Tensor | None, current: Tensor, *, steps: bool = False
) -> Tensor:
    """Check that values [*shape], or [T, *shape] with ``steps``, fit a current [T, B, *N].

    Raises:
        ValueError: If there are none yet, or shape is neither () nor N with axes of length 1.
    """
    name, neurons = type(owner).__name__, tuple(current.shape[2:])
    if values is None:
        raise ValueError(
            f"{name}: has no shape yet; build it into a network, or pass shape={neurons}."
        )
    shape = tuple(values.shape[1:] if steps else values.shape)
    fits = len(shape) == len(neurons) and all(
        a in (1, b) for a, b in zip(shape, neurons, strict=True)
    )
    if shape and not fits:
        raise ValueError(
            f"{name}: built for neurons {shape}, got a current of {neurons}; build the network "
            "for inputs of this size."
        )
    return values


def per_neuron(values: Tensor, like: Tensor, *, steps: bool = False) -> Tensor:
    """Shape values [*shape], or [T, *shape] with ``steps``, to broadcast to ``like`` [T, B, *N]."""
    lead, shape = (len(values), values.shape[1:]) if steps else (1, values.shape)
    return values.view(lead, 1, *(shape or [1] * (like.ndim - 2)))


def _neurons(model: nn.Module) -> list[Neuron]:
    return [m for m in model.modules() if isinstance(m, Neuron)]
