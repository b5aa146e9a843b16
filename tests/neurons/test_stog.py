"""StoG: its draws and their gradient in closed form, its prior, and its weight decay."""

import copy
import math

import pytest
import torch
from torch import nn

from spikeguard.attacks import FGSM, Linf
from spikeguard.data import ImageSet, Splits
from spikeguard.defences import AT, GatePrior, Objective
from spikeguard.defences.piece import Pass, Step
from spikeguard.encoders.coding import Poisson
from spikeguard.models import CNN, MLP, WRN16_4
from spikeguard.neurons import LIF, NEURONS, StoG, are_spikes, record
from spikeguard.rng import RandomSource, SampleStreams, randomness, stream
from spikeguard.storage import checkpoints as checkpoint
from spikeguard.training.checkpointing import optimizer_state, restore_optimizer
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import train


class Fixed(RandomSource):
    """Returns the same draw for every element."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def uniform(self, like, *, dim):
        return torch.full(like.shape, self.value)


def gates_of(model):
    return [m.p for m in model.modules() if isinstance(m, StoG)]


def small_cnn(neuron=None, **options):
    neuron = StoG(0.5, p=0.8, v_th=0.3) if neuron is None else neuron
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=neuron, **options)


def batch():
    return torch.rand(6, 1, 8, 8, generator=stream(0, "x")), torch.arange(6) % 3


# ----------------------------------------------------------------------------- the neuron


def test_with_all_gates_open_it_is_a_lif_neuron():
    x = torch.rand(4, 3, 5, generator=stream(0, "current"))
    assert torch.equal(StoG(0.5, p=1.0, shape=(5,))(x), LIF(0.5)(x))


def test_gates_open_with_probability_p_in_all_phases_and_do_not_change_the_reset():
    """n draws of a gate sum to binomial(n, p): within 5 standard errors."""
    n, drive = 400, torch.full((4, 400, 3), 0.6)  # LIF(0.5) fires in steps 3 only: 0.6, 0.9, 1.05
    p = torch.tensor([0.2, 0.5, 0.9])
    neuron = StoG(0.5, shape=(3,))
    neuron.p.data = p
    for training in (True, False):
        with record(neuron) as trace, randomness(neuron, stream(0, "gates", int(training))):
            passed = neuron.train(training)(drive)
        assert torch.equal(trace[""].spikes, LIF(0.5)(drive))
        assert (passed.sum((0,)) <= 1).all()
        rate = passed[2].mean(0)
        assert ((rate - p).abs() <= 5 * (p * (1 - p) / n).sqrt()).all()


def test_a_gate_is_drawn_afresh_for_every_step_sample_and_neuron():
    neuron, drive = StoG(1.0, p=0.5, shape=(8,)), torch.full((6, 5, 8), 1.0)
    with randomness(neuron, SampleStreams(0, range(5))):
        passed = neuron(drive)
    rows = passed.permute(1, 0, 2).flatten(1)
    assert len({tuple(row.tolist()) for row in rows}) == 5
    assert len({tuple(step.flatten().tolist()) for step in passed}) == 6
    with randomness(neuron, SampleStreams(0, [3])):
        assert torch.equal(neuron(drive[:, 3:4]), passed[:, 3:4])


@pytest.mark.parametrize("temperature", [0.3, 0.5])
@pytest.mark.parametrize("draw", [0.03, 0.3, 0.5, 0.9])
def test_the_gradient_of_a_gate_is_that_of_the_concrete_relaxation(draw, temperature):
    """d/dp sigmoid((logit p + logit U) / tau), by a central difference in double precision."""

    def relaxed(p):
        return 1 / (
            1 + math.exp(-(math.log(p / (1 - p)) + math.log(draw / (1 - draw))) / temperature)
        )

    for p in (0.2, 0.5, 0.77, 0.95):
        neuron = StoG(1.0, p=p, shape=(), temperature=temperature)
        neuron.random = Fixed(draw)
        spikes = neuron(torch.full((1, 1, 1), 2.0))
        assert spikes.item() == float(draw >= 1 - p)
        (grad,) = torch.autograd.grad(spikes.sum(), neuron.p)
        expected = (relaxed(p + 1e-6) - relaxed(p - 1e-6)) / 2e-6
        assert grad.item() > 0
        assert grad.item() == pytest.approx(expected, rel=1e-3)


def test_worked_by_hand():
    """p = 0.8, U = 0.5, tau = 1/2: z = 2 log 4, so the slope is 2 / 0.16 * 16 / 17^2."""
    neuron = StoG(1.0, p=0.8, shape=())
    neuron.random = Fixed(0.5)
    spikes = neuron(torch.full((1, 1, 1), 2.0))
    (grad,) = torch.autograd.grad(spikes.sum(), neuron.p)
    assert spikes.item() == 1
    assert grad.item() == pytest.approx(2 / 0.16 * 16 / 17**2, rel=1e-5)


@pytest.mark.parametrize("draw", [0.0, 1e-7, 0.5, 1 - 2**-24])
def test_an_open_gate_always_opens_and_has_no_gradient(draw):
    """The limit at p = 1, where the relaxation itself is 0 / 0."""
    neuron = StoG(1.0, p=1.0, shape=())
    neuron.random = Fixed(draw)
    spikes = neuron(torch.full((1, 1, 1), 2.0))
    (grad,) = torch.autograd.grad(spikes.sum(), neuron.p)
    assert spikes.item() == 1 and grad.item() == 0
    assert not neuron.stochastic and StoG(p=0.99, shape=()).stochastic


def test_descent_opens_the_gates_that_help():
    """With the public code's sign the same steps would close them."""
    neuron = StoG(1.0, p=0.5, shape=(2,))
    optimizer = torch.optim.SGD([neuron.p], lr=0.05)
    wanted = torch.tensor([1.0, 0.0])
    with randomness(neuron, stream(0, "gates")):
        for _ in range(40):
            optimizer.zero_grad()
            passed = neuron(torch.full((1, 16, 2), 2.0))
            (passed - wanted).square().mean((0, 1)).sum().backward()
            optimizer.step()
    helpful, harmful = neuron.p.tolist()
    assert helpful > 0.65 and harmful < 0.35


