"""Mixup of clean and perturbed losses, and the presets of adversarial training."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.attacks import FGSM, PGD, RFGSM, Linf
from spikeguard.defences import AT, MPPD, GaussianNoise, Mixup, Objective, Vanilla
from spikeguard.models import CNN
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import randomness, stream

X = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def small_cnn():
    neuron = NoisyLIF(0.5, sigma=0.2, v_th=0.3)
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=neuron).train()


def run(objective, model):
    with randomness(model, stream(1, "noise")):
        return Objective.of(objective)(model, X, Y, progress=0.5, generator=stream(1, "o"))


def after(objective):
    """The results of a step: the loss, the gradients and the statistics."""
    model = small_cnn()
    outcome = run(objective, model)
    outcome.total.backward()
    return [outcome.total, *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("chi", [0.0, 0.25, 0.5, 1.0])
def test_the_loss_is_mixed_by_chi(chi):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    outcome = run(GaussianNoise(0.5) | Mixup(chi), model)
    clean, noisy = (functional.cross_entropy(model(x), Y) for x in (X, outcome.seen.x))
    assert list(outcome.losses) == ["cross_entropy"]
    assert clean != noisy
    torch.testing.assert_close(outcome.total, chi * clean + (1 - chi) * noisy)


def test_half_and_half_by_hand():
    """Logits (x, 0), label 0, x = 0.5 against 0.5 - 0.25: mean of two soft-plus values."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [0.0]]))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    outcome = (AT(eps=0.25) | Mixup(0.5))(model, x, y, progress=0.0, generator=stream(0, "o"))
    expected = (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(-0.25))) / 2
    assert outcome.total.item() == pytest.approx(expected)


def test_share_0_is_the_perturbation_alone_bit_for_bit():
    left, alone = after(AT(eps=0.1) | Mixup(0.0)), after(AT(eps=0.1))
    torch.testing.assert_close(left, alone, rtol=0, atol=0)


def test_both_batches_run_in_training_mode_the_clean_one_first():
    model, seen = small_cnn(), []
    handle = model.register_forward_pre_hook(lambda m, args: seen.append((m.training, *args)))
    outcome = run(GaussianNoise(0.1) | Mixup(0.5), model)
    handle.remove()
    assert [training for training, _ in seen] == [True, True]
    assert seen[0][1] is X
    torch.testing.assert_close(seen[1][1], outcome.seen.x, rtol=0, atol=0)
    assert model.features[1].num_batches_tracked == 2


def test_the_stable_snn_objective_is_its_three_parts():
    """chi CE(clean) + (1 - chi) CE(perturbed) + rho MS-MPPD; the term is added to the mix."""
    perturbation = AT.preset("stable-snn")
    mixed = run(perturbation | Mixup(0.5), small_cnn()).total
    whole = run(perturbation | Mixup(0.5) | MPPD(rho=1.0), small_cnn())
    assert list(whole.losses) == ["cross_entropy", "mppd"]
    assert whole.losses["mppd"] > 0
    torch.testing.assert_close(whole.losses["cross_entropy"], mixed, rtol=0, atol=0)
    torch.testing.assert_close(whole.total, mixed + whole.losses["mppd"])
    off = run(perturbation | Mixup(0.5) | MPPD(rho=0.0), small_cnn()).total
    torch.testing.assert_close(off, mixed, rtol=0, atol=0)


def test_nothing_to_mix_is_rejected_before_the_training():
    with pytest.raises(ValueError, match="add a piece that perturbs, such as at or gaussian"):
        Objective.of(Mixup()).require(small_cnn(), None)
    (AT(eps=0.1) | Mixup()).require(small_cnn(), None)


@pytest.mark.parametrize("chi", [-0.1, 1.1, math.nan])
def test_chi_is_a_share(chi):
    with pytest.raises(
        ValueError, match=r"chi is the clean batch's share of the loss, in \[0, 1\]"
    ):
        Mixup(chi)


def test_presets_are_what_the_sources_do():
    ball = {eps: Linf(eps / 255) for eps in (2, 4, 8)}
    assert AT.preset("stable-snn").attack == RFGSM(ball[4], "stable-snn-train", alpha=0.001)
    assert AT.preset("stog").attack == FGSM(ball[2])
    for name in ("feel", "snn-rat", "tgo"):
        assert AT.preset(name).attack == PGD(ball[2], steps=2, step_size=1 / 255)
    assert AT.preset("sr").attack == PGD(ball[8], steps=7, step_size=0.01)
    assert AT.preset("madry").attack == PGD(ball[8], steps=7, step_size=2 / 255)
    with pytest.raises(ValueError, match=r"AT: presets are stable-snn, .*; got 'wong'"):
        AT.preset("wong")


def test_a_jittered_step_falls_short_of_eps_where_the_noise_was_against_it():
    """A linear model's step is eps everywhere. With noise n along it the projection leaves

    min(eps, eps + n): short by max(0, -n), on average jitter / sqrt(2 pi), and for half the pixels
    by nothing.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(10_000, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.ones(10_000), torch.zeros(10_000)]) * 1e-3)
    x, y = torch.full((4, 1, 100, 100), 0.5), torch.zeros(4, dtype=torch.int64)
    at = AT(eps=0.1, jitter=0.01)
    short = 0.1 - (x - at.perturb(model, x, y, stream(0, "j")))
    n = short.numel()
    assert short.min() > -1e-6
    mean, deviation = 0.01 / math.sqrt(2 * math.pi), 0.01 * math.sqrt(0.5 - 0.5 / math.pi)
    assert abs(short.mean().item() - mean) < 5 * deviation / math.sqrt(n)
    assert abs((short > 1e-6).float().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(n)


def test_jitter_0_is_fgsm_bit_for_bit_and_eps_0_is_the_image_itself():
    model = small_cnn()
    plain, none = (a.perturb(model, X, Y, stream(0, "j")) for a in (AT(0.1), AT(0.1, jitter=0.0)))
    torch.testing.assert_close(none, plain, rtol=0, atol=0)
    shown = AT(eps=0.0, jitter=0.01).perturb(model, X, Y, stream(0, "j"))
    torch.testing.assert_close(shown, X, rtol=0, atol=0)
    torch.testing.assert_close(after(AT(eps=0.0, jitter=0.01)), after(Vanilla()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AT(eps=0.1, jitter=-0.1), r"jitter is a deviation in \[0, 1\], got -0.1"),
        (lambda: AT(eps=0.1, jitter=math.nan), r"jitter is a deviation in \[0, 1\], got nan"),
        (lambda: AT(eps=0.1, jitter=0.1, steps=2), "jitter=0.1 is the start of a single step"),
        (lambda: AT(0.1, jitter=0.1, random_start=True), "leave random_start out, or leave jitter"),
    ],
)
def test_jitter_is_checked(build, message):
    with pytest.raises(ValueError, match=message):
        build()
