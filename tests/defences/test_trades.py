"""TRADES: the divergence computed by hand, its search, and side effects that must not happen."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.defences import AT, MPPD, TRADES, Mixup, Objective, Vanilla
from spikeguard.defences.piece import Pass, Step
from spikeguard.defences.trades import divergence
from spikeguard.models import CNN
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import randomness, stream

X = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
Y = torch.tensor([0, 1, 2, 0, 1, 2])
HALF, QUARTER = (torch.tensor([p, 1 - p]).log()[None] for p in (0.5, 0.25))


def small_cnn():
    neuron = NoisyLIF(0.5, sigma=0.2, v_th=0.3)
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=neuron).train()


def run(objective, model):
    with randomness(model, stream(1, "noise")):
        return Objective.of(objective)(model, X, Y, progress=0.5, generator=stream(1, "o"))


def linear(w):
    """Two classes with logits (w.x, 0)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(w), 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([w, torch.zeros_like(w)]))
    return model


def test_divergence_by_hand():
    """KL((1/2, 1/2) || (1/4, 3/4)) = ln(4/3) / 2, and it is not symmetric."""
    assert divergence(HALF, QUARTER).item() == pytest.approx(math.log(4 / 3) / 2)
    other = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert divergence(QUARTER, HALF).item() == pytest.approx(other)
    assert divergence(QUARTER, QUARTER + 3).item() == pytest.approx(0, abs=1e-7)


def test_divergence_is_torchs_and_stays_finite_where_probabilities_vanish():
    p, q = (3 * torch.randn(5, 4, generator=stream(0, name)) for name in "pq")
    expected = functional.kl_div(q.log_softmax(1), p.softmax(1), reduction="batchmean")
    torch.testing.assert_close(divergence(p, q).mean(), expected)
    assert divergence(torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])) == 400


def test_term_is_beta_times_the_mean_and_its_gradient_goes_into_both_branches():
    clean = HALF.clone().requires_grad_()
    perturbed = QUARTER.clone().requires_grad_()
    passes = (Pass(X, logits, None) for logits in (clean, perturbed))
    step = Step(nn.Identity(), *passes, Y, 0.5, stream(0, "step"))
    term = TRADES(beta=6.0).term(step)
    term.backward()
    assert term.item() == pytest.approx(3 * math.log(4 / 3))
    # d KL / d z' = q - p; d KL / d z = p (log p/q - KL)
    torch.testing.assert_close(perturbed.grad, 6 * torch.tensor([[-0.25, 0.25]]))
    ratio = torch.tensor([[math.log(2), math.log(2 / 3)]])
    torch.testing.assert_close(clean.grad, 6 * 0.5 * (ratio - math.log(4 / 3) / 2))


def test_the_gradient_is_0_at_the_clean_image_so_the_search_starts_near_it():
    """The logit difference moves by w.(x' - x): the most divergent images are corners +-eps sign(w)

    for all pixels alike, on the one side or the other.
    """
    w = torch.tensor([1.0, -2.0, 0.5, 3.0])
    x = torch.rand(32, 1, 2, 2, generator=stream(2, "x")) * 0.5 + 0.25
    moving = x.clone().requires_grad_()
    model = linear(w)
    (grad,) = torch.autograd.grad(divergence(model(x).detach(), model(moving)).sum(), moving)
    assert grad.abs().max() < 1e-6
    found = TRADES(eps=0.1, steps=10, step_size=0.02).perturb(
        model, x, torch.zeros(32, dtype=torch.int64), stream(0, "t")
    )
    side = ((found - x).flatten(1) * w.sign() / 0.1).mean(1, keepdim=True)
    torch.testing.assert_close((found - x).flatten(1), 0.1 * side.sign() * w.sign())
    assert (side > 0).any()
    assert (side < 0).any()


def test_search_raises_the_divergence_and_stays_in_ball_and_box():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 3))
    clean = model(X).detach()
    noise = X + 0.1 * (2 * torch.rand(X.shape, generator=stream(3, "u")) - 1)
    reached = [divergence(clean, model(noise.clamp(0, 1))).mean()]
    for steps in (1, 3, 10):
        found = TRADES(eps=0.1, steps=steps, step_size=0.04).perturb(model, X, Y, stream(0, "t"))
        assert (found - X).abs().max() <= 0.1 * (1 + 1e-6)
        assert found.min() >= 0
        assert found.max() <= 1
        reached.append(divergence(clean, model(found)).mean())
    assert reached[-1] > 5 * reached[0]
    assert reached[1] < reached[2] <= reached[3] * 1.01


def test_the_search_does_not_use_the_label():
    model = small_cnn()
    one, other = (TRADES().perturb(model, X, y, stream(0, "t")) for y in (Y, Y.flip(0)))
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_cross_entropy_is_taken_on_the_clean_batch_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    outcome = run(TRADES(eps=0.1), model)
    assert list(outcome.losses) == ["cross_entropy", "trades"]
    expected = functional.cross_entropy(model(X), Y)
    torch.testing.assert_close(outcome.losses["cross_entropy"], expected, rtol=0, atol=0)
    gap = divergence(model(X), model(outcome.seen.x)).mean()
    torch.testing.assert_close(outcome.losses["trades"], 6 * gap)
    assert gap > 0


def test_it_searches_in_evaluation_mode_and_trains_on_both_batches_in_training_mode():
    model, modes = small_cnn(), []
    handle = model.features[1].register_forward_hook(lambda m, *_: modes.append(m.training))
    run(TRADES(eps=0.1, steps=3), model)
    handle.remove()
    assert modes == [False] * 4 + [True] * 2
    assert model.features[1].num_batches_tracked == 2


def test_weight_0_is_plain_training_bit_for_bit():
    ends = []
    for objective in (Vanilla(), TRADES(beta=0.0)):
        model = small_cnn()
        outcome = run(objective, model)
        outcome.total.backward()
        ends.append([outcome.total, *(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)


def test_it_joins_terms_and_rejects_a_second_perturbation_or_another_share():
    outcome = run(TRADES(eps=0.1, steps=2) | MPPD(), small_cnn())
    assert list(outcome.losses) == ["cross_entropy", "mppd", "trades"]
    assert all(loss > 0 for loss in outcome.losses.values())
    with pytest.raises(ValueError, match="perturbed once"):
        TRADES() | AT(eps=0.1)
    with pytest.raises(ValueError, match=r"one share of the loss, got .*trades 1"):
        TRADES() | Mixup(0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": -0.1}, "eps is a radius >= 0 in input units, got -0.1"),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"step_size": 0.0}, "step_size must be positive, got 0"),
        ({"beta": -1.0}, "beta is a weight >= 0, got -1"),
        ({"beta": math.inf}, "beta is a weight >= 0, got inf"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        TRADES(**wrong)


def test_repr_builds_it_again():
    assert eval(repr(TRADES(beta=1.0))) == TRADES(beta=1.0)
