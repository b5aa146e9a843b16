"""FGSM, the seven R+FGSMs, PGD and noise on models with a known optimum."""

from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from torch import nn

from spikeguard.attacks import (
    FGSM,
    L2,
    PGD,
    RFGSM,
    Backprop,
    EoT,
    Linf,
    UniformNoise,
    cross_entropy,
    margin,
)
from spikeguard.attacks.searches.pgd import RFGSMVariant
from spikeguard.models import MLP
from spikeguard.neurons import LIF
from spikeguard.rng import RandomSource, SampleStreams, stream

EPS = 0.125
N = 64
SIGNS = torch.where(torch.arange(N) % 3 > 0, 1.0, -1.0)
W = SIGNS * torch.linspace(0.5, 2.0, N)
Y = torch.zeros(2, dtype=torch.int64)
GREY = torch.full((2, N), 0.5)


class Linear(nn.Module):
    """Two logits 0 and <w, x>; class 0 is attacked along +w."""

    def forward(self, x):
        return torch.stack([torch.zeros(len(x)), x @ W], 1)


def streams():
    return SampleStreams(4, [10, 11])


def gauss():
    """The normal numbers drawn by an attack that is called with ``streams()``."""
    return streams().fork("search").normal(GREY.shape)


def test_fgsm_is_one_full_step_clipped_to_the_box():
    x = GREY.clone()
    x[:, 0], x[:, 1] = 0.05, 0.95  # w is negative at 0, positive at 1
    found = FGSM(Linf(EPS))(Linear(), x, Y)
    torch.testing.assert_close(found, (x + EPS * SIGNS).clamp(0, 1), rtol=0, atol=1e-7)
    found = FGSM(L2(EPS))(Linear(), GREY, Y)
    torch.testing.assert_close(found, GREY + EPS * (W / W.norm()), rtol=0, atol=1e-7)


def ball(delta):
    return delta.clamp(-EPS, EPS)


FORMULAS = {
    "tramer": lambda n: n.sign() * EPS / 2 + SIGNS * EPS / 2,
    "torchattacks-3.2": lambda n: ball(n.sign() * EPS + SIGNS * EPS),
    "torchattacks-3.4": lambda n: (SIGNS * EPS).expand(2, N),
    "snn-rat": lambda n: n.sign() * EPS / 2 + SIGNS * EPS / 2,
    "stog": lambda n: ball(n * EPS / 2 + SIGNS * EPS / 2),
    "stable-snn": lambda n: ball(n * EPS + SIGNS * EPS),
    "stable-snn-train": lambda n: ball(n * 0.001 + SIGNS * EPS),
}


@pytest.mark.parametrize("variant", get_args(RFGSMVariant))
def test_every_rfgsm_follows_its_formula(variant):
    """On a linear model the gradient's signs are known, so the result is the formula.

    The start is clipped to the box first; at grey 0.5 and eps 1/8 only |N| > 4 would be.
    """
    found = RFGSM(Linf(EPS), variant=variant)(Linear(), GREY, Y, generator=streams())
    torch.testing.assert_close(found - GREY, FORMULAS[variant](gauss()), rtol=0, atol=2e-7)


def test_alpha_replaces_the_variants_own():
    found = RFGSM(Linf(EPS), alpha=EPS / 4)(Linear(), GREY, Y, generator=streams())
    expected = gauss().sign() * EPS / 4 + SIGNS * 3 * EPS / 4
    torch.testing.assert_close(found - GREY, expected, rtol=0, atol=1e-7)


def test_torchattacks_3_2_wastes_half_of_its_budget():
    """Each pixel ends at +-eps or its start, with probability 1/2: half of eps ||w||_1 is left."""
    x = torch.full((2, N), 0.5).repeat(50, 1)
    y = torch.zeros(100, dtype=torch.int64)
    found = RFGSM(Linf(EPS), variant="torchattacks-3.2")(
        Linear(), x, y, generator=SampleStreams(4, torch.arange(100))
    )
    moved = found - x
    assert torch.equal(moved.abs().unique(), torch.tensor([0.0, EPS]))
    assert (moved * SIGNS >= 0).all()
    share = float((moved != 0).double().mean())
    assert abs(share - 0.5) < 5 * 0.5 / (100 * N) ** 0.5
    gain = float((moved @ W).mean() / (EPS * W.abs().sum()))
    assert gain == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("variant", ["tramer", "snn-rat", "stog", "torchattacks-3.2"])
def test_an_rfgsm_takes_less_of_a_linear_margin_than_fgsm(variant):
    """So it may be printed above FGSM: its random step is lost, FGSM takes all of eps ||w||_1."""
    x, y = torch.full((200, N), 0.5), torch.zeros(200, dtype=torch.int64)
    streams = SampleStreams(4, torch.arange(200))
    found = RFGSM(Linf(EPS), variant=variant)(Linear(), x, y, generator=streams)
    gain = ((found - x) @ W) / (EPS * W.abs().sum())
    assert float(gain.mean()) < 0.75
    fgsm = FGSM(Linf(EPS))(Linear(), x, y)
    assert float((((fgsm - x) @ W) / (EPS * W.abs().sum())).min()) == pytest.approx(1.0)


