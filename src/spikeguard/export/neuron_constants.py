"""Constants of a neuron in NIR: one leak for each channel, an input gain and a threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeguard.export.refusals import ExportError
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.dlif import DLIF
from spikeguard.neurons.evolutionary import EvolutionaryLIF
from spikeguard.neurons.lif import IF, LIF, PLIF
from spikeguard.neurons.noisy_lif import NoisyLIF
from spikeguard.neurons.stog import StoG

__all__ = ["Constants", "constants_of"]


@dataclass(frozen=True, eq=False)
class Constants:
    """v[t] = leak u[t-1] + gain I[t], a spike at v >= v_th, then u = 0.

    Attributes:
        leak: Leak factors, float64 [C], in (0, 1]; all 1 for a neuron without leak.
        gain: Factor on the input current.
        v_th: Threshold relative to the potential at rest, as float32 rounds it.
    """

    leak: Tensor
    gain: float
    v_th: float


def constants_of(neuron: Neuron, name: str, channels: int) -> Constants:
    """Read the constants of a neuron.

    Args:
        neuron: The neuron, in evaluation mode.
        name: Its name in the network, for messages.
        channels: Length of the first axis of a sample's current.

    Raises:
        ExportError: If NIR has no node that computes the same.
    """
    if neuron.reset == "soft":
        raise _refused(
            neuron, name, "a soft reset subtracts the threshold; NIR resets to a value", "hard"
        )
    read = _READERS.get(type(neuron))
    if read is None:
        raise ExportError(f"{name}: NIR has no node for neuron {type(neuron).__name__}.")
    leak, gain = read(neuron, name, channels)
    if bool((leak <= 0).any()) or bool((leak > 1).any()):
        low, high = float(leak.min()), float(leak.max())
        raise ExportError(
            f"{name}: leak factors from {low:.4g} to {high:.4g}; a NIR time constant needs them in "
            "(0, 1]."
        )
    if bool((leak == 1).any()) and not bool((leak == 1).all()):
        raise ExportError(
            f"{name}: some channels have no leak and others have one; a NIR node is IF or LIF."
        )
    v_th = float(torch.tensor(neuron.v_th - neuron.v_reset, dtype=torch.float32))
    return Constants(leak, gain, v_th)


def _refused(neuron: Neuron, name: str, why: str, reset: str) -> ExportError:
    kind = type(neuron).__name__
    return ExportError(
        f"{name}: {kind} with {neuron.reset} reset: {why}; train with reset={reset}."
    )


def _same(leak: float | Tensor, channels: int) -> Tensor:
    """Return one leak for all channels, with the rounding of the membrane's float32."""
    rounded = torch.as_tensor(leak).detach().to("cpu", torch.float32)
    return rounded.double().expand(channels)


def _lif(neuron: LIF, name: str, channels: int) -> tuple[Tensor, float]:
    return _same(neuron.decay, channels), neuron.input_scale


def _if(neuron: IF, name: str, channels: int) -> tuple[Tensor, float]:
    return _same(1.0, channels), 1.0


def _plif(neuron: PLIF, name: str, channels: int) -> tuple[Tensor, float]:
    return _same(neuron.decay, channels), 1.0


def _noisy(neuron: NoisyLIF, name: str, channels: int) -> tuple[Tensor, float]:
    if neuron.sigma > 0 and "test" in neuron.noise_in:
        raise ExportError(
            f"{name}: NoisyLIF adds noise (sigma {neuron.sigma:.4g}) to its potentials, NIR has "
            "none; --noise off exports another network, the one without noise."
        )
    return _same(neuron.decay, channels), 1.0


def _stog(neuron: StoG, name: str, channels: int) -> tuple[Tensor, float]:
    if neuron.stochastic:
        raise ExportError(f"{name}: StoG blocks spikes at random, for which NIR has no node.")
    return _same(neuron.decay, channels), 1.0


def _dlif(neuron: DLIF, name: str, channels: int) -> tuple[Tensor, float]:
    gates = neuron.a.detach().to("cpu", torch.float64)
    if bool((gates != gates[0]).any()):
        shown = ", ".join(f"{float(gate):.4g}" for gate in gates)
        raise ExportError(
            f"{name}: DLIF has another {neuron.gate} gate at every step ({shown}); NIR constants "
            "do not depend on time."
        )
    gate = float(gates[0])
    if neuron.gate == "leak":
        return _same(neuron.decay * gate, channels), 1.0
    return _same(neuron.decay, channels), gate


def _evolutionary(neuron: EvolutionaryLIF, name: str, channels: int) -> tuple[Tensor, float]:
    assert neuron.leak is not None
    leak = neuron.leak.detach().to("cpu", torch.float64)
    leak = leak[1:] if len(leak) > 1 else torch.ones_like(leak)  # nothing leaks before step 1
    if bool((leak != leak[0]).any()):
        raise ExportError(
            f"{name}: EvolutionaryLIF has another leak at every step; NIR constants do not depend "
            "on time."
        )
    leak = leak[0] if leak.ndim > 1 else leak[:1]
    of_channel = leak.reshape(len(leak), -1)
    if bool((of_channel != of_channel[:, :1]).any()):
        raise ExportError(
            f"{name}: EvolutionaryLIF has another leak at every position of a channel; the input "
            "gain can only be folded into the weights of a whole channel."
        )
    return of_channel[:, 0].expand(channels), 1.0


_READERS: dict[type[Neuron], Callable[..., tuple[Tensor, float]]] = {
    LIF: _lif,
    IF: _if,
    PLIF: _plif,
    NoisyLIF: _noisy,
    StoG: _stog,
    DLIF: _dlif,
    EvolutionaryLIF: _evolutionary,
}
