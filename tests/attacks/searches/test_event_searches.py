"""The searches on events: how a budget is spent, and that each beats the greedy baseline."""

import copy
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.attacks import (
    SDA,
    Backprop,
    Counts,
    Edits,
    EventGreedy,
    Flips,
    MeanField,
    RawEvents,
    SpikeCompatible,
    SpikeFool,
)
from spikeguard.attacks.event_suites import likeliest
from spikeguard.attacks.gradients.mean_field import mean_field
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import frozen
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.events.choices import Choices
from spikeguard.attacks.searches.events.search_batch import portion
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import RandomSource, SampleStreams, stream
from tests.toys.event_networks import EventNet, LinearEvents, event_grids
from tests.toys.moving_events import moving_bars, trained_on_bars

SHAPE = (3, 1, 3, 3)


@cache
def bars():
    """Return a trained network and 40 grids that it classifies correctly."""
    model, (x, y) = trained_on_bars(0), moving_bars(60, 1000)
    right = (model(x).argmax(1) == y).nonzero()[:40, 0]
    return model, x[right], y[right]


@cache
def fooled(build):
    model, x, y = bars()
    found = build(Edits(10))(model, x, y, generator=SampleStreams(0, range(len(x))))
    return int((model(found).argmax(1) != y).sum())


@pytest.mark.parametrize("search", [SDA, RawEvents, SpikeFool, SpikeCompatible])
def test_every_search_fools_more_than_the_greedy_baseline(search):
    assert fooled(search) > fooled(EventGreedy)


def test_raw_events_without_draws_fool_more_than_the_greedy_baseline():
    def without(threat):
        return likeliest(threat, Backprop())

    assert fooled(without) > fooled(EventGreedy)


def test_raw_events_without_draws_beat_the_greedy_baseline_under_noise():
    """Both in the mean field of the noisy twin of the trained network."""
    model, x, y = bars()
    twin = copy.deepcopy(model)
    twin.neurons = nn.ModuleList([NoisyLIF(0.5, 0.3, v_th=0.5) for _ in model.neurons])
    left = {}
    with mean_field(twin.eval()):
        right = (twin(x).argmax(1) == y).nonzero()[:, 0]
    for name, search in {
        "greedy": EventGreedy(Edits(10), gradient=MeanField()),
        "likeliest": likeliest(Edits(10), MeanField()),
    }.items():
        found = search(twin, x[right], y[right], generator=SampleStreams(0, range(len(right))))
        with mean_field(twin):
            left[name] = int((twin(found).argmax(1) == y[right]).sum())
    assert len(right) >= 20 and left["likeliest"] < left["greedy"]


def test_tested_flips_and_searched_distributions_fool_half_as_many_again():
    assert min(fooled(SDA), fooled(RawEvents)) >= 1.5 * fooled(EventGreedy)


@pytest.mark.parametrize(
    ("threat", "steps", "made", "expected"),
    [
        (Flips(20), 20, 0, 1),
        (Flips(20), 8, 0, 3),
        (Edits(20), 8, 18, 2),
        (Flips(5), 20, 5, 0),
        (Counts(7), 3, 1, 3),
        (Flips(0), 4, 0, 0),
    ],
)
def test_a_step_makes_an_equal_part_of_the_changes_that_are_left(threat, steps, made, expected):
    x = torch.zeros(1, 3, 1, 4, 4)
    here = x.clone()
    here.view(-1)[:made] = 1
    assert portion(threat, steps, here, x).tolist() == [expected]


@pytest.mark.parametrize(("budget", "flips"), [(4, 1), (8, 2), (200, 5)])
@pytest.mark.parametrize(
    "build",
    [
        lambda threat: SDA(threat, steps=4, growth=5),
        lambda threat: SpikeFool(threat, steps=4, targets=1),
    ],
    ids=["sda", "spikefool"],
)
def test_the_first_step_flips_the_best_entries_and_all_where_the_budget_binds_no_step(
    build, budget, flips
):
    """On a linear model five entries of equal gain are enough, and each helps as much."""
    w, x = torch.zeros(SHAPE), torch.zeros(1, *SHAPE)
    w.view(-1)[:5] = 1.0
    model, y = LinearEvents(w, 4.5), torch.zeros(1, dtype=torch.int64)
    attack, streams = build(Flips(budget)), SampleStreams(0, [0])
    state = attack.begin(x, y, streams, 0)
    made = attack.step(model, x, y, state)
    assert int(made.state["x_adv"].sum()) == flips
    assert bool(made.fooled) == (flips == 5)


