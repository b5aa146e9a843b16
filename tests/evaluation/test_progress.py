"""ProgressMeter: gradients spent, and an upper bound on the remaining ones."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import nn

from spikeguard.attacks import FORWARD, PGD, Linf, UniformNoise, classify, cost, cross_entropy
from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.model_access import observe_passes
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.progress import ProgressMeter
from spikeguard.rng import stream


class Firm(nn.Module):
    """Predicts class 0 for every input; its logits have a gradient nevertheless."""

    def forward(self, x):
        z = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([2 + z, -z], 1)


class Split(nn.Module):
    """An image with a dark first pixel is fooled by any increase of the second pixel."""

    def forward(self, x):
        x = x.flatten(1)
        falls = (x[:, :1] < 0.25) & (x[:, 1:2] > 0.5)
        return torch.cat([2 + x[:, 1:2] * 0, 4.0 * falls + x[:, 1:2] * 0], 1)


@dataclass(frozen=True)
class Up:
    """Raises every pixel by eps, at the cost of ``passes`` gradients."""

    threat: Linf
    passes: int

    @property
    def cost(self):
        return float(self.passes)

    def __call__(self, model, x, y, *, generator=None):
        for _ in range(self.passes):
            BACKPROP(model, x, y, cross_entropy)
        return self.threat.project(x + self.threat.eps, x)


def run(model, x, attacks, **options):
    seen = []
    y = torch.zeros(len(x), dtype=torch.int64)
    evaluate(model, (x, y), attacks, progress=lambda *update: seen.append(update), **options)
    return seen


SCORE = FORWARD  # one draw
CLEAN = SCORE + 1  # and a gradient


def test_an_observer_gets_the_samples_of_each_pass_and_whether_it_is_a_gradient():
    passes, x = [], torch.full((3, 1, 2, 2), 0.5)
    y = torch.zeros(3, dtype=torch.int64)
    with observe_passes(lambda *update: passes.append(update)):
        with torch.no_grad():
            classify(Firm(), x, y)
        BACKPROP(Firm(), x, y, cross_entropy)
    classify(Firm(), x, y)
    assert [(n, bool(grad)) for n, grad in passes] == [(3, False), (3, True)]


@pytest.mark.parametrize("cascade", [False, True])
def test_the_first_total_is_exact_if_no_attack_succeeds(cascade):
    """Shards of 6 and 4 images; every attack has its declared cost, and no image is fooled."""
    attacks = {"cheap": Up(Linf(0.1), 2), "expensive": Up(Linf(0.1), 50)}
    x = torch.rand(10, 1, 2, 2, generator=stream(0, "x"))
    seen = run(Firm(), x, attacks, batch_size=6, cascade=cascade)
    whole = 10 * (CLEAN + 2 + 50 + 2 * SCORE)
    assert seen[-1] == (round(whole), round(whole), "done")
    assert all(total == max(done + 1, round(whole)) for done, total, _ in seen[:-1])
    first = seen[0]
    assert first[2] == "cheap" and first[0] == round((10 if cascade else 6) * CLEAN)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_the_remaining_restarts_of_unfooled_samples_are_in_the_total():
    """In a step-by-step run, a sample judged correct after one restart has the others left."""
    x = torch.rand(8, 1, 2, 2, generator=stream(0, "x"))
    attack = PGD(Linf(0.1), steps=10, restarts=10)
    seen = run(Firm(), x, {"pgd": attack}, batch_size=4, cascade=True)
    whole = 8 * (CLEAN + cost(attack) + SCORE)
    totals = [total for _, total, _ in seen]
    assert min(totals) > 0.95 * whole and max(totals) < 1.1 * whole


def test_a_resumed_shard_is_no_estimate_for_later_shards():
    meter = ProgressMeter(
        None, {"a": Up(Linf(0.1), 50), "b": Up(Linf(0.1), 60)}, samples=20, draws=1
    )
    meter.begin(10)
    meter.resume()  # "a" is done
    meter.attack("b", 10)
    assert meter.left == pytest.approx(10 * (60 + SCORE) + 10 * (CLEAN + 110 + 2 * SCORE))
    meter.end()
    assert meter.left == pytest.approx(10 * (CLEAN + 110 + 2 * SCORE))


def test_in_a_cascade_the_remaining_gradients_fall_with_every_fooled_sample():
    """The first attack fools half of the images: the second runs on the other half only."""
    x = torch.full((8, 1, 1, 2), 0.45)
    x[:4, ..., 0] = 0.1
    seen = run(
        Split(), x, {"cheap": Up(Linf(0.1), 2), "expensive": Up(Linf(0.1), 50)}, cascade=True
    )
    (done, total) = next((done, total) for done, total, what in seen if what == "expensive")
    assert (done, total) == (
        round(8 * (CLEAN + 2 + SCORE)),
        round(8 * (CLEAN + 2 + SCORE) + 4 * (50 + SCORE)),
    )
    assert seen[-1] == (total, total, "done")


def test_a_long_attack_reports_progress_while_it_runs():
    x = torch.rand(4, 1, 2, 2, generator=stream(0, "x"))
    seen = run(Firm(), x, {"long": Up(Linf(0.1), 200)})
    inside = [done for done, _, what in seen if what == "long"]
    assert len(inside) > 100
    assert max(after - before for before, after in pairwise(inside)) <= 4


@pytest.mark.parametrize("attack", [PGD(Linf(0.1), steps=7), UniformNoise(Linf(0.1), draws=5)])
def test_attacks_run_as_many_passes_as_they_declare(attack):
    """The upper bound on the remaining gradients relies on it."""
    x = torch.rand(4, 1, 2, 2, generator=stream(0, "x"))
    seen = run(Firm(), x, {"it": attack})
    assert seen[-1][0] == round(4 * (CLEAN + cost(attack) + SCORE))


def test_an_attack_without_a_declared_cost_counts_as_the_mean_of_the_others():
    class Silent:
        threat = Linf(0.1)

    meter = ProgressMeter(None, {"a": Up(Linf(0.1), 7), "b": Silent()}, samples=3, draws=1)
    assert meter.left == pytest.approx(3 * (CLEAN + 2 * (7 + SCORE)))


def test_stored_shards_count_as_no_work():
    updates = []
    meter = ProgressMeter(
        lambda *it: updates.append(it), {"a": Up(Linf(0.1), 3)}, samples=12, draws=1
    )
    meter.skip(8)
    assert meter.left == pytest.approx(4 * (CLEAN + 3 + SCORE))
    meter.skip(4)
    assert meter.left == 0
    meter.finish()
    assert updates == [(1, 1, "done")]


def test_an_attack_may_expect_to_end_before_its_cost():
    """Of 10 x 1000 gradients 400 are expected; as they are spent, fewer remain, never below 0."""
    attacks = {"search": Up(Linf(0.1), 1000), "later": Up(Linf(0.1), 7)}
    meter = ProgressMeter(lambda *update: None, attacks, samples=10, draws=1)
    meter.begin(10)
    meter.attack("search", 10)
    later = 10 * (7 + SCORE)
    assert meter.left == pytest.approx(10 * (1000 + SCORE) + later)
    meter.expect(400)
    assert meter.left == pytest.approx(400 + later)
    model, x = Firm(), torch.rand(10, 1, 2, 2, generator=stream(0, "x"))
    with meter.counting_passes():
        BACKPROP(model, x, torch.zeros(10, dtype=torch.int64), cross_entropy)
    assert meter.left == pytest.approx(390 + later)
    meter.expect(5)
    with meter.counting_passes():
        BACKPROP(model, x, torch.zeros(10, dtype=torch.int64), cross_entropy)
    assert meter.left == pytest.approx(later)
    meter.attack("later", 10)  # the expectation was of the attack before
    assert meter.left == pytest.approx(later)


def test_observers_may_be_nested():
    outer, inner, x = [], [], torch.full((3, 1, 2, 2), 0.5)
    with observe_passes(lambda *update: outer.append(update)):
        with observe_passes(lambda *update: inner.append(update)):
            BACKPROP(Firm(), x, torch.zeros(3, dtype=torch.int64), cross_entropy)
        BACKPROP(Firm(), x[:1], torch.zeros(1, dtype=torch.int64), cross_entropy)
    assert inner == [(3, True)] and outer == [(3, True), (1, True)]
