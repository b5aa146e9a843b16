"""Spiking networks of two pixels, whose true robust accuracy is known.

Thresholds divide the square of pixels into pieces with a constant decision, and a fine grid samples
every piece that matters: three times as many points change nothing. The accuracy under a suite is
compared with the accuracy on the grid. It can be lower only by samples that are fooled between grid
points, and a suite for the worst case must reach it.
"""

from dataclasses import replace

import pytest
import torch

from spikeguard.attacks import APGD, FAB, FGSM, Converging, Linf, Square, UniformNoise, suite
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.models import MLP
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream

pytestmark = pytest.mark.slow

PIXELS, CLASSES, SAMPLES, EPS = 2, 4, 200, 0.1
THREAT = Linf(EPS)
SEEDS = (0, pytest.param(2, marks=pytest.mark.long))


def network(seed):
    """Random weights, large enough for many pieces in a ball."""
    model = MLP(
        in_shape=(PIXELS,),
        num_classes=CLASSES,
        T=3,
        hidden=(16, 16),
        neuron=LIF(0.5, surrogate=Triangular(1.0)),
        mean=(0.5,) * PIXELS,
        std=(0.25,) * PIXELS,
    )
    generator = stream(seed, "enumerable")
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def enumerated(model, x, y, points=61):
    """Return whether the model is right at every point of a grid over ball and box [B]."""
    steps = torch.linspace(-EPS, EPS, points)
    offsets = torch.cartesian_prod(steps, steps)
    right = torch.ones_like(y, dtype=torch.bool)
    for offset in offsets.split(256):
        grid = THREAT.project(x[:, None] + offset, x[:, None])
        found = model(grid.flatten(0, 1)).argmax(1).view(len(x), -1)
        right &= (found == y[:, None]).all(1)
    return right


def fitting(name):
    """Return a suite without repetition: three other classes, and four corners for Square.

    Of the converging search, a tenth of the budget.
    """
    if name == "snn":
        return {"snn": Converging(THREAT, budget=3000)}
    made = {}
    for key, attack in suite(name, eps=EPS).items():
        if isinstance(attack, FAB) or (isinstance(attack, APGD) and attack.targets):
            attack = replace(attack, targets=CLASSES - 1)
        elif isinstance(attack, Square):
            attack = replace(attack, queries=200)
        made[key] = attack
    return made


@pytest.fixture(scope="module", params=SEEDS)
def known(request):
    """The network, samples labelled by its own predictions, and which of them are robust."""
    model = network(request.param)
    x = torch.rand(SAMPLES, PIXELS, generator=stream(request.param, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
    robust = enumerated(model, x, y)
    assert 0.2 < robust.double().mean() < 0.8
    return model, x, y, robust


def left(known, attacks):
    """Return the result, after checking that every reported adversarial point is misclassified."""
    model, x, y, _ = known
    result = evaluate(model, (x, y), attacks, cascade=True, batch_size=SAMPLES)
    fooled = result.outcomes["worst_case"] == 0
    found = result.worst.x
    THREAT.check(found, x)
    with torch.no_grad():
        assert torch.equal(model(found).argmax(1) != y, fooled)
    return result


def test_a_finer_grid_finds_the_same(known):
    model, x, y, robust = known
    some = slice(40)
    assert torch.equal(enumerated(model, x[some], y[some], points=181), robust[some])


def test_the_suites_end_at_the_truth(known):
    """snn at most one point above it, standard not below snn, and neither below the true value."""
    robust = known[3]
    names = ("snn", "snn-cascade", "standard")
    snn, cascade, standard = (left(known, fitting(name)) for name in names)
    for result in (snn, cascade, standard):
        invented = (result.outcomes["worst_case"] == 0) & robust
        assert invented.sum() <= 1  # between two points of the grid
    for result in (snn, cascade):
        assert result.outcomes["worst_case"].sum() <= robust.sum() + SAMPLES // 100
    assert standard.worst_case.accuracy >= snn.worst_case.accuracy


def test_a_weak_attack_is_seen_to_be_weak(known):
    """One step, or one random point, leaves more than the true value: the test above can fail."""
    truth = float(known[3].double().mean())
    for attack in (FGSM(THREAT), UniformNoise(THREAT, draws=1)):
        assert left(known, {"weak": attack}).worst_case.accuracy > truth + 0.03