@pytest.mark.parametrize("changed", [3, 20])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_grid_drawn_at_the_start_has_the_stated_number_of_changes_in_the_mean(changed, channels):
    """A position's chance of another choice is C / (exp(b) + C); the sum of them is ``changed``."""
    x = event_grids(1, (5, channels, 8, 8), seed=1, share=0.1)
    choices = Choices.around(x, 1)
    start = choices.start(changed)
    clean = torch.cat([1 - x.sum(2, keepdim=True), x], 2).transpose(1, 2)
    other = (start.softmax(1) * (1 - clean)).sum(1, keepdim=True).transpose(1, 2)
    assert float(other[choices.free].sum()) == pytest.approx(changed, rel=1e-5)


def test_the_likeliest_changes_are_those_of_highest_probability():
    """One position of three: no event, OFF or ON; logits of a known order."""
    x = torch.zeros(1, 1, 2, 1, 3)
    x[0, 0, 0, 0, 1] = 1  # the second position has an OFF event
    logits = torch.tensor([[2.0, 3.0, 0.5], [1.0, 4.0, 0.0], [0.0, 1.0, 1.5]])  # none, OFF, ON
    choices = Choices.around(x, 2)
    grid, chance = choices.likeliest(logits.view(1, 3, 1, 1, 3))
    share = logits.softmax(0)
    assert grid.view(2, 3).tolist() == [[1, 0, 0], [0, 0, 1]]  # OFF, none, ON
    expected = [[share[1, 0], share[0, 1], 0], [0, 0, share[2, 2]]]
    assert torch.allclose(chance.view(2, 3), torch.tensor(expected))


@pytest.mark.parametrize("samples", [1, 3])
def test_the_attack_on_raw_events_finds_the_only_flip_that_fools(samples):
    """One entry decides the class; its logit rises fastest, whatever the other grids draw."""
    w, x = 0.01 * torch.randn(SHAPE, generator=stream(0, "w")), event_grids(1, SHAPE, seed=4)
    w[1, 0, 1, 1] = 5.0 * (1 - 2 * x[0, 1, 0, 1, 1])
    model = LinearEvents(w, float((w * x[0]).sum() + 4.0))
    attack = RawEvents(Flips(1), samples=samples, reach=3)
    found = attack(model, x, torch.zeros(1, dtype=torch.int64), generator=stream(0, "attack"))
    assert (found != x).nonzero().tolist() == [[0, 1, 0, 1, 1]]


@pytest.mark.parametrize("steps", [1, 40])
def test_soft_success_against_noise_counts_no_error_of_single_draws(steps):
    """The network ignores its input; a twentieth of its answers is wrong."""

    class Coin(LinearEvents):
        stochastic = True

        def __init__(self):
            super().__init__(torch.zeros(SHAPE), 1.0)
            self.random = RandomSource()

        def forward(self, x):
            logits = super().forward(x)
            lost = self.random.uniform(logits[:, 0], dim=0) < 0.05
            return torch.where(lost[:, None], logits.flip(1), logits)

    x, y = event_grids(60, SHAPE, seed=2), torch.zeros(60, dtype=torch.int64)
    attack, streams = RawEvents(Flips(2), steps=steps, samples=1), SampleStreams(0, range(60))
    _, record = attack.with_record(Coin(), x, y, generator=streams)
    assert record["soft"].sum() <= 1  # 5 of 10 draws would have to be wrong


def test_in_the_mean_field_candidates_are_tested_without_noise():
    """Other noise then changes nothing; by single draws it decides between candidates."""
    model = EventNet(neuron=NoisyLIF(0.5, 0.5, v_th=0.3)).eval()
    x, y = event_grids(6, (3, 2, 4, 4)), torch.zeros(6, dtype=torch.int64)

    def found(seed, gradient):
        attack = SDA(Flips(4), steps=4, gradient=gradient)
        return attack(model, x, y, generator=stream(seed, "attack"))

    assert torch.equal(found(1, MeanField()), found(2, MeanField()))
    assert not torch.equal(found(1, Backprop()), found(2, Backprop()))


