"""The gradient test of check(): it accepts the loss's own gradient, and of others at most 5 %."""

import pytest
import torch
from torch import nn

from spikeguard.attacks.model_access import classify, frozen
from spikeguard.evaluation.estimates import Estimate
from spikeguard.preflight.gradient import require_gradient
from spikeguard.rng import stream

SEEDS = 200
IMAGES = torch.rand(24, 1, 6, 6, generator=stream(0, "images"))
LABELS = torch.arange(24) % 5


def own(grad, generator):
    return grad


def noise(grad, generator):
    return torch.randn(grad.shape, generator=generator)


def one_direction(grad, generator):
    """The same random direction for every image."""
    return torch.randn(grad.shape[1:], generator=generator).expand_as(grad)


def one_value(grad, generator):
    """One random value for all pixels of an image: each image becomes brighter or darker."""
    return torch.randn(len(grad), 1, 1, 1, generator=generator).expand_as(grad)


def turned_by_chance(grad, generator):
    """The loss's own gradient with a random sign for each image."""
    return grad * one_value(torch.ones_like(grad), generator).sign()


def turned(grad, generator):
    return -grad


class Replaced(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, rule, generator):
        ctx.rule, ctx.generator = rule, generator
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return ctx.rule(grad, ctx.generator), None, None


class Model(nn.Module):
    """A linear classifier with another gradient of the input."""

    def __init__(self, rule, seed):
        super().__init__()
        self.rule, self.generator = rule, stream(seed, "rule")
        self.weight = nn.Parameter(torch.randn(36, 5, generator=stream(seed, "weight")))

    def forward(self, x):
        x = Replaced.apply(x, self.rule, self.generator).flatten(1)
        return (x - 0.5) @ self.weight / 6


def accepts(rule, seed, images=24):
    model = Model(rule, seed)
    x, y = IMAGES[:images], LABELS[:images]

    def logits(moved, index):
        with torch.no_grad():
            return classify(model, moved, y[index])

    try:
        with frozen(model):
            require_gradient(model, logits, x, y, seed)
    except ValueError as error:
        assert "the gradient is not that of the loss" in str(error)
        return False
    return True


@pytest.mark.parametrize("images", [2, 8, 24])
def test_the_gradient_of_the_loss_is_always_accepted(images):
    assert all(accepts(own, seed, images) for seed in range(SEEDS))


@pytest.mark.parametrize("images", [2, 8, 24])
@pytest.mark.parametrize("rule", [noise, one_direction])
def test_at_most_5_percent_of_random_gradients_are_accepted(rule, images):
    accepted = sum(accepts(rule, seed, images) for seed in range(SEEDS))
    assert Estimate.share(accepted, SEEDS).low <= 0.05


@pytest.mark.parametrize("rule", [one_value, turned_by_chance])
def test_of_gradients_as_likely_as_their_negatives_at_most_5_percent_are_accepted(rule):
    accepted = sum(accepts(rule, seed) for seed in range(SEEDS))
    assert Estimate.share(accepted, SEEDS).low <= 0.05


def test_a_gradient_turned_round_is_never_accepted():
    assert not any(accepts(turned, seed) for seed in range(SEEDS))


def test_the_same_seed_gives_the_same_answer():
    assert [accepts(noise, seed) for seed in range(20)] == [accepts(noise, s) for s in range(20)]
