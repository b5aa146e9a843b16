"""APGD: the schedule of its step sizes, optima of linear models, targets, restarts and noise."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.attacks import (
    APGD,
    L1,
    L2,
    PGD,
    Backprop,
    EoT,
    Linf,
    Stepwise,
    SwapSurrogate,
    cost,
    cross_entropy,
    dlr,
    margin,
)
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.apgd import _RecordedLogits
from spikeguard.attacks.searches.apgd_l1 import Sparse, sparse_sign
from spikeguard.attacks.searches.apgd_linf_l2 import checkpoints
from spikeguard.attacks.searches.stepwise import can_step
from spikeguard.data.datasets import load
from spikeguard.models import CNN
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import RandomSource, SampleStreams, stream
from tests.toys.stepping_attacks import spiking

MARKS = [22, 41, 57, 70, 80, 87, 93, 99]
THREATS = [Linf(0.1), L2(0.4), L1(1.0)]

every_threat = pytest.mark.parametrize("threat", THREATS, ids=["linf", "l2", "l1"])


class Linear(nn.Module):
    """Two logits 0 and <w, x>; class 0 is attacked along +w."""

    def __init__(self, size):
        super().__init__()
        w = torch.randn(size, generator=stream(0, "w"))
        self.w = torch.where(w.abs() < 0.1, 0.1, w)

    def forward(self, x):
        return torch.stack([torch.zeros(len(x)), x @ self.w], 1)


@dataclass(frozen=True)
class Script:
    """A gradient with prescribed losses; evaluation k of the search returns row k."""

    losses: list
    looks: list = field(default_factory=list, compare=False)

    def __call__(self, model, x, y, loss):
        self.looks.append(x)
        rows = torch.tensor(self.losses[len(self.looks) - 1], dtype=x.dtype)
        return rows.expand(len(x)).clone(), torch.ones_like(x) * (-1) ** len(self.looks)


def etas(sequence, eps=0.5):
    """Return the step size, in units of 2 eps, that every step was taken with."""
    attack = APGD(Linf(eps), steps=len(sequence) - 1, gradient=Script(sequence))
    x, y = torch.full((1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    state, found = attack.begin(x, y, SampleStreams(0, [0]), 0), []
    for k in range(len(sequence)):
        made = attack.step(None, x, y, state)
        state = made.state
        found.append(float(state["eta"]) / (2 * eps))
        assert bool(made.over) == (k == len(sequence) - 1)
    return found


def halvings(sequence):
    found = etas(sequence)
    assert found[0] == 1
    changes = [k for k in range(1, len(found)) if found[k] != found[k - 1]]
    assert all(found[k] == found[k - 1] / 2 for k in changes)
    return changes


# --- the schedule


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == MARKS
    assert checkpoints(50) == [11, 21, 29, 35, 40, 44, 47]  # 49.5 is rounded up to the end
    assert checkpoints(10) == [3, 5, 6, 7, 8, 9]
    assert checkpoints(1) == []


def test_a_loss_that_rises_keeps_its_step_size():
    assert halvings(list(range(101))) == []


def test_a_constant_loss_halves_it_at_every_checkpoint():
    assert halvings([1.0] * 101) == MARKS
    assert halvings(list(range(101, 0, -1))) == MARKS


@pytest.mark.parametrize(("falls", "expected"), [(4, []), (5, [57])])
def test_three_quarters_of_the_steps_must_raise_the_loss(falls, expected):
    """Between 41 and 57, 16 steps: 12 that rise are enough, 11 are not; the best rises anyway."""
    sequence = [float(k) for k in range(101)]
    for k in range(43, 43 + 2 * falls, 2):
        sequence[k] -= 1.5  # below the one before; the next one is above it again
    assert halvings(sequence)[: len(expected) + 1] == expected


def test_a_constant_best_loss_halves_it_unless_it_was_just_halved():
    """Every step rises but the first of each interval, which falls below all: no new best.

    So the second condition alone decides. It applies at 22, 57, 80 and 93, since the step size was
    kept at the previous checkpoint; at 41, 70, 87 and 99 it was just halved.
    """
    sequence = [1000.0]
    for k in range(1, 101):
        fresh = k - 1 in [0, *MARKS]
        sequence.append(-1000.0 + k if fresh else sequence[-1] + 1)
    assert halvings(sequence) == [22, 57, 80, 93]


def test_after_a_halving_the_search_continues_from_its_best_point():
    """Best at evaluation 7. The step after evaluation 22 starts there, with that gradient."""
    sequence = [0.0] * 101
    sequence[7] = 5.0
    script = Script(sequence)
    attack = APGD(Linf(0.3), steps=100, gradient=script)
    x, y = torch.full((1, 3), 0.5), torch.zeros(1, dtype=torch.int64)
    state = attack.begin(x, y, SampleStreams(0, [0]), 0)
    for k in range(23):
        earlier = state["before"]
        state = attack.step(None, x, y, state).state
        if k == 21:
            before = state["before"]
    best, project = script.looks[7], attack.threat.project
    assert torch.equal(earlier, before)
    assert torch.equal(state["before"], best)
    straight = project(
        best + 0.3 * torch.ones(1, 3), x
    )  # eta 0.6 / 2; evaluation 7 is the eighth: +1
    expected = project(best + 0.75 * (straight - best) + 0.25 * (best - before), x)
    torch.testing.assert_close(state["x_adv"], expected)


def test_each_sample_has_its_own_step_size():
    """One sample's loss rises, the other's is constant: only the second is halved."""
    sequence = [[float(k), 1.0] for k in range(101)]
    attack = APGD(Linf(0.5), gradient=Script(sequence))
    x, y = torch.full((2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    state = attack.begin(x, y, SampleStreams(0, [0, 1]), 0)
    for _ in range(101):
        state = attack.step(None, x, y, state).state
    assert state["eta"].tolist() == [1.0, 1.0 / 2**8]


def test_without_success_the_point_of_highest_loss_is_handed_in():
    sequence = [0.0] * 21
    sequence[13] = 3.0
    script = Script(sequence)
    model = nn.Linear(3, 2)
    x, y = torch.full((2, 3), 0.5), torch.zeros(2, dtype=torch.int64)
    found = APGD(Linf(0.3), steps=20, gradient=script)(model, x, y)
    assert torch.equal(found, script.looks[13])


# --- optima known in closed form


def test_linf_optimum_of_a_linear_model():
    model, x = Linear(30), torch.full((2, 30), 0.5)
    found = APGD(Linf(0.1), steps=20)(model, x, torch.zeros(2, dtype=torch.int64))
    torch.testing.assert_close(found, x + 0.1 * model.w.sign())


def test_l2_optimum_of_a_linear_model():
    model, x = Linear(30), torch.full((2, 30), 0.5)
    y = torch.zeros(2, dtype=torch.int64)
    found = APGD(L2(0.4), steps=100, loss=margin)(model, x, y)
    gain = (found - x) @ model.w / (0.4 * model.w.norm())
    assert (gain > 0.9999).all() and (gain < 1 + 1e-6).all()


@pytest.mark.parametrize("eps", [0.4, 1.3])
def test_l1_optimum_of_a_linear_model(eps):
    """Spend eps on the largest weights, each up to the edge of the box (here 1/2): a knapsack."""
    model, x = Linear(30), torch.full((2, 30), 0.5)
    largest = model.w.abs().sort(descending=True).values
    room = [min(0.5, max(0.0, eps - 0.5 * i)) for i in range(30)]
    best = float((largest * torch.tensor(room)).sum())
    y = torch.zeros(2, dtype=torch.int64)
    found = APGD(L1(eps), steps=100, loss=margin)(model, x, y)
    gain = (found - x) @ model.w
    assert (gain > 0.98 * best).all() and (gain < best * (1 + 1e-6)).all()


# --- L1


def test_l1_path_shrinks_the_ball_and_only_its_last_stage_counts():
    path = Sparse(L1(2.0), 100)
    assert [ball.eps for ball in path.balls] == [6, 4, 2]
    assert path.evaluations == 103
    counts = path.in_threat_set(torch.arange(103))
    assert counts.sum() == 41 and not counts[:62].any()
    assert [ball.eps for ball in Sparse(L1(2.0), 2).balls] == [2]


def test_l1_points_of_the_last_stage_are_in_the_set_and_others_in_the_larger_balls():
    attack, model = APGD(L1(0.8), steps=20), spiking()
    x = torch.rand(6, 16, generator=stream(0, "x"))
    y = torch.arange(6) % 3
    state, path = attack.begin(x, y, SampleStreams(0, torch.arange(6)), 0), Sparse(L1(0.8), 20)
    for k in range(path.evaluations):
        made = attack.step(model, x, y, state)
        stage = 0 if k < 7 else 1 if k < 14 else 2
        ball = path.balls[stage]
        ball.check(made.seen, x)
        attack.threat.check(made.result, x)
        assert stage == 2 or not made.fooled.any()
        state = made.state


def test_sparse_sign_moves_the_largest_pixels_alike():
    grad = torch.tensor([[3.0, -5.0, 1.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0.0] * 4])
    found = sparse_sign(grad, torch.tensor([1.6, 3.0, 2.0]))
    torch.testing.assert_close(
        found, torch.tensor([[0.5, -0.5, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 0]])
    )


# --- targets


class Decoy(nn.Module):
    """Class 1 is nearest and never wins; class 2 wins in the corner along b, far from the start.

    The untargeted gradient is that of class 1, along a, which is orthogonal to b.
    """

    def __init__(self, eps, size=32):
        super().__init__()
        self.eps = eps
        self.b = torch.where(torch.arange(size) % 2 > 0, 1.0, -1.0)
        self.a = torch.where(torch.arange(size) // 2 % 2 > 0, 1.0, -1.0)

    def forward(self, x):
        delta = (x - 0.5) / self.eps
        along_a, along_b = (delta * self.a).mean(1), (delta * self.b).mean(1)
        own = torch.zeros_like(along_a)
        return torch.stack([own, -0.1 + 0.05 * along_a, along_b - 0.8, own - 5], 1)


def test_targets_find_the_class_that_the_untargeted_search_misses():
    model, x, y = Decoy(0.2), torch.full((5, 32), 0.5), torch.zeros(5, dtype=torch.int64)
    for attack, hits in (
        (APGD(Linf(0.2), steps=30, restarts=3), 0),
        (APGD(Linf(0.2), steps=30, restarts=3, loss=margin), 0),
        (APGD(Linf(0.2), steps=30, targets=1), 0),  # the nearest class, which never wins
        (APGD(Linf(0.2), steps=30, targets=2), 5),
        (APGD(Linf(0.2), steps=30, targets=9), 5),  # more than there are: they are repeated
    ):
        found = attack(model, x, y, generator=stream(0, "attack"))
        answers = model(found).argmax(1)
        assert (answers == 2).sum() == hits, attack
        assert ((answers == 0) | (answers == 2)).all()


def test_targets_are_the_runners_up_on_the_clean_input():
    class Constant(nn.Module):
        def forward(self, x):
            order = torch.tensor([4.0, 1, 3, 0, 2]).expand(len(x), 5)
            return order + 0 * x.sum(1, keepdim=True)

    x, y = torch.rand(2, 3), torch.tensor([0, 2])
    attack = APGD(Linf(0.1), steps=2, targets=4)
    targets = []
    for round_ in range(4):
        state = attack.begin(x, y, SampleStreams(0, [0, 1]), round_)
        targets.append(attack.step(Constant(), x, y, state).state["target"].tolist())
    assert targets == [[2, 0], [4, 4], [1, 1], [3, 3]]


# --- restarts, rounds, steps


def images():
    """Inputs that the row-wise spiking network classifies correctly."""
    x = torch.rand(24, 16, generator=stream(0, "x"))
    with torch.no_grad():
        return x, spiking()(x).argmax(1)


def by_steps(attack, model, x, y, streams):
    """Run the rounds by hand, each on the samples that no earlier round has fooled."""
    found, open_, highest = (
        x.clone(),
        torch.ones(len(x), dtype=torch.bool),
        torch.full((len(x),), -9e9),
    )
    search = streams.fork("search")
    for round_ in range(attack.rounds):
        rows = open_.nonzero()[:, 0]
        state = attack.begin(x[rows], y[rows], search.take(rows), round_)
        over = False
        while not over:
            made = attack.step(model, x[rows], y[rows], state)
            state, over = made.state, bool(made.over.all())
        wrong = model(made.result).argmax(1) != y[rows]
        loss = state["best_loss"]
        for i, row in enumerate(rows.tolist()):
            if wrong[i] or loss[i] > highest[row]:
                found[row], highest[row] = made.result[i], loss[i]
            open_[row] = not wrong[i]
        if not open_.any():
            break
    return found


@pytest.mark.slow
@every_threat
@pytest.mark.parametrize(
    "options", [{}, {"restarts": 3}, {"targets": 2}], ids=["one", "restarts", "targets"]
)
def test_the_plain_call_gives_what_the_steps_give(threat, options):
    attack, model, (x, y) = APGD(threat, steps=12, **options), spiking(), images()
    streams = SampleStreams(3, torch.arange(len(x)))
    plain = attack(model, x, y, generator=streams)
    fooled = model(plain).argmax(1) != y
    assert 0 < fooled.sum() < len(x)
    assert torch.equal(plain, by_steps(attack, model, x, y, streams))
    assert can_step(attack, model)

    def judge(points, rows):
        threat.check(points, x[rows])
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    _, right = active_set(attack, model, x, y, streams=streams, batch_size=5, judge=judge)
    assert torch.equal(right == 0, fooled)


@every_threat
def test_a_sample_alone_is_attacked_as_in_its_batch(threat):
    attack, model, (x, y) = APGD(threat, steps=12, targets=2), spiking(), images()
    together = attack(model, x, y, generator=SampleStreams(3, torch.arange(len(x))))
    for i in range(0, len(x), 5):
        alone = attack(model, x[i : i + 1], y[i : i + 1], generator=SampleStreams(3, [i]))
        assert torch.equal(alone[0], together[i])


def test_restarts_are_run_on_the_samples_that_none_before_has_fooled():
    attack, model, (x, y) = APGD(Linf(0.1), steps=10, restarts=3), spiking(), images()
    fooled, sizes = [], []
    for restarts in (1, 2):
        single = APGD(Linf(0.1), steps=10, restarts=restarts)
        found = single(model, x, y, generator=stream(0, "attack"))
        fooled.append(int((model(found).argmax(1) != y).sum()))
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    attack(model, x, y, generator=stream(0, "attack"))
    expected = (
        [24] * 12 + [24 - fooled[0]] * 12 + [24 - fooled[1]] * 12
    )  # 11 evaluations and a score
    assert sizes == expected
    assert 0 < fooled[0] < 24


def test_an_adaptive_gradient_starts_afresh_in_every_search():
    lengths = []

    class Learning(Backprop):
        def begin(self):
            lengths.append(0)
            return Used()

    class Used(Backprop):
        def __call__(self, *parts):
            lengths[-1] += 1
            return super().__call__(*parts)

    model = nn.Linear(3, 4)
    model.bias.data[0] = 1e3
    attack = APGD(Linf(0.1), steps=7, restarts=2, gradient=Learning())
    attack(model, torch.rand(2, 3), torch.tensor([0, 0]))
    assert lengths == [8, 8]
    assert not can_step(attack, model)


def test_cost_counts_what_a_resisting_sample_spends():
    """Forward passes of a sample that is never fooled; a gradient counts three."""
    model = nn.Linear(3, 4)
    model.bias.data[0] = 1e3
    forwards, gradients = [], []
    model.register_forward_hook(lambda *_: forwards.append(1))

    class Counting(Backprop):
        def __call__(self, *parts):
            gradients.append(1)
            return super().__call__(*parts)

    for attack in (
        APGD(Linf(0.1), steps=7, gradient=Counting()),
        APGD(Linf(0.1), steps=7, restarts=2, gradient=Counting()),
        APGD(L1(0.5), steps=10, targets=3, gradient=Counting()),
    ):
        forwards.clear(), gradients.clear()
        attack(model, torch.rand(1, 3), torch.tensor([0]))
        alone = len(forwards) - len(gradients)
        assert cost(attack) == pytest.approx(len(gradients) + alone / 3)
    assert cost(APGD(Linf(0.1), steps=7, gradient=EoT(4))) == 4 * 8


# --- noise


class Deaf(nn.Module):
    """Ignores its input; each draw is correct with probability 3/4."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        own = (self.random.uniform(x[:, 0], dim=0) < 0.75) + 0 * x.sum(1)
        return torch.stack([own, 1 - own], 1)