def test_against_noise_the_grid_of_highest_loss_is_returned():
    """In the mean field the loss of the result is the highest of all grids that were tried."""
    model = EventNet(neuron=NoisyLIF(0.5, 0.5, v_th=0.3)).eval()
    x, y, seen = event_grids(6, (3, 2, 4, 4)), torch.zeros(6, dtype=torch.int64), []

    def watching(*args):
        seen.append(MeanField()(*args))
        return seen[-1]

    attack = RawEvents(Flips(4), steps=8, gradient=watching)
    found = attack(model, x, y, generator=stream(1, "attack"))
    with frozen(model), mean_field(model), torch.no_grad():
        height = cross_entropy(model(found), y)
    best = torch.stack([losses for losses, _ in seen]).amax(0)
    torch.testing.assert_close(height, best)


class Pooled(EventNet):
    """It pools first, so the gradients of the four entries of a window are equal."""

    def forward(self, x):
        means = functional.avg_pool2d(x.flatten(0, 1), 2)
        return super().forward(4 * means.unflatten(0, x.shape[:2]))


def test_equal_gradients_rank_alike_in_any_batch_of_sda():
    model = Pooled(seed=1, size=4).eval()
    x = event_grids(24, (4, 2, 8, 8), seed=3, share=0.2)
    y = model(x).argmax(1)

    def judge(points, rows):
        return (model(points).argmax(1) == y[rows]).double()

    search = SDA(Flips(10), steps=6, growth=3)
    found = [
        active_set(
            search,
            model,
            x,
            y,
            streams=SampleStreams(0, torch.arange(24)),
            batch_size=size,
            judge=judge,
        )[0]
        for size in (1, 5, 24)
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


class Rates(EventNet):
    """Its logits are the rates of spiking output neurons."""

    def __init__(self, **options):
        super().__init__(**options)
        self.out = LIF(0.5, v_th=0.3)

    def forward(self, x):
        frames = x.transpose(0, 1)
        drive = self.features(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.out(self.classifier(self.neuron(drive).flatten(2))).mean(0)


class OwnMargin(MembraneReadout):
    """The gradient of the potentials, with the losses of the model itself."""

    def __call__(self, model, x, y, loss):
        _, grad = super().__call__(model, x, y, loss)
        return loss(model(x), y), grad


def test_sda_compares_candidates_with_the_margin_of_the_model_itself():
    """Also where the gradient is of another margin, as that of the output potentials."""
    model, x = Rates(seed=1).eval(), event_grids(20, (4, 2, 4, 4), seed=0)
    y = model(x).argmax(1)
    ends = [
        SDA(Flips(8), steps=4, growth=10, gradient=gradient)(model, x, y)
        for gradient in (MembraneReadout(), OwnMargin())
    ]
    assert torch.equal(*ends)


class Stairs(nn.Module):
    """The second logit rises with the number of events, but not between two and four and a half."""

    def forward(self, x):
        events = x.flatten(1)[:, :5].sum(1)
        height = torch.where((events < 2) | (events > 4.5), events, torch.full_like(events, 2.0))
        return torch.stack([torch.full_like(events, 2.5), height], 1)


def test_spikefool_keeps_the_normal_of_the_last_step_that_had_one():
    x, y = torch.zeros(1, 1, 1, 3, 3), torch.tensor([0])
    found = SpikeFool(Flips(5), steps=1, targets=1)(Stairs(), x, y)
    assert Stairs()(found).argmax(1).item() == 1


class Chain(nn.Module):
    """An entry has a gradient only where the entry before it is set."""

    def forward(self, x):
        first, second, third = x.flatten(1)[:, :3].unbind(1)
        height = first + first * second + second * third
        return torch.stack([torch.full_like(height, 2.5), height], 1)


@pytest.mark.parametrize("per_step", [1, 2, 3])
def test_greedy_ends_when_the_budget_is_spent(per_step):
    x, y = torch.zeros(1, 1, 1, 2, 2), torch.tensor([0])
    found = EventGreedy(Flips(3), per_step=per_step)(Chain(), x, y)
    assert found.sum() == 3 and Chain()(found).argmax(1).item() == 1
