"""What every neuron promises; a new one needs a line in BUILD and inherits the rest."""

import copy
import inspect

import pytest
import torch

from spikeguard.kernels import multistep
from spikeguard.kernels.selection import KERNELS, use_kernel
from spikeguard.neurons import (
    DLIF,
    IF,
    LIF,
    NEURONS,
    PLIF,
    EvolutionaryLIF,
    NoisyLIF,
    Rectangular,
    StoG,
    backward_mode,
    record,
    under_attack,
)
from spikeguard.rng import SampleStreams, randomness, stream

T = 6
BUILD = {  # a quiet neuron of every kind
    "if": IF,
    "lif": LIF,
    "plif": PLIF,
    "noisy_lif": lambda **options: NoisyLIF(sigma=0.0, **options),
    "dlif": lambda **options: DLIF(T, **options),
    "stog": lambda **options: StoG(shape=(), **options),
    "evolutionary_lif": lambda **options: EvolutionaryLIF(T, shape=(), **options),
}
DECAY = {
    "if": 1.0,
    "lif": 0.5,
    "plif": 0.5,
    "noisy_lif": 0.5,
    "dlif": 0.99,
    "stog": 1.0,
    "evolutionary_lif": 1.0,
}
FOR_STEPS = {"dlif": DLIF, "evolutionary_lif": lambda steps: EvolutionaryLIF(steps, shape=())}
LOUD = {**BUILD, "noisy_lif": NoisyLIF, "stog": lambda: StoG(p=0.7, shape=())}


def current(*shape, low=-0.3, high=1.5):
    return low + (high - low) * torch.rand(T, *shape, generator=stream(0, "current"))


def fire(neuron, x, seed=0):
    with randomness(neuron, SampleStreams(seed, range(x.shape[1]))):
        return neuron(x)


def test_every_neuron_is_under_contract():
    assert set(BUILD) == set(DECAY) == set(NEURONS)
    assert all(type(BUILD[name]()) is NEURONS[name] for name in NEURONS)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (2, 3, 4, 4), (0, 4)])
@pytest.mark.parametrize("name", NEURONS)
def test_spikes_are_zero_or_one_and_shaped_like_the_current(name, shape):
    x = current(*shape)
    spikes = fire(LOUD[name](), x)
    assert spikes.shape == x.shape and spikes.dtype == x.dtype
    assert ((spikes == 0) | (spikes == 1)).all()
    assert spikes.numel() == 0 or 0 < spikes.mean() < 1


@pytest.mark.parametrize("name", NEURONS)
def test_every_call_starts_at_rest_and_touches_no_global_generator(
    name, untouched_global_generator
):
    neuron, x = LOUD[name](), current(3, 4)
    first = fire(neuron, x)
    fire(neuron, x + 1)
    assert torch.equal(fire(neuron, x), first)


@pytest.mark.parametrize("name", NEURONS)
def test_at_the_first_step_v_is_the_input(name):
    neuron, x = BUILD[name](), current(3, 4)
    with record(neuron) as trace:
        neuron(x)
    assert torch.equal(trace[""].v[0], x[0])


@pytest.mark.parametrize("name", NEURONS)
def test_below_rheobase_it_never_fires(name):
    """v settles at I / (1 - decay), so I < (1 - decay) v_th can never reach v_th; more can."""
    steps, decay = 400, DECAY[name]
    neuron = FOR_STEPS[name](steps) if name in FOR_STEPS else BUILD[name]()
    rheobase = (1 - decay) * neuron.v_th
    assert neuron(torch.full((steps, 1), 0.99 * rheobase - 1e-6)).sum() == 0
    assert neuron(torch.full((steps, 1), 1.05 * rheobase + 1e-2)).sum() > 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NEURONS)
def test_input_and_parameters_have_gradients_in_both_modes(name, training):
    neuron, x = LOUD[name]().train(training), current(3, 4).requires_grad_()
    fire(neuron, x).sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).any()
    assert all((p.grad != 0).any() for p in neuron.parameters())


@pytest.mark.parametrize("name", NEURONS)
def test_a_sample_does_not_see_its_neighbours(name):
    neuron, x = LOUD[name](), current(3, 4)
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
    neuron, x = BUILD[name](**options), current(3)
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

    neuron, x = LOUD[name](), current(3)
    before = inventory()
    neuron(x)
    with record(neuron), under_attack(neuron), backward_mode(neuron, 2.0):
        neuron(x)
    assert inventory() == before and neuron.attacked is False


@pytest.mark.parametrize("name", NEURONS)
def test_a_copy_behaves_alike_and_stands_alone(name):
    neuron, x = LOUD[name](), current(3, 4)
    twin = copy.deepcopy(neuron)
    assert torch.equal(fire(twin, x), fire(neuron, x))
    twin.v_th = 100.0
    assert fire(twin, x).sum() == 0 < fire(neuron, x).sum()


@pytest.mark.parametrize("name", NEURONS)
def test_settings_are_shown_and_documented(name):
    """``repr`` tells two neurons apart, and the docstring names every argument."""
    shown = repr(BUILD[name](v_th=0.7, reset="soft", detach_reset=True, surrogate=Rectangular(2.0)))
    for part in ("v_th=0.7", "'soft'", "detach_reset=True", "Rectangular(width=2.0)"):
        assert part in shown
    doc = inspect.getdoc(NEURONS[name])
    for argument in inspect.signature(NEURONS[name]).parameters:
        assert f"{argument}: " in doc, argument


@pytest.mark.parametrize("bad", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("name", NEURONS)
def test_a_threshold_that_is_not_positive_is_refused(name, bad):
    with pytest.raises(ValueError, match=f"{NEURONS[name].__name__}: v_th must be positive, got"):
        BUILD[name](v_th=bad)


@pytest.mark.parametrize("name", NEURONS)
def test_an_unknown_reset_is_refused(name):
    with pytest.raises(ValueError, match="reset is 'hard' or 'soft', got 'none'"):
        BUILD[name](reset="none")
