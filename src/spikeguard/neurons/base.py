"""The base class of all neurons: common settings, and the call of the kernel."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeguard.kernels.cpu.pooling import as_pair
from spikeguard.kernels.dispatch import averages, integrate_and_fire
from spikeguard.kernels.fused import can_fuse, normalised
from spikeguard.kernels.layout import regular
from spikeguard.kernels.observation import is_observed, is_read
from spikeguard.kernels.reference import Reset
from spikeguard.kernels.selection import fusing
from spikeguard.neurons.custom_backward import Analogue, BackwardRule, prescribed
from spikeguard.neurons.spike_marks import mark_spikes
from spikeguard.neurons.surrogate import Surrogate, Triangular
from spikeguard.neurons.trace import LayerTrace, Recorder

__all__ = ["Neuron", "Phase"]

Phase = Literal["train", "attack", "test"]


class Neuron(nn.Module):
    """Base of all spiking layers: ``neuron(current [T, B, *N]) -> spikes [T, B, *N]``.

    Every call starts at rest; there is no state to reset between calls. A subclass defines
    ``forward(current)``, which calls ``fire`` with its decay, gate and noise; the recurrence itself
    is the kernel's. A network calls a neuron with two more arguments: ``T``, where the one step of
    the current represents T equal steps, and ``norm``, a batch normalisation that comes first and
    that a fused kernel computes in the same pass (see ``absorbs``). A ``forward`` with these
    parameters passes them to ``fire``, which saves time; any other gets all T steps, normalised.

    Args:
        v_th: Firing threshold in membrane units, > 0; fires at v >= v_th.
        surrogate: Used instead of H' in the backward pass only; default ``Triangular(1.0)``.
        detach_reset: Block the gradient that flows through the reset term.
        reset: "hard" (to 0) or "soft" (subtract v_th).

    Raises:
        ValueError: If v_th is not positive, or reset is neither "hard" nor "soft".
    """

    v_reset = 0.0  # the potential at rest and after a hard reset; an option of LIF
    returns_spikes = False  # forward() returns the result of fire(); a subclass declares it
    takes_norm = False  # forward() names a parameter ``norm``; set for every subclass

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        known = [vars(each).get("forward") for each in cls.__mro__[1:] if issubclass(each, Neuron)]
        if cls.forward in (nn.Module.forward, *known):  # abstract, or prepared in a parent
            return
        cls.returns_spikes = vars(cls).get("returns_spikes", False)
        taken = {"T", "norm"} & set(inspect.signature(cls.forward).parameters)
        cls.takes_norm = "norm" in taken
        if len(taken) < 2:
            cls.forward = _with_network_arguments(cls.forward, taken)

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
        self._recorders: list[Recorder] = []
        self._window: tuple[int, int] | None = None

    @property
    def phase(self) -> Phase:
        """The purpose of a call: "train", "attack" (inside an attack's search) or "test"."""
        if self.attacked:
            return "attack"
        return "train" if self.training else "test"

    def absorbs(self, layer: nn.Module, x: Tensor) -> bool:
        """Whether this neuron's kernel can compute the normalisation ``layer`` before it, on ``x``.

        Not if the layer or the neuron is observed.
        """
        absorbed = self.takes_norm and can_fuse(layer) and fusing(x.device)
        return absorbed and not is_observed(self)

    def averages(self, layer: nn.Module, x: Tensor) -> bool:
        """Whether this neuron's kernel can compute the pooling ``layer`` after it, on input ``x``.

        Only if the neuron returns the result of ``fire`` (``returns_spikes``). Not if the spikes
        are observed or recorded, or a rule differentiates them.
        """
        observed = is_observed(self) or self._recorders or is_read(self, unpooled=True)
        plain = self.returns_spikes and self.rule is None and not observed
        return plain and averages(x, layer, self.surrogate)

    @contextmanager
    def averaging(self, layer: nn.Module | None) -> Iterator[None]:
        """Include the average pooling ``layer`` in calls inside the block; None includes none."""
        if layer is not None:
            assert isinstance(layer, nn.AvgPool2d)
            self._window = as_pair(layer.kernel_size)
        try:
            yield
        finally:
            self._window = None

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
        """Run the kernel on a current [T, B, *N]; pass it to open recorders; return the spikes.

        Decay and gate are numbers or tensors: a scalar, one factor for each step [T], or as many
        axes as the current, each of the current's length or 1.

        The kernel computes potentials relative to ``v_reset``, for which it is a shift of the
        threshold; recorders get them in absolute units.

        Inside ``backward_rule`` the spikes are the same and the rule defines their derivative; an
        ``Analogue`` replaces the spikes too.
        """
        if isinstance(decay, Tensor):
            decay = self._one_per_step("decay", decay, current, T)
        if gate is not None:
            gate = self._one_per_step("gate", gate, current, T)
        v_th = self.v_th - self.v_reset
        if isinstance(self.rule, Analogue):
            seen = current if norm is None else normalised(norm, current)
            return self.rule(seen, gate=gate, v_th=v_th, T=T)
        wanted = torch.is_grad_enabled() and current.requires_grad
        rule = self.rule if wanted else None
        with nullcontext() if rule is None else torch.no_grad():
            spikes, v = integrate_and_fire(
                current,
                decay=decay,
                gate=gate,
                noise=noise,
                v_th=v_th,
                reset=self.reset,
                detach_reset=self.detach_reset,
                surrogate=self.surrogate,
                potentials=bool(self._recorders) or rule is not None,
                T=T,
                norm=norm,
                window=self._window,
            )
        if self._window is not None:
            return spikes
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
                v_th=v_th,
                reset=self.reset,
                detach_reset=self.detach_reset,
                norm=norm,
            )
        if self._recorders:
            assert v is not None
            trace = LayerTrace(
                (current if norm is None else normalised(norm, current)).expand(v.shape),
                v + self.v_reset if self.v_reset else v,
                spikes,
                noise,
                self.v_th,
                self.surrogate,
                self.reset,
                self.detach_reset,
                self.v_reset,
                decay,
                gate,
            )
            for recorder in self._recorders:
                recorder.add(self, trace)
        return mark_spikes(spikes)

    def _one_per_step(self, what: str, x: Tensor, current: Tensor, T: int | None) -> Tensor:
        """Shape a factor with a single axis, one for each step, like a current of several axes."""
        if x.ndim != 1 or current.ndim < 2:
            return x
        steps = len(current) if T is None else T
        if len(x) not in (1, steps):
            axes = ", ".join(["1"] * (current.ndim - 1))
            raise ValueError(
                f"{type(self).__name__}: {what} has {len(x)} numbers in one axis, which means one "
                f"for each step, but there are {steps} steps; a {what} for each neuron of the last "
                f"axis is shaped [{axes}, {len(x)}]."
            )
        return x.view(-1, *[1] * (current.ndim - 1))

    @property
    def settled(self) -> bool:
        """Whether all parameters exist; if not, ``settle`` creates them."""
        return True

    def settle(self, shape: Sequence[int]) -> None:
        """Create the parameters that depend on the shape [*N] of one sample.

        A network calls this once for each neuron, when it is built.
        """

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        reset = f"{self.reset!r}, detach_reset={self.detach_reset}"
        return f"v_th={self.v_th:g}, surrogate={self.surrogate}, reset={reset}"


def _with_network_arguments(
    forward: Callable[..., Tensor], taken: set[str]
) -> Callable[..., Tensor]:
    """Let a forward be called with T and norm although it takes only some of them, or none."""

    @wraps(forward)
    def called(
        self: Neuron, current: Tensor, *, T: int | None = None, norm: nn.Module | None = None
    ) -> Tensor:
        given: dict[str, Any] = {}
        if "norm" in taken:
            given["norm"] = norm
        elif norm is not None:
            current = regular(norm(regular(current.flatten(0, 1)))).view(current.shape)
        if "T" in taken:
            given["T"] = T
        elif T is not None and len(current) == 1:
            current = current.expand(T, *current.shape[1:])
        spikes = forward(self, current, **given)
        alike = "T" not in taken and T is not None and isinstance(self.rule, Analogue)
        return spikes[:1] if alike else spikes

    return called