def test_probabilities_are_clipped_from_both_sides():
    neuron, drive = StoG(1.0, shape=(2,)), torch.full((1, 4000, 2), 2.0)
    neuron.p.data = torch.tensor([-3.0, 1.5])
    with randomness(neuron, stream(0, "gates")):
        passed = neuron(drive)
    assert abs(passed[0, :, 0].mean() - 0.1) < 5 * math.sqrt(0.09 / 4000)
    assert passed[0, :, 1].mean() == 1
    assert (torch.autograd.grad(passed.sum(), neuron.p)[0] == 0).all()


def test_what_passes_is_marked_as_spikes():
    neuron = StoG(1.0, p=0.5, shape=())
    passed = neuron(torch.rand(3, 4, 5, generator=stream(0, "x")) * 2)
    assert are_spikes(passed) and ((passed == 0) | (passed == 1)).all()


# --------------------------------------------------------------------------- its shape


def test_a_network_gives_every_neuron_a_gate_of_its_own():
    model = small_cnn()
    assert [tuple(p.shape) for p in gates_of(model)] == [(2, 8, 8), (4, 4, 4), (8, 2, 2), (4,)]
    wide = WRN16_4(1, 3, T=2, width=1 / 8, image_size=8, readout="rate", neuron=StoG())
    for network in (model, wide):
        with record(network) as trace:
            network(batch()[0])
        assert [seen.v.shape[2:] for seen in trace.values()] == [p.shape for p in gates_of(network)]


def test_the_shapes_are_found_without_a_trace():
    """Random state, statistics, modes and hooks are unchanged."""
    before = torch.get_rng_state()
    model, twin = (small_cnn(encoder=Poisson()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    bn = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert bn.num_batches_tracked == 0 and (bn.running_mean == 0).all()
    assert model.encoder.random._own == {}
    plain = CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=LIF(0.5))
    weights = model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    assert torch.equal(model(batch()[0]), twin(batch()[0]))


def test_a_shape_may_be_shared_and_a_wrong_one_is_rejected():
    per_channel = StoG(shape=(3, 1, 1))
    assert per_channel(torch.rand(2, 4, 3, 5, 5)).shape == (2, 4, 3, 5, 5)
    with pytest.raises(ValueError, match=r"StoG: built for neurons \(3, 1, 1\), got .*\(4, 5, 5\)"):
        per_channel(torch.rand(2, 4, 4, 5, 5))
    with pytest.raises(ValueError, match=r"StoG: has no shape yet.*pass shape=\(5,\)"):
        StoG()(torch.rand(2, 4, 5))


def test_checkpoints_and_copies_carry_the_gates(tmp_path):
    model, twin = small_cnn(), small_cnn()
    for p in gates_of(model):
        p.data.uniform_(0.2, 0.9, generator=stream(0, "p"))
    checkpoint.save(tmp_path / "c", model)
    checkpoint.load_model(tmp_path / "c", twin)
    for other in (twin, copy.deepcopy(model)):
        assert all(map(torch.equal, gates_of(other), gates_of(model)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"p": 0.05}, r"p is a probability in \[0.1, 1\], got 0.05"),
        ({"p": 1.2}, "p is a probability"),
        ({"temperature": 1.0}, r"temperature must be inside \(0, 1\), got 1"),
        ({"decay": 2.0}, "decay is a leak factor"),
    ],
)
def test_the_neurons_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        NEURONS["stog"](**wrong)


# ------------------------------------------------------------------------------- the prior


def step(model, progress):
    seen = Pass(torch.zeros(1), torch.zeros(1, 3), None)
    return Step(model, seen, None, torch.zeros(1), progress, stream(0, "step"))