def test_tramer_under_l2_takes_two_half_steps():
    found = RFGSM(L2(EPS))(Linear(), GREY, Y, generator=streams())
    n = gauss()
    expected = EPS / 2 * (n / n.norm(dim=1, keepdim=True) + W / W.norm())
    torch.testing.assert_close(found - GREY, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "wong"},
        {"alpha": -0.01},
        {"alpha": EPS * 1.01},
        {"variant": "stog", "alpha": EPS * 1.01},
        {"variant": "stable-snn", "alpha": float("nan")},
    ],
    ids=str,
)
def test_rfgsm_rejects_unknown_options_in_one_line(options):
    with pytest.raises(ValueError, match="RFGSM") as error:
        RFGSM(Linf(EPS), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("steps", "step_size", "reaches"),
    [(1, 0.01, 0.01), (3, 0.02, 0.06), (10, 0.02, EPS), (10, None, EPS), (1, None, EPS)],
)
def test_pgd_walks_steps_of_the_given_length(steps, step_size, reaches):
    attack = PGD(Linf(EPS), steps=steps, step_size=step_size, random_start=False)
    found = attack(Linear(), GREY, Y)
    torch.testing.assert_close(found, GREY + reaches * SIGNS, rtol=0, atol=1e-6)


def test_the_default_step_is_two_and_a_half_eps_over_steps():
    """From a start opposite to w, at -eps, four steps of eps / 4 end at the centre."""

    @dataclass(frozen=True)
    class Opposite(Linf):
        def sample(self, x, streams):
            return x - self.eps * SIGNS

    found = PGD(Opposite(EPS), steps=1, step_size=EPS / 4)(Linear(), GREY, Y)
    torch.testing.assert_close(found, GREY - 0.75 * EPS * SIGNS)
    found = PGD(Opposite(EPS), steps=10)(Linear(), GREY, Y)  # -1 + 2.5, cut off at 1
    torch.testing.assert_close(found, GREY + EPS * SIGNS)
    on = iter([1.0] * 4 + [0.0] * 6)

    def four_steps(model, x, y, loss):
        losses, grad = Backprop()(model, x, y, loss)
        return losses, grad * next(on)

    found = PGD(Opposite(EPS), steps=10, gradient=four_steps)(Linear(), GREY, Y)
    torch.testing.assert_close(found, GREY)


def test_pgd_starts_at_the_threat_sets_sample():
    """With a negligible step the result is the start."""
    found = PGD(Linf(EPS), steps=1, step_size=1e-12)(Linear(), GREY, Y, generator=streams())
    torch.testing.assert_close(found, Linf(EPS).sample(GREY, streams().fork("search")))


def spiking():
    return MLP(16, 3, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w")).eval()


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_more_restarts_are_never_weaker(loss):
    """Per sample: fooled stays fooled; at a tie the final loss does not fall. Some improve."""
    model, x = spiking(), torch.rand(40, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)

    def outcome(restarts):
        attack = PGD(Linf(0.05), steps=2, step_size=0.01, restarts=restarts, loss=loss)
        x_adv = attack(model, x, y, generator=SampleStreams(0, torch.arange(40)))
        with torch.no_grad():
            logits = model(x_adv)
        return (logits.argmax(1) != y).double(), loss(logits, y)

    fooled, height = outcome(1)
    for restarts in (2, 5):
        more_fooled, more_height = outcome(restarts)
        assert (more_fooled >= fooled).all()
        same = more_fooled == fooled
        assert (more_height[same] >= height[same]).all()
        assert (more_height > height).any()
        fooled, height = more_fooled, more_height


class Coin(nn.Module):
    """Correct with probability 1 - mean(x): only many draws can rank restarts."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()

    def forward(self, x):
        p = x.mean(1)
        right = (self.random.uniform(p, dim=0) >= p).to(x.dtype)
        return torch.stack([right, 1 - right], 1) + 0 * x.sum(1, keepdim=True)


def test_restarts_against_noise_are_ranked_on_as_many_draws_as_the_gradient_takes():
    """Of two starts, 64 draws find the one of higher mean far more often than one draw does."""
    x, y = torch.full((300, 1), 0.5), torch.zeros(300, dtype=torch.int64)

    def mean(draws):
        attack = PGD(Linf(0.5), steps=1, restarts=2, gradient=EoT(draws))
        return float(attack(Coin(), x, y, generator=stream(0, "coin")).mean())

    # U1, U2 uniform: E max = 2/3. With one draw each, the second wins if it alone fools:
    # E U1 + E (U2 - U1) U2 (1 - U1) = 1/2 + 1/12.
    assert mean(64) == pytest.approx(2 / 3, abs=0.05)
    assert mean(1) == pytest.approx(7 / 12, abs=0.05)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"restarts": 0},
        {"restarts": 2, "random_start": False},
        {"step_size": 0.0},
        {"step_size": float("nan")},
        {"step_size": float("inf")},
    ],
    ids=str,
)
def test_pgd_rejects_numbers_out_of_range_in_one_line(options):
    with pytest.raises(ValueError, match="PGD") as error:
        PGD(Linf(EPS), **options)
    assert "\n" not in str(error.value)


def test_noise_keeps_the_worst_of_its_draws():
    """On a linear model the margin is <w, x>: the largest of the same draws, computed by hand."""
    draws, own = 6, streams().fork("search")
    points = torch.stack([Linf(EPS).sample(GREY, own) for _ in range(draws)])
    best = (points @ W).argmax(0)
    expected = points[best, torch.arange(2)]
    found = UniformNoise(Linf(EPS), draws=draws)(Linear(), GREY, Y, generator=streams())
    assert torch.equal(found, expected)


def test_noise_needs_a_draw():
    with pytest.raises(ValueError, match="draws"):
        UniformNoise(Linf(EPS), draws=0)