@pytest.mark.parametrize("gradient", [Backprop(), EoT(2)], ids=["one draw", "two draws"])
def test_random_errors_do_not_skip_restarts(gradient):
    """In ten draws nearly every sample is wrong once, and none is wrong ten times."""
    model, x = Deaf(), torch.rand(40, 3, generator=stream(0, "x"))
    attack = APGD(Linf(0.1), steps=10, restarts=3, gradient=gradient)
    attack(model, x, torch.zeros(40, dtype=torch.int64), generator=stream(0, "attack"))
    assert model.sizes[-1] == 40


def test_an_answer_is_that_of_the_mean_logits_of_all_draws():
    look, y = _RecordedLogits(margin, 2), torch.tensor([0, 0])
    look(torch.tensor([[3.0, 0.0], [1.0, 0.0]]), y)
    look(torch.tensor([[0.0, 1.0], [0.0, 3.0]]), y)
    assert look.wrong(y).tolist() == [False, True]


def test_one_draw_of_a_noisy_model_decides_nothing():
    """Regardless of single draws, the point of highest loss is returned."""
    sequence = [0.0, 1.0, 4.0, 2.0]

    class Wrong(Script):
        def __call__(self, model, x, y, loss):
            loss(torch.tensor([[0.0, 1.0]]), y)
            return super().__call__(model, x, y, loss)

    model, x, y = nn.Linear(3, 2), torch.full((1, 3), 0.5), torch.tensor([0])
    last = Wrong(sequence)
    found = APGD(Linf(0.1), steps=3, gradient=last)(model, x, y)
    assert torch.equal(found, last.looks[3])
    model.stochastic = True
    best = Wrong(sequence)
    found = APGD(Linf(0.1), steps=3, gradient=best)(model, x, y)
    assert torch.equal(found, best.looks[2])


