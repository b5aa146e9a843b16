"""The cost estimate of an evaluation: the sum of the declared costs, and the time."""

import math

import pytest
import torch
from torch import nn

from spikeguard.attacks import FGSM, MTPGD, PGD, EoT, Linf, UniformNoise
from spikeguard.data import ImageSet
from spikeguard.evaluation.cost_estimate import Estimate, estimate
from spikeguard.models import MLP
from spikeguard.rng import stream

T = Linf(0.1)


@pytest.fixture
def images():
    return ImageSet(torch.rand(10, 6, generator=stream(0, "x")), torch.arange(10) % 3, 3, "x", 1.0)


def test_costs_add_up(images):
    attacks = {"fgsm": FGSM(T), "pgd": PGD(T, steps=20), "noise": UniformNoise(T, draws=9)}
    found = estimate(MLP(6, 3, T=2), images, attacks, limit=8, batch_size=4)
    assert (found.samples, found.gradients) == (8, pytest.approx(1 + 20 + 3))
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
    assert (found.samples, found.gradients) == (10, 20)


def test_an_unknown_cost_is_not_guessed(images):
    assert "is unknown" in str(estimate(MLP(6, 3, T=2), images, {"mt": MTPGD(T)}))

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
