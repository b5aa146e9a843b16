"""A neuron of another framework: where its surrogate sits, and what its membrane did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spikeguard.kernels import Reset
from spikeguard.neurons import LayerTrace, Surrogate

__all__ = [
    "Dynamics",
    "ForeignError",
    "ForeignNeuron",
    "Framework",
    "Native",
    "Site",
    "exchanged",
    "from_package",
]

Spike = Callable[[Tensor], Tensor]

_NEAR = 1e-4  # potentials this near the threshold, in its units, may round to either side


class ForeignError(RuntimeError):
    """Potentials that cannot be recorded, or a surrogate that cannot be exchanged."""


class Framework(Protocol):
    """How the networks of one framework are recognised, reset and looked into."""

    def owns(self, module: nn.Module) -> bool:
        """Whether the module is a layer over time of this framework."""

    def reset(self, module: nn.Module) -> None:
        """Put a module that it owns to rest."""

    def open(self, module: nn.Module) -> None:
        """Make its forward pass differentiable in evaluation mode; undone by the caller."""

    def multistep(self, module: nn.Module) -> bool:
        """Whether the module sees all steps [T, B, ...] in one call."""

    def site(self, module: nn.Module) -> Site | None:
        """Where the surrogate of a spiking layer sits; None if it cannot be exchanged."""

    def spikes(self, module: nn.Module) -> bool:
        """Whether the module is a spiking layer (and no integrator, container or the like)."""

    def dynamics(self, module: nn.Module) -> Dynamics:
        """Return the recurrence of a spiking layer.

        Raises:
            ValueError: If it is not known; the message says what is not.
        """


def from_package(module: nn.Module, package: str, *names: str) -> bool:
    """Whether the class of a module descends from a class of a package, or from those named."""
    return any(
        each.__module__.partition(".")[0] == package and (not names or each.__name__ in names)
        for each in type(module).__mro__
    )


class _Exchanged(torch.autograd.Function):
    """The framework's own spikes forward, grad * h(x) backward."""

    @staticmethod
    def forward(ctx, x, spike, surrogate):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return spike(x.detach())

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        (x,) = ctx.saved_tensors
        return grad * ctx.surrogate(x), None, None


def exchanged(x: Tensor, spike: Spike, surrogate: Surrogate) -> Tensor:
    """Return ``spike(x)``, x = v - v_th, differentiated with a surrogate of ours."""
    result: Tensor = _Exchanged.apply(x, spike, surrogate)  # type: ignore[no-untyped-call]
    return result


@dataclass(frozen=True)
class Native:
    """A framework's own surrogate, as one of ours: its derivative is taken by autograd.

    Args:
        label: Tells it from others.
        spike: The framework's spike function of x = v - v_th.
        factor: How much wider than the original, > 0.
    """

    label: str
    spike: Spike = field(compare=False, repr=False)
    factor: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return h(x); zero where the framework has no derivative."""
        with torch.enable_grad():
            inner = (x / self.factor).detach().requires_grad_()
            spikes = self.spike(inner)
            if not spikes.requires_grad:
                return torch.zeros_like(x)
            (slope,) = torch.autograd.grad(spikes.sum(), inner)
        return slope / self.factor

    @property
    def half_width(self) -> float:
        """Distance at which h falls to half its value at the threshold; inf if it never does."""
        x = torch.linspace(0, 10, 20001)
        h = replace(self, factor=1.0)(x)
        below = (h <= h[0] / 2).nonzero()
        return float(x[below[0, 0]]) * self.factor if len(below) and h[0] > 0 else float("inf")

    def widened(self, factor: float) -> Native:
        """Return the same shape, ``factor`` times as wide, of the same area."""
        if not factor > 0:
            raise ValueError(f"widened: factor must be positive, got {factor:g}.")
        return replace(self, factor=self.factor * factor)


class Site(Protocol):
    """The place in a module where its spike function sits."""

    def native(self) -> Native:
        """Return the framework's own."""

    def install(self, surrogate: Surrogate) -> None:
        """Exchange it; the caller keeps the module's attributes and puts them back."""


@dataclass(frozen=True)
class Dynamics:
    """The recurrence of a layer with the reset potential as zero.

    Attributes:
        v_th: Threshold above the reset potential.
        reset: "hard" or "soft".
        detach_reset: Whether no gradient flows through the reset.
        potentials: ``(current, spikes), each [T, B, *N] -> v [T, B, *N]``: potentials before reset
            of a layer that fired so. The reset follows the spikes that are given.
    """

    v_th: float
    reset: Reset
    detach_reset: bool
    potentials: Callable[[Tensor, Tensor], Tensor]