# --- a trained network


@pytest.fixture(scope="module")
def trained():
    """A small spiking network on the embedded digits, and test images it classifies correctly."""
    data = load("digits")
    x, y = data.train.batch(torch.arange(1024))
    model = CNN(
        *(1, 10), T=2, width=8, hidden=32, image_size=8, neuron=LIF(0.5, v_th=0.5),
        mean=data.mean, std=data.std, generator=stream(0, "weights"),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(6):
        for part in torch.randperm(1024, generator=stream(0, "order", epoch)).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[part]), y[part]).backward()
            optimiser.step()
    x, y = data.test.batch(torch.arange(100))
    model.eval()
    with torch.no_grad():
        right = model(x).argmax(1) == y
    assert right.float().mean() > 0.85
    return model, x[right], y[right]


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.06), L2(0.4), L1(2.0)], ids=["linf", "l2", "l1"])
@pytest.mark.parametrize("loss", [cross_entropy, dlr])
def test_as_strong_as_pgd_of_the_same_length(trained, threat, loss):
    """It fools more samples; on nearly all it fools the model or reaches at least the same loss."""
    model, x, y = trained
    gradient, fooled, reached = SwapSurrogate(Triangular(1.0)), [], []
    for search in (APGD, PGD):
        attack = search(threat, steps=30, loss=loss, gradient=gradient)
        found = attack(model, x, y, generator=stream(0, "attack"))
        with torch.no_grad():
            logits = model(found)
        fooled.append(margin(logits, y) > 0)
        reached.append(loss(logits, y))
    assert 0 < fooled[1].sum() < fooled[0].sum()
    assert (fooled[0] | (reached[0] >= reached[1])).float().mean() > 0.9


@pytest.mark.slow
def test_targets_are_stronger_than_one_untargeted_search(trained):
    model, x, y = trained
    fooled = []
    for options in ({}, {"targets": 4}):
        attack = APGD(Linf(0.06), steps=15, gradient=SwapSurrogate(Triangular(1.0)), **options)
        with torch.no_grad():
            found = attack(model, x, y, generator=stream(0, "attack"))
            fooled.append(int((model(found).argmax(1) != y).sum()))
    assert fooled[1] > fooled[0] > 0


# --- arguments


def test_it_is_a_stepwise_attack():
    attack: Stepwise = APGD(Linf(0.1))
    assert (attack.rounds, APGD(Linf(0.1), restarts=2, targets=3).rounds) == (1, 6)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"restarts": 0}, "restarts must be >= 1, got 0"),
        ({"targets": -1}, "targets counts classes, >= 0, got -1"),
        ({"targets": 2, "loss": cross_entropy}, "targeted DLR; leave loss out"),
    ],
)
def test_settings_that_make_no_sense_are_rejected_in_one_line(options, says):
    with pytest.raises(ValueError, match=says) as error:
        APGD(Linf(0.1), **options)
    assert "\n" not in str(error.value)
