"""Contract of every neuron; the tests run on each entry of NEURONS.

A neuron is built by its ``example(**options)`` where it has one, and by its defaults otherwise.
"""

import copy
import inspect

import pytest
import torch

from spikeguard.kernels import multistep
from spikeguard.kernels.selection import KERNELS, use_kernel
from spikeguard.neurons import (
    NEURONS,
    Rectangular,
    backward_mode,
    record,
    under_attack,
)
from spikeguard.rng import SampleStreams, randomness, stream
from tests.toys.examples import example

T = 6


def build(name, **options):
    return example(NEURONS[name], T=options.pop("T", T), **options)


def current(*shape, low=-0.3, high=1.5):
    return low + (high - low) * torch.rand(T, *shape, generator=stream(0, "current"))


def fire(neuron, x, seed=0):
    with randomness(neuron, SampleStreams(seed, range(x.shape[1]))):
        return neuron(x)


def test_every_neuron_is_under_contract():
    assert all(type(build(name)) is NEURONS[name] for name in NEURONS)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (2, 3, 4, 4), (0, 4)])
@pytest.mark.parametrize("name", NEURONS)
def test_spikes_are_zero_or_one_and_shaped_like_the_current(name, shape):
    x = current(*shape)
    spikes = fire(build(name), x)
    assert spikes.shape == x.shape and spikes.dtype == x.dtype
    assert ((spikes == 0) | (spikes == 1)).all()
    assert spikes.numel() == 0 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("name", NEURONS)
def test_every_call_starts_at_rest_and_touches_no_global_generator(
    name, untouched_global_generator
):
    neuron, x = build(name), current(3, 4)
    first = fire(neuron, x)
    fire(neuron, x + 1)
    assert torch.equal(fire(neuron, x), first)


@pytest.mark.parametrize("name", NEURONS)
def test_at_the_first_step_v_is_the_input(name):
    """Plus the neuron's noise, if it has any."""
    neuron, x = build(name), current(3, 4)
    with record(neuron) as trace:
        neuron(x)
    seen = trace[""]
    assert torch.equal(seen.v[0], x[0] if seen.noise is None else x[0] + seen.noise[0])
    assert seen.noise is None or neuron.stochastic


@pytest.mark.parametrize("name", NEURONS)
def test_below_rheobase_it_never_fires(name, monkeypatch):
    """v settles at g I / (1 - decay), so g I < (1 - decay) v_th can never reach v_th; more can.

    Decay and gate g are those that the neuron hands to its kernel, and its noise is left out.
    """
    factors = []

    def noiseless(current, decay, gate, noise, *settings, potentials):
        factors.append((decay, torch.ones(()) if gate is None else gate))
        return multistep(current, decay, gate, None, *settings, potentials=potentials)

    monkeypatch.setitem(KERNELS, "noiseless", noiseless)
    neuron = build(name, T=400)

    def spikes(current):
        with use_kernel("noiseless"):
            return neuron(torch.full((400, 1), current)).sum()

    spikes(0.0)
    ((decay, gate),) = factors
    slowest, fastest = ((1 - d) * neuron.v_th for d in (decay.max().item(), decay.min().item()))
    assert spikes((0.99 * slowest - 1e-6) / gate.max().item()) == 0
    assert spikes((1.05 * fastest + 1e-2) / gate.min().item()) > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NEURONS)
def test_input_and_parameters_have_gradients_in_both_modes(name, training):
    neuron, x = build(name).train(training), current(3, 4).requires_grad_()
    fire(neuron, x).sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).any()
    assert all((p.grad != 0).any() for p in neuron.parameters())


@pytest.mark.parametrize("name", NEURONS)
def test_a_sample_does_not_see_its_neighbours(name):
    neuron, x = build(name), current(3, 4)
    together = fire(neuron, x)
    for i in range(3):
        with randomness(neuron, SampleStreams(0, [i])):
            assert torch.equal(neuron(x[:, i : i + 1]), together[:, i : i + 1])


@pytest.mark.parametrize("name", NEURONS)
def test_the_common_options_reach_the_kernel(name, monkeypatch):
    seen = {}

    def spy(current, decay, gate, noise, v_th, reset, detach_reset, surrogate, *, potentials):
        seen.update(
            v_th=v_th,
            reset=reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
            potentials=potentials,
        )
        return multistep(
            current, decay, gate, noise, v_th, reset, detach_reset, surrogate, potentials=potentials
        )

    monkeypatch.setitem(KERNELS, "spy", spy)
    options = {"v_th": 0.7, "reset": "soft", "detach_reset": True, "surrogate": Rectangular(2.0)}
    neuron, x = build(name, **options), current(3)
    with use_kernel("spy"):
        neuron(x)
        assert seen == {**options, "potentials": False}
        with record(neuron):
            neuron(x)
        assert seen["potentials"]
        neuron(x)
        assert not seen["potentials"]


@pytest.mark.parametrize("name", NEURONS)
def test_a_call_leaves_nothing_behind(name):
    """Neither attributes nor tensors accumulate on the module, with or without a recorder."""

    def inventory():
        tensors = [v for v in vars(neuron).values() if isinstance(v, torch.Tensor)]
        return sorted(vars(neuron)), len(tensors), list(neuron._recorders), len(neuron._buffers)

    neuron, x = build(name), current(3)
    before = inventory()
    neuron(x)
    with record(neuron), under_attack(neuron), backward_mode(neuron, 2.0):
        neuron(x)
    assert inventory() == before and neuron.attacked is False


@pytest.mark.parametrize("name", NEURONS)
def test_a_copy_behaves_alike_and_stands_alone(name):
    neuron, x = build(name), current(3, 4)
    twin = copy.deepcopy(neuron)
    assert torch.equal(fire(twin, x), fire(neuron, x))
    twin.v_th = 100.0
    assert fire(twin, x).sum() == 0 < fire(neuron, x).sum()


@pytest.mark.parametrize("name", NEURONS)
def test_settings_are_shown_and_documented(name):
    """``repr`` distinguishes two neurons, and the docstring names every argument."""
    shown = repr(build(name, v_th=0.7, reset="soft", detach_reset=True, surrogate=Rectangular(2.0)))
    for part in ("v_th=0.7", "'soft'", "detach_reset=True", "Rectangular(width=2.0)"):
        assert part in shown
    doc = inspect.getdoc(NEURONS[name])
    for argument in inspect.signature(NEURONS[name]).parameters:
        assert f"{argument}: " in doc, argument


@pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", NEURONS)
def test_a_threshold_that_is_not_positive_is_rejected(name, bad):
    with pytest.raises(ValueError, match=f"{NEURONS[name].__name__}: v_th must be positive, got"):
        build(name, v_th=bad)


@pytest.mark.parametrize("name", NEURONS)
def test_an_unknown_reset_is_rejected(name):
    with pytest.raises(ValueError, match="reset is 'hard' or 'soft', got 'none'"):
        build(name, reset="none")