def test_the_prior_is_half_gamma_times_the_sum_of_squares():
    """MLP with 2 + 3 gates: 0.1 / 2 (2 * 0.5^2 + 3 * 1) = 0.175."""
    model = MLP(4, 3, T=2, hidden=(2, 3), neuron=StoG())
    gates_of(model)[0].data.fill_(0.5)
    prior = GatePrior(gamma=0.1)
    loss = prior.term(step(model, 0.49))
    assert loss.item() == pytest.approx(0.175)
    slopes = torch.autograd.grad(loss, gates_of(model))
    torch.testing.assert_close(slopes, (torch.full((2,), 0.05), torch.full((3,), 0.1)))
    assert prior.term(step(model, 0.5)).item() == 0


@pytest.mark.parametrize("progress", [0.0, 0.49, 0.5, 1.0])
def test_gates_are_learned_in_the_first_part_and_left_unchanged_after_it(progress):
    model, (x, y) = small_cnn().train(), batch()
    objective = AT(eps=0.1) | GatePrior(gamma=0.1)
    with randomness(model, stream(0, "noise")):
        outcome = objective(model, x, y, progress=progress, generator=stream(0, "objective"))
    outcome.total.backward()
    learned = progress < 0.5
    assert all((p.grad is not None) == learned for p in gates_of(model))
    assert all(p.requires_grad for p in model.parameters())
    gates = {id(p) for p in gates_of(model)}
    assert all(p.grad is not None for p in model.parameters() if id(p) not in gates)
    if learned:
        assert all((p.grad != 0.1 * p).any() for p in gates_of(model))  # the loss moves them too


def splits():
    def images(count, name):
        x = torch.rand(count, 1, 8, 8, generator=stream(0, name))
        return ImageSet(x, torch.arange(count) % 3, 3, name, peak=1.0)

    return Splits(images(8, "train"), images(6, "val"), images(6, "test"), (0.5,), (0.5,))


class Killed(Exception):
    """Simulates the end of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_resumed_after_the_freeze_ends_with_the_same_bits(optimizer, tmp_path):
    options = TrainOptions(epochs=4, batch_size=4, lr=0.05, optimizer=optimizer)
    objective = Objective.of(GatePrior(gamma=0.5))

    def run(out, stop=None, resume=False):
        def progress(done, total, text):
            seen[done] = [p.detach().clone() for p in gates_of(model)]
            if done == stop and "val" in text:
                raise Killed

        seen, model = {}, small_cnn()
        train(
            model,
            splits(),
            objective,
            options,
            out=tmp_path / out,
            resume=resume,
            progress=progress,
        )
        return seen, model

    seen, whole = run("whole")
    assert any((a != 0.8).any() for a in seen[4])
    for later in range(5, 9):  # 8 steps: the first four are the first half
        assert all(map(torch.equal, seen[later], seen[4]))
    assert not all(map(torch.equal, seen[3], seen[4]))
    for stop in (2, 6):
        with pytest.raises(Killed):
            run(f"killed-{stop}", stop)
        _, resumed = run(f"killed-{stop}", resume=True)
        torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_a_model_without_gates_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"stog: the model has no .*model.neuron: \{name: stog\}"):
        train(small_cnn(LIF(0.5)), splits(), GatePrior(), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": -1.0}, "gamma is a weight >= 0, got -1"),
        ({"until": 1.5}, r"until is a share of the training in \[0, 1\], got 1.5"),
    ],
)
def test_the_priors_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        GatePrior(**wrong)


def test_attacks_go_through_the_gates():
    model, (x, y) = small_cnn().eval(), batch()
    adversarial = FGSM(Linf(0.1))(model, x, y, generator=stream(0, "attack"))
    assert (adversarial != x).any()
    assert model.stochastic


# --------------------------------------------------------------------------- the optimiser


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_weight_decay_spares_the_gates_and_nothing_else(name):
    """With zero gradients only the decay moves a parameter."""
    model = small_cnn()
    options = TrainOptions(optimizer=name, lr=0.1, weight_decay=0.5)
    optimizer = options.build_optimizer(model)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for key, p in model.named_parameters():
        moved = bool((p != before[key]).any())
        assert moved == (not key.endswith(".p") and bool((before[key] != 0).any())), key
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


def test_a_model_without_such_parameters_keeps_its_one_group():
    """Checkpoints from before there were two groups can be loaded."""
    optimizer = TrainOptions().build_optimizer(small_cnn(LIF(0.5)))
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_state_of_two_groups_finds_its_parameters_again(name):
    model, (x, _) = small_cnn(), batch()
    options = TrainOptions(optimizer=name)
    optimizer = options.build_optimizer(model)
    model(x).square().sum().backward()
    optimizer.step()
    tensors, groups = optimizer_state(optimizer, model)
    shapes = {key: p.shape for key, p in model.named_parameters()}
    slot = {"sgd": "momentum_buffer", "adam": "exp_avg"}[name]
    held = {key.rpartition("/")[0]: t for key, t in tensors.items() if key.endswith(slot)}
    assert {key: t.shape for key, t in held.items()} == shapes
    twin = small_cnn()
    again = options.build_optimizer(twin)
    restore_optimizer(again, twin, tensors, groups)
    for (key, p), own in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(again.state[own][slot], optimizer.state[p][slot]), key
