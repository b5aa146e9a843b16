"""The active set: when samples leave and enter the batch, and that they are independent."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from spikeguard.attacks import (
    FGSM,
    L2,
    PGD,
    RFGSM,
    EoT,
    Linf,
    SwapSurrogate,
    UniformNoise,
    cost,
    cross_entropy,
    margin,
)
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.stepwise import Step, Watch, can_step
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF, Triangular
from spikeguard.rng import SampleStreams, stream
from tests.toys.stepping_attacks import STEP, Sign, spiking, walk

#         right, and fooled at the first, second, fourth step of 0.02 down; the last one never
PIXELS = [0.51, 0.53, 0.57, 0.9]
ONES = torch.ones(4, dtype=torch.int64)


def grey(pixels=PIXELS):
    return torch.tensor(pixels).view(-1, 1).repeat(1, 3)


def judged_by(model, y):
    """The judge of evaluate(): the model's own prediction; records the judged rows."""

    def judge(points, rows):
        judge.rows.append(rows.tolist())
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    judge.rows = []
    return judge


def search(attack, model, x, y, *, batch_size=2, judge=None, ids=None, seed=3):
    streams = SampleStreams(seed, torch.arange(len(x)) if ids is None else ids)
    judge = judged_by(model, y) if judge is None else judge
    return active_set(attack, model, x, y, streams=streams, batch_size=batch_size, judge=judge)


@pytest.fixture
def images():
    """Inputs that the spiking model classifies correctly."""
    x = torch.rand(30, 16, generator=stream(0, "x"))
    with torch.no_grad():
        return x, spiking()(x).argmax(1)


# --- counted by hand


def test_batches_stay_full_and_no_pass_is_wasted():
    """A, B, C, D need 2, 3, 5 and 10 evaluations. With a batch of two:

    AB, AB (A leaves, C enters), BC (B leaves, two are waiting and judged, D enters), CD x 4 (C
    leaves), D x 6 (its last step), and C and D are judged. An evaluation is the gradient's forward
    pass; there are no other passes.
    """
    model, y = Sign(), ONES
    judge = judged_by(model, y)
    found, right = search(walk(), model, grey(), y, judge=judge)
    assert model.sizes == [2, 2, 2, 2, *[2] * 4, *[1] * 6, 2]
    assert judge.rows == [[0, 1], [2, 3]]
    assert right.tolist() == [0, 0, 0, 1]
    expected = grey([0.49, 0.49, 0.49, 0.7])  # the misclassified points, and the last iterate
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_plain_call_passes_every_sample_through_every_step():
    model = Sign()
    walk()(model, grey(), ONES)
    assert model.sizes == [4] * 10


def test_a_sample_fooled_in_one_restart_sees_no_other():
    """Steps are negligible: a start in the wrong half fools the model, one in the right half not.

    A sample fooled at the first evaluation of round r costs 3 r + 1 evaluations, a sample never
    fooled 3 in every round. Each round that a sample enters is judged once.
    """
    attack = PGD(Linf(0.5), steps=3, step_size=1e-9, restarts=4)
    model, y = Sign(), torch.ones(40, dtype=torch.int64)
    x = torch.full((40, 3), 0.5)
    own = SampleStreams(3, torch.arange(40)).fork("search")
    below = torch.stack([attack.threat.sample(x, own).mean(1) <= 0.5 for _ in range(4)])
    rounds = torch.where(below.any(0), below.int().argmax(0), 4)
    assert set(rounds.tolist()) == {0, 1, 2, 3, 4}
    judge = judged_by(model, y)
    _, right = search(attack, model, x, y, judge=judge, batch_size=7)
    assert torch.equal(right.bool(), rounds == 4)
    entered = (rounds + 1).clamp(max=4)
    passes = int((3 * rounds + (rounds < 4)).sum())
    assert sum(model.sizes) == passes + int(entered.sum())
    times = torch.bincount(torch.tensor([row for rows in judge.rows for row in rows]))
    assert torch.equal(times, entered)


def test_restarts_begin_where_the_plain_call_begins_them(images):
    x, y = images
    attack = PGD(Linf(0.1), steps=1, step_size=1e-12, restarts=3)
    streams = SampleStreams(3, torch.arange(len(x)))
    own = streams.fork("search")
    starts = [attack.threat.sample(x, own) for _ in range(3)]
    for round_, start in enumerate(starts):
        rows = torch.tensor([5, 2])
        state = attack.begin(x[rows], y[rows], streams.fork("search").take(rows), round_)
        assert torch.equal(state["x_adv"], start[rows])


# --- what a result must not depend on


