"""Perturbation of one layer: neurons by hand, and the recurrence of every neuron."""

import pytest
import torch

from spikeguard.neurons import DLIF, IF, LIF, NEURONS, LayerTrace, Triangular, record
from spikeguard.neurons.perturbation import (
    layer_dynamics,
    ms_mppd,
    perturbation_dynamics,
    reset_change,
    spike_train_distance,
    tasad,
)
from spikeguard.rng import SampleStreams, randomness, stream
from tests.toys.examples import example


def passes(neuron, *currents):
    """Return the trace of each current [T, B, *N], under the same noise."""
    found = []
    for current in currents:
        with (
            torch.no_grad(),
            record(neuron) as trace,
            randomness(neuron, SampleStreams(0, range(current.shape[1]))),
        ):
            neuron(current)
        found.append(next(iter(trace.values())))
    return found


def one(numbers):
    return torch.tensor(numbers).view(-1, 1, 1)


@pytest.mark.parametrize(
    ("reset", "true", "added"),
    [("hard", [-0.6, 0.3, 0.15], [0.0, 0.6, 0.0]), ("soft", [-0.6, 0.2, 0.1], [0.0, 0.5, 0.0])],
)
def test_one_spike_by_hand(reset, true, added):
    """Decay 1/2: v is 0.6, 0.9, 1.05. The perturbed neuron fires at 1.2; it keeps 0 or 0.2."""
    clean, other = passes(LIF(0.5, reset=reset), one([0.6, 0.6, 0.6]), one([1.2, 0.6, 0.6]))
    torch.testing.assert_close(clean.v - other.v, one(true))
    torch.testing.assert_close(reset_change(clean, other), one(added))
    simplified = layer_dynamics(clean.current - other.current, clean)
    torch.testing.assert_close(simplified, one([-0.6, -0.3, -0.15]))


def test_below_the_threshold_the_perturbation_follows_the_leak():
    clean, other = passes(LIF(0.8, v_th=10.0), one([0.5, 0.1, 0.2]), one([0.9, 0.1, 0.2]))
    torch.testing.assert_close(clean.v - other.v, one([-0.4, -0.32, -0.256]))
    assert not reset_change(clean, other).any()


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("name", NEURONS)
def test_drive_and_resets_together_give_the_true_perturbation_of_every_neuron(name, reset):
    neuron = example(NEURONS[name], T=5, reset=reset)
    if isinstance(neuron, DLIF):
        neuron.a.data = torch.tensor([1.0, 0.7, 1.4, 0.5, 1.1])
    draw = torch.rand(2, 5, 3, 7, generator=stream(0, "current")) * 2 - 0.3
    clean, other = passes(neuron, *draw)
    assert 0 < clean.spikes.mean() < 1
    drive = clean.current - other.current
    drive = drive if clean.gate is None else clean.gate * drive
    both = perturbation_dynamics(drive + reset_change(clean, other), clean.decay)
    torch.testing.assert_close(both, clean.v - other.v, rtol=1e-4, atol=1e-5)
    alone = perturbation_dynamics(drive, clean.decay)
    assert not torch.allclose(alone, clean.v - other.v, atol=1e-2)


def test_gated_leaks_and_a_reset_potential_follow_the_same_recursion():
    leaky = DLIF(4, "leak", decay=0.9)
    leaky.a.data = torch.tensor([1.0, 0.5, 1.2, 0.8])
    for neuron in (leaky, LIF(0.7, v_reset=-0.4), IF()):
        draw = torch.rand(2, 4, 3, 7, generator=stream(1, "current")) * 2 - 0.3
        clean, other = passes(neuron, *draw)
        drive = clean.current - other.current + reset_change(clean, other)
        torch.testing.assert_close(
            perturbation_dynamics(drive, clean.decay), clean.v - other.v, rtol=1e-4, atol=1e-5
        )


def test_distances_by_hand():
    """Two samples of one neuron: spikes that move by a step, and one spike more."""
    change = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]).view(2, 2, 1)
    torch.testing.assert_close(tasad(change), torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(spike_train_distance(change), torch.tensor([2.0**0.5, 1.0]))
    torch.testing.assert_close(ms_mppd(change * 3), torch.tensor([18.0, 9.0]))


def test_an_unknown_leak_is_refused():
    x = torch.zeros(2, 1, 1)
    unknown = LayerTrace(x, x, x, None, 1.0, Triangular(), "hard")
    for call in (lambda: layer_dynamics(x, unknown), lambda: reset_change(unknown, unknown)):
        with pytest.raises(ValueError, match="leak factor of the layer is not known"):
            call()
