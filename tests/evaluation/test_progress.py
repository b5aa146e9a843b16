"""How far an evaluation is: gradients that were made, and what is left at most."""

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
    """Right on class 0 whatever is shown; its logits have a gradient all the same."""

    def forward(self, x):
        z = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([2 + z, -z], 1)


class Split(nn.Module):
    """Images whose first pixel is dark fall to any change of the second one upwards."""

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
    evaluate(model, (x, y), attacks, progress=lambda *told: seen.append(told), **options)
    return seen


SCORE = FORWARD  # one draw
CLEAN = SCORE + 1  # and a gradient


def test_a_pass_is_overheard_with_its_samples_and_whether_it_is_a_gradient():
    heard, x = [], torch.full((3, 1, 2, 2), 0.5)
    y = torch.zeros(3, dtype=torch.int64)
    with observe_passes(lambda *told: heard.append(told)):
        with torch.no_grad():
            classify(Firm(), x, y)
        BACKPROP(Firm(), x, y, cross_entropy)
    classify(Firm(), x, y)
    assert [(n, bool(grad)) for n, grad in heard] == [(3, False), (3, True)]


@pytest.mark.parametrize("cascade", [False, True])
def test_of_a_model_that_resists_the_whole_is_known_from_the_beginning(cascade):
    """Two parts of 6 and 4 images; every attack costs what it says, and nobody is fooled."""
    attacks = {"cheap": Up(Linf(0.1), 2), "dear": Up(Linf(0.1), 50)}
    x = torch.rand(10, 1, 2, 2, generator=stream(0, "x"))
    seen = run(Firm(), x, attacks, batch_size=6, cascade=cascade)
    whole = 10 * (CLEAN + 2 + 50 + 2 * SCORE)
    assert seen[-1] == (round(whole), round(whole), "done")
    assert all(total == max(done + 1, round(whole)) for done, total, _ in seen[:-1])
    first = seen[0]
    assert first[2] == "cheap" and first[0] == round((10 if cascade else 6) * CLEAN)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_restarts_of_who_resists_are_counted_on():
    """Step by step a sample that is judged after one restart has the others before it."""
    x = torch.rand(8, 1, 2, 2, generator=stream(0, "x"))
    attack = PGD(Linf(0.1), steps=10, restarts=10)
    seen = run(Firm(), x, {"pgd": attack}, batch_size=4, cascade=True)
    whole = 8 * (CLEAN + cost(attack) + SCORE)
    totals = [total for _, total, _ in seen]
    assert min(totals) > 0.95 * whole and max(totals) < 1.1 * whole


def test_a_part_that_was_begun_before_is_no_measure_for_those_to_come():
    meter = ProgressMeter(
        None, {"a": Up(Linf(0.1), 50), "b": Up(Linf(0.1), 60)}, samples=20, draws=1
    )
    meter.begin(10)
    meter.resume()  # "a" is done
    meter.attack("b", 10)
    assert meter.left == pytest.approx(10 * (60 + SCORE) + 10 * (CLEAN + 110 + 2 * SCORE))
    meter.end()
    assert meter.left == pytest.approx(10 * (CLEAN + 110 + 2 * SCORE))


def test_in_a_cascade_what_is_left_falls_with_those_who_fall():
    """Half of the images fall to the first attack: the second costs its price for the others."""
    x = torch.full((8, 1, 1, 2), 0.45)
    x[:4, ..., 0] = 0.1
    seen = run(Split(), x, {"cheap": Up(Linf(0.1), 2), "dear": Up(Linf(0.1), 50)}, cascade=True)
    (done, total) = next((done, total) for done, total, what in seen if what == "dear")
    assert (done, total) == (
        round(8 * (CLEAN + 2 + SCORE)),
        round(8 * (CLEAN + 2 + SCORE) + 4 * (50 + SCORE)),
    )
    assert seen[-1] == (total, total, "done")


def test_a_long_attack_is_heard_of_on_its_way():
    x = torch.rand(4, 1, 2, 2, generator=stream(0, "x"))
    seen = run(Firm(), x, {"long": Up(Linf(0.1), 200)})
    inside = [done for done, _, what in seen if what == "long"]
    assert len(inside) > 100
    assert max(after - before for before, after in pairwise(inside)) <= 4


@pytest.mark.parametrize("attack", [PGD(Linf(0.1), steps=7), UniformNoise(Linf(0.1), draws=5)])
def test_attacks_make_the_passes_they_say(attack):
    """The promise that what is left rests on."""
    x = torch.rand(4, 1, 2, 2, generator=stream(0, "x"))
    seen = run(Firm(), x, {"it": attack})
    assert seen[-1][0] == round(4 * (CLEAN + cost(attack) + SCORE))


def test_an_attack_that_does_not_say_what_it_costs_counts_as_the_others_do():
    class Silent:
        threat = Linf(0.1)

    meter = ProgressMeter(None, {"a": Up(Linf(0.1), 7), "b": Silent()}, samples=3, draws=1)
    assert meter.left == pytest.approx(3 * (CLEAN + 2 * (7 + SCORE)))


def test_parts_read_back_are_no_work():
    told = []
    meter = ProgressMeter(lambda *it: told.append(it), {"a": Up(Linf(0.1), 3)}, samples=12, draws=1)
    meter.skip(8)
    assert meter.left == pytest.approx(4 * (CLEAN + 3 + SCORE))
    meter.skip(4)
    assert meter.left == 0
    meter.finish()
    assert told == [(1, 1, "done")]
