"""The cost estimate of an evaluation: declared costs and scoring passes, and the time."""

import math

import pytest
import torch
from torch import nn

from spikeguard.attacks import APGD, FAB, FGSM, MTPGD, PGD, EoT, Linf, Square, UniformNoise, dlr
from spikeguard.data import ImageSet
from spikeguard.evaluation.cost_estimate import Estimate, estimate
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.models import MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import stream

T = Linf(0.1)


@pytest.fixture
def images():
    return ImageSet(torch.rand(10, 6, generator=stream(0, "x")), torch.arange(10) % 3, 3, "x", 1.0)


def test_costs_add_up(images):
    attacks = {"fgsm": FGSM(T), "pgd": PGD(T, steps=20), "noise": UniformNoise(T, draws=9)}
    found = estimate(MLP(6, 3, T=2), images, attacks, limit=8, batch_size=4)
    scored = (1 + 3) / 3  # forward passes: without an attack, and under each
    assert (found.samples, found.gradients) == (8, pytest.approx(1 + 20 + 3 + scored + 1))
    assert 0 < found.seconds < math.inf


def test_several_processes_are_timed_with_one_thread_each(images):
    threads = []

    class Watched(nn.Module):
        def forward(self, x):
            threads.append(torch.get_num_threads())
            return torch.stack([x.sum(1), -x.sum(1)], 1)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        images = ImageSet(images.images, images.labels % 2, 2, "x", 1.0)
        for jobs, used in ((1, 2), (2, 1)):
            threads.clear()
            estimate(Watched(), images, {"fgsm": FGSM(T)}, jobs=jobs)
            assert set(threads) == {used} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_averaging_costs_its_draws(images):
    found = estimate(MLP(6, 3, T=2), images, {"pgd": PGD(T, steps=5, gradient=EoT(4))})
    assert (found.samples, found.gradients) == (10, pytest.approx(20 + 2 / 3 + 1))


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize(
    "attacks",
    [
        {"fgsm": FGSM(T)},
        {"pgd": PGD(T, steps=3, restarts=3), "noise": UniformNoise(T, draws=4)},
        {"pgd": PGD(T, steps=2, restarts=2, gradient=EoT(4)), "square": Square(T, queries=9)},
        {
            "apgd": APGD(T, steps=3, targets=2, loss=dlr, gradient=EoT(2)),
            "fab": FAB(T, steps=2, targets=2, gradient=EoT(2)),
        },
    ],
    ids="+".join,
)
@pytest.mark.parametrize(("sigma", "draws"), [(0, None), (0.1, None), (0.1, 3)])
def test_no_evaluation_costs_more(images, attacks, sigma, draws, cascade):
    """All samples resist, as the bias of class 0 outweighs everything; the meter counts passes."""
    model = MLP(6, 3, T=2, neuron=NoisyLIF(0.5, sigma=sigma) if sigma else None)
    with torch.no_grad():
        model.classifier[-1].bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    data = ImageSet(images.images, torch.zeros(10, dtype=torch.long), 3, "x", 1.0)
    spent = []
    evaluate(
        *(model, data, attacks),
        batch_size=4,
        draws=draws,
        cascade=cascade,
        check=False,
        progress=lambda done, *_: spent.append(done),
    )
    most = 10 * estimate(model, data, attacks, batch_size=4, draws=draws).gradients
    assert spent[-1] <= round(most)
    if "fgsm" in attacks and not (sigma and cascade):
        assert spent[-1] == round(most)


def test_an_unknown_cost_is_not_guessed(images):
    mixed = {"mt": MTPGD(T), "fgsm": FGSM(T)}
    assert "is unknown" in str(estimate(MLP(6, 3, T=2), images, mixed))

    class Blind(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 3)

    assert estimate(Blind(), images, {"fgsm": FGSM(T)}).seconds == math.inf


def test_the_model_is_left_unchanged(images):
    model = MLP(6, 3, T=2).train()
    estimate(model, images, {"fgsm": FGSM(T)})
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("seconds", "says"), [(0.2, "about 1 s"), (90, "about 1.5 min"), (9000, "about 2.5 h")]
)
def test_it_reads_as_a_sentence(seconds, says):
    text = str(Estimate(500, 1234.4, seconds))
    assert text.startswith("500 images, at most 1,234 gradients each: ")
    assert says in text