@dataclass(eq=False)
class ForeignNeuron:
    """A spiking layer of another framework, seen as one of ours.

    Attributes:
        name: Name inside the adapter.
        module: The layer.
        framework: Knows it.
    """

    name: str
    module: nn.Module
    framework: Framework
    _chosen: Surrogate | None = None
    _recorders: list[Any] = field(default_factory=list)

    @property
    def surrogate(self) -> Surrogate:
        """The surrogate of its backward pass; assign to exchange it.

        Raises:
            ForeignError: If one is assigned and the layer's cannot be exchanged.
        """
        if self._chosen is not None:
            return self._chosen
        site = self.framework.site(self.module)
        if site is None:
            return Native(f"{type(self.module).__name__}, fixed", lambda x: (x >= 0).to(x.dtype))
        return site.native()

    @surrogate.setter
    def surrogate(self, surrogate: Surrogate) -> None:
        if surrogate == self.surrogate:
            return
        site = self.framework.site(self.module)
        if site is None:
            raise ForeignError(
                f"foreign: the surrogate of {self.name} ({type(self.module).__name__}) cannot be "
                "exchanged; attack with Backprop(), for example with suite 'papers'."
            )
        self._chosen = None if surrogate == site.native() else surrogate

    @property
    def exchanged(self) -> bool:
        """Whether it carries another surrogate than the framework's own."""
        return self._chosen is not None

    def install(self) -> None:
        """Put the chosen surrogate into the layer, for one call."""
        site = self.framework.site(self.module)
        assert site is not None and self._chosen is not None
        site.install(self._chosen)

    def trace(self, current: Tensor, spikes: Tensor) -> LayerTrace:
        """Return what the layer did, from what went in and came out, [T, B, *N] each.

        Raises:
            ForeignError: If its recurrence is not known, or does not give these spikes.
        """
        who = f"record: {self.name} ({type(self.module).__name__})"
        try:
            known = self.framework.dynamics(self.module)
        except ValueError as error:
            raise ForeignError(f"{who}: {error}") from error
        if current.shape != spikes.shape:
            raise ForeignError(
                f"{who}: takes {list(current.shape)} and gives {list(spikes.shape)}, not one spike "
                "for every input; its potentials cannot be recorded."
            )
        fed_back = spikes.detach() if known.detach_reset else spikes
        v = known.potentials(current, fed_back)
        clear = ((v - known.v_th).abs() > _NEAR * known.v_th).detach()
        wrong = float((clear & ((v >= known.v_th) != (spikes > 0.5))).double().mean())
        if wrong or not bool(((spikes == 0) | (spikes == 1)).all()):
            raise ForeignError(
                f"{who}: the recurrence that its type promises gives other spikes than it gave "
                f"({100 * wrong:.2g} % of them); its potentials cannot be recorded."
            )
        return LayerTrace(
            current, v, spikes, None, known.v_th, self.surrogate, known.reset, known.detach_reset
        )


@contextmanager
def kept(modules: list[nn.Module]) -> Iterator[None]:
    """Put back, after the block, all attributes, states and children of the modules."""
    before = [(vars(m), dict(vars(m)), _tables(m)) for m in modules]
    try:
        yield
    finally:
        for live, attributes, tables in before:
            live.clear()
            live.update(attributes)
            for name, content in tables.items():
                live[name].clear()
                live[name].update(content)


def _tables(module: nn.Module) -> Mapping[str, dict[str, Any]]:
    held = vars(module)
    return {k: dict(held[k]) for k in ("_buffers", "_modules", "_memories") if k in held}


def one_number(what: str, value: object) -> float:
    """Return a parameter that is one number for the whole layer.

    Raises:
        ValueError: If it is one for each neuron.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{what} differs between neurons; its potentials are not recorded.")
        return float(value.detach())
    return float(value)  # type: ignore[arg-type]


def integrated(
    current: Tensor,
    spikes: Tensor,
    charge: Callable[[Tensor, Tensor], Tensor],
    v_th: float,
    reset: Reset,
) -> Tensor:
    """Return v [T, ...] for ``v = charge(u, current[t])``, u reset by the given spikes."""
    u = torch.zeros_like(current[0])
    potentials = []
    for drive, s in zip(current, spikes, strict=True):
        v = charge(u, drive)
        u = v * (1 - s) if reset == "hard" else v - v_th * s
        potentials.append(v)
    return torch.stack(potentials)