ATTACKS = {
    "pgd": PGD(Linf(0.1), steps=5),
    "l2": PGD(L2(0.2), steps=4, loss=margin),
    "restarts": PGD(Linf(0.05), steps=3, restarts=3),
    "width": PGD(Linf(0.1), steps=4, gradient=SwapSurrogate(Triangular(2.0))),
    "eot": PGD(Linf(0.1), steps=3, gradient=EoT(2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_a_sample_depends_neither_on_the_batch_size_nor_on_its_mates_nor_on_the_order(name, images):
    (x, y), model = images, spiking()
    found, right = search(ATTACKS[name], model, x, y, batch_size=len(x))
    assert 0 < right.sum() < len(x)
    for batch_size in (1, 3, 7):
        again, same = search(ATTACKS[name], model, x, y, batch_size=batch_size)
        assert torch.equal(again, found)
        assert torch.equal(same, right)
    order = torch.randperm(len(x), generator=stream(0, "order"))
    again, same = search(ATTACKS[name], model, x[order], y[order], batch_size=3, ids=order)
    assert torch.equal(again, found[order])
    assert torch.equal(same, right[order])


# --- against the plain call


@pytest.mark.parametrize("name", ATTACKS)
def test_every_sample_fooled_by_the_plain_call_is_fooled(name, images):
    (x, y), model = images, spiking()
    attack = ATTACKS[name]
    plain = attack(model, x, y, generator=SampleStreams(3, torch.arange(len(x))))
    with torch.no_grad():
        fooled = model(plain).argmax(1) != y
    found, right = search(attack, model, x, y, batch_size=4)
    attack.threat.check(found, x)
    assert fooled.any()
    assert not right[fooled].any()
    with torch.no_grad():
        assert torch.equal(model(found).argmax(1) == y, right.bool())


def test_a_sample_never_fooled_ends_at_the_last_iterate(images):
    (x, y), model = images, spiking()
    attack = PGD(Linf(0.02), steps=4)
    plain = attack(model, x, y, generator=SampleStreams(3, torch.arange(len(x))))
    found, right = search(attack, model, x, y, batch_size=len(x))
    assert right.any()
    assert torch.equal(found[right.bool()], plain[right.bool()])


# --- other searches


@dataclass(frozen=True)
class Guess:
    """Random search without gradients: each sample has its own counter, radius and random numbers.

    A guess that raises the loss is kept; one that does not halves the radius. A sample ends when
    its radius is small, independently of the others.
    """

    threat: Linf

    rounds = 2

    def begin(self, x, y, streams, round_):
        for _ in range(round_ + 1):
            name = streams.bits((len(x),), dim=0)
        height = torch.full((len(x),), -torch.inf)
        return {
            "name": name,
            "best": x,
            "height": height,
            "radius": torch.full_like(height, self.threat.eps),
            "count": torch.zeros_like(y),
        }

    def step(self, model, x, y, state):
        draw = SampleStreams(0, state["name"] + state["count"]).uniform(x.shape)
        tried = self.threat.project(state["best"] + (2 * draw - 1) * state["radius"][:, None], x)
        watch = Watch(margin)
        height = watch(model(tried), y)
        better = height > state["height"]
        best = torch.where(better[:, None], tried, state["best"])
        radius = torch.where(better, state["radius"], state["radius"] / 2)
        moved = {
            "name": state["name"],
            "best": best,
            "height": torch.maximum(height, state["height"]),
            "radius": radius,
            "count": state["count"] + 1,
        }
        return Step(moved, tried, watch.outcome(y), best, radius < 0.1 * self.threat.eps)

    def __call__(self, model, x, y, *, generator=None):
        raise AssertionError("it is run step by step here")


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_samples_may_end_at_different_steps(batch_size, images):
    (x, y), model, attack = images, spiking(), Guess(Linf(0.2))
    assert can_step(attack, model)
    counts = set()

    class Noting(Guess):
        def step(self, model, x, y, state):
            made = super().step(model, x, y, state)
            counts.update(made.state["count"][made.over].tolist())
            return made

    found, right = search(Noting(Linf(0.2)), model, x, y, batch_size=len(x))
    assert len(counts) > 2
    assert 0 < right.sum() < len(x)
    attack.threat.check(found, x)
    again, same = search(attack, model, x, y, batch_size=batch_size)
    assert torch.equal(again, found)
    assert torch.equal(same, right)


def test_an_interrupted_search_leaves_the_model_as_it_was(images):
    (x, y), model = images, spiking().train()

    def interrupt(module, inputs):
        assert not model.training
        raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(ATTACKS["pgd"], model, x, y)
    handle.remove()
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())


# --- the judge's verdict is final


def stricter(limit, calls):
    """A judge that counts a grey input as fooled only below a limit."""

    def judge(points, rows):
        calls.extend(rows.tolist())
        return (points.mean(1) > limit).double()

    return judge


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_a_sample_that_the_judge_finds_correct_continues_its_search(batch_size):
    """Fooled at 0.49 according to the search, at 0.45 and below according to the judge.

    The sample at 0.51 is submitted at 0.49, 0.47 and 0.45. The last sample is never fooled in the
    search and is judged at its end.
    """
    calls = []
    judge = stricter(0.455, calls)
    found, right = search(walk(), Sign(), grey(), ONES, judge=judge, batch_size=batch_size)
    assert right.tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(found[:, 0], torch.tensor([0.45, 0.45, 0.45, 0.7]))
    assert torch.bincount(torch.tensor(calls)).tolist() == [3, 3, 3, 1]


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_judge_that_rejects_every_point_still_terminates(rounds):
    """From 0.51, steps 1 to 9 and the end are judged; from 0.53 and 0.57, 1 and 3 fewer."""

    @dataclass(frozen=True)
    class Still(Linf):
        def sample(self, x, streams):
            return x

    attack = PGD(Still(0.2), steps=10, step_size=STEP, restarts=rounds)
    calls = []
    found, right = search(attack, Sign(), grey(), ONES, judge=stricter(-1, calls))
    assert right.tolist() == [1, 1, 1, 1]
    assert torch.bincount(torch.tensor(calls)).tolist() == [r * rounds for r in (10, 9, 7, 1)]
    expected = torch.tensor([0.31, 0.33, 0.37, 0.7])
    torch.testing.assert_close(found[:, 0], expected)


def test_the_judge_does_not_sit_inside_an_attack(images):
    (x, y), model = images, spiking()
    neuron = next(module for module in model.modules() if isinstance(module, LIF))
    seen = []

    def judge(points, rows):
        seen.append((neuron.attacked, neuron.training, neuron.phase))
        return torch.zeros(len(rows))

    model.train()
    search(ATTACKS["pgd"], model, x, y, judge=judge)
    assert seen
    assert {attacked for attacked, _, _ in seen} == {False}
    assert model.training


# --- which attacks can be run step by step


def test_only_deterministic_searches_without_overrides_run_step_by_step():
    @dataclass(frozen=True)
    class Changed(PGD):
        def __call__(self, model, x, y, *, generator=None):
            return x

    def network(**options):
        neuron = NoisyLIF(0.5, 0.3, v_th=0.3, **options)
        return MLP(4, 2, T=2, hidden=(3,), neuron=neuron).eval()

    assert can_step(walk(), Sign())
    assert can_step(walk(), network(noise_in=("train",)))
    assert not can_step(walk(), network())
    assert not can_step(walk(), network(noise_in=("attack",))), "its gradients see noise"
    assert not can_step(Changed(Linf(0.2)), Sign())
    for attack in (FGSM(Linf(0.2)), RFGSM(Linf(0.2)), UniformNoise(Linf(0.2))):
        assert not can_step(attack, Sign())


def test_a_loss_that_is_watched_is_the_same_loss():
    logits, y = torch.tensor([[0.0, 1.0], [2.0, 1.0], [1.0, 1.0]]), torch.tensor([1, 1, 1])
    watch = Watch(cross_entropy)
    assert not watch.outcome(y).any()
    assert torch.equal(watch(logits, y), cross_entropy(logits, y))
    assert watch.outcome(y).tolist() == [False, True, True]  # a tie goes to the first class


# --- what attacks cost


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        (FGSM(Linf(0.1)), 1),
        (FGSM(Linf(0.1), gradient=EoT(4)), 4),
        (RFGSM(Linf(0.1)), 1),
        (RFGSM(Linf(0.1), variant="torchattacks-3.4"), 10),
        (PGD(Linf(0.1), steps=7), 7),
        (PGD(Linf(0.1), steps=7, gradient=SwapSurrogate(2.0)), 7),
        (PGD(Linf(0.1), steps=7, gradient=EoT(2, EoT(3))), 42),
        (PGD(Linf(0.1), steps=7, restarts=3), 22),
        (PGD(Linf(0.1), steps=7, restarts=3, gradient=EoT(2)), 44),
        (UniformNoise(Linf(0.1), draws=6), 2),
        (lambda model, x, y: x, float("inf")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_cost_is_what_a_model_sees(attack, expected):
    """Forward passes with a gradient count 1, those without 1/3: counted by a model of one row."""
    assert cost(attack) == pytest.approx(expected)
    if expected == float("inf"):
        return

    class Counting(nn.Module):
        spent = 0.0

        def __init__(self):
            super().__init__()
            self.inner = MLP(3, 2, T=1, hidden=(2,), neuron=LIF(0.5))

        def forward(self, x):
            self.spent += 1 if torch.is_grad_enabled() else 1 / 3
            return self.inner(x)

    model = Counting()
    attack(model, torch.full((1, 3), 0.5), torch.tensor([0]))
    assert model.spent == pytest.approx(expected)
