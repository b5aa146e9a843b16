"""Gradients of attacks: closed forms, known noise, and what a gradient call must not change."""

import pytest
import torch
from torch import nn

from spikeguard.attacks import (
    PGD,
    AttackError,
    Backprop,
    EoT,
    Linf,
    NoGradientError,
    SwapSurrogate,
    cross_entropy,
    margin,
)
from spikeguard.attacks.searches.stepwise import can_step
from spikeguard.models import MLP
from spikeguard.neurons import LIF, ATan, NoisyLIF, Triangular
from spikeguard.rng import RandomSource, SampleStreams, randomness, stream

X = torch.rand(3, 6, generator=stream(0, "x"))
Y = torch.tensor([0, 2, 1])


def spiking(surrogate, sigma=0.0):
    neuron = NoisyLIF(0.5, sigma, v_th=0.3, surrogate=surrogate)
    return MLP(6, 3, T=3, hidden=(8, 8), neuron=neuron, generator=stream(0, "w")).eval()


class NoisyQuadratic(nn.Module):
    """Logits 0 and sum_i w_i (x_i + n_i)^2, with noise n from the model's random source."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 0.5, -1.0, 2.0]))

    def forward(self, x):
        score = (self.w * (x + self.random.normal(x, dim=0)).square()).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def streams():
    return SampleStreams(3, [5, 1, 9])


def test_backprop_of_a_linear_model_is_the_closed_form():
    """d CE / dx = W^T (softmax(z) - onehot(y)); per sample, not divided by the batch size."""
    model = nn.Linear(6, 3)
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 6, generator=stream(0, "W")))
    losses, grad = Backprop()(model, X, Y, cross_entropy)
    p = model(X).detach().softmax(1)
    torch.testing.assert_close(losses, -p[range(3), Y].log())
    torch.testing.assert_close(grad, (p - nn.functional.one_hot(Y, 3)) @ model.weight.detach())


def test_margin_is_positive_where_the_model_is_fooled():
    logits = torch.tensor([[2.0, 0.5, 1.0], [0.5, 2.0, 1.0], [3.0, 3.0, 1.0]])
    found = margin(logits, torch.tensor([0, 0, 0]))
    torch.testing.assert_close(found, torch.tensor([-1.0, 1.5, 0.0]))


@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_losses_of_half_precision_logits_are_taken_in_float32(loss):
    logits = torch.tensor([[10.0, 3.0, -4.0]], dtype=torch.float16)
    y = torch.tensor([0])
    assert loss(logits, y).dtype == torch.float32
    torch.testing.assert_close(loss(logits, y), loss(logits.float(), y))


def test_backprop_differentiates_where_gradients_are_off():
    with torch.no_grad():
        _, grad = Backprop()(spiking(Triangular(1.0)), X, Y, cross_entropy)
    assert (grad.abs().amax(1) > 0).all()


def test_a_cut_graph_is_named():
    class Cut(nn.Linear):
        def forward(self, x):
            return super().forward(x.detach())

    with pytest.raises(NoGradientError, match="no gradient reaches the input"):
        Backprop()(Cut(6, 3), X, Y, cross_entropy)


def test_a_gradient_that_is_not_finite_is_an_error():
    """d sqrt(u) / du is infinite at u = 0, where the logits are still finite."""

    class Root(nn.Linear):
        def forward(self, x):
            return super().forward((x - x.detach()).abs().sqrt())

    with pytest.raises(AttackError, match="gradient is not finite for 3 of 3"):
        Backprop()(Root(6, 3), X, Y, cross_entropy)


@pytest.mark.parametrize(
    ("swap", "same_as"),
    [(ATan(2.0), ATan(2.0)), (Triangular(0.5), Triangular(0.5)), (2.0, Triangular(2.0))],
    ids=["family", "width", "factor"],
)
def test_swapping_the_surrogate_changes_the_gradient_and_nothing_else(swap, same_as):
    """The gradient is that of a network built with the other surrogate; losses are unchanged."""
    model, twin = spiking(Triangular(1.0)), spiking(same_as)
    twin.load_state_dict(model.state_dict())
    logits = model(X)
    losses, own = Backprop()(model, X, Y, cross_entropy)
    swapped_losses, swapped = SwapSurrogate(swap)(model, X, Y, cross_entropy)
    assert torch.equal(swapped_losses, losses)
    assert torch.equal(swapped, Backprop()(twin, X, Y, cross_entropy)[1])
    assert not torch.allclose(swapped, own)
    assert torch.equal(model(X), logits)
    assert torch.equal(Backprop()(model, X, Y, cross_entropy)[1], own)


def test_the_surrogate_is_restored_when_the_gradient_fails():
    model = spiking(Triangular(1.0))
    with pytest.raises(ZeroDivisionError):
        SwapSurrogate(ATan())(model, X, Y, lambda logits, y: 1 / 0)
    carried = [m.surrogate for m in model.modules() if isinstance(m, LIF | NoisyLIF)]
    assert carried == [Triangular(1.0)] * 2


def test_a_model_without_spiking_layers_has_no_surrogate_to_swap():
    with pytest.raises(ValueError, match="no spiking layer") as error:
        SwapSurrogate(Triangular(1.0))(nn.Linear(6, 3), X, Y, cross_entropy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_must_be_positive(factor):
    with pytest.raises(ValueError, match="positive"):
        SwapSurrogate(factor)


@pytest.mark.parametrize("draws", [1, 2, 7])
def test_eot_is_the_mean_gradient_over_known_noise(draws):
    """margin = sum w (x + n)^2 for y = 0: the mean gradient is 2 w (x + mean of n)."""
    model, y = NoisyQuadratic(), torch.zeros(3, dtype=torch.int64)
    with randomness(model, streams()):
        losses, grad = EoT(draws)(model, X, y, margin)
    same = streams()
    noise = torch.stack([same.normal(X.shape) for _ in range(draws)])
    w = model.w.detach()
    torch.testing.assert_close(grad, 2 * w * (X + noise.mean(0)))
    torch.testing.assert_close(losses, (w * (X + noise).square()).sum(2).mean(0))


def test_eot_averages_gradients_of_the_loss_not_logits():
    """The two differ as soon as the loss is not linear in the logits."""
    model, y, draws = NoisyQuadratic(), torch.zeros(3, dtype=torch.int64), 4
    with randomness(model, streams()):
        _, grad = EoT(draws)(model, X, y, cross_entropy)
    with randomness(model, streams()):
        each = torch.stack([Backprop()(model, X, y, cross_entropy)[1] for _ in range(draws)])
    torch.testing.assert_close(grad, each.mean(0))
    x = X.clone().requires_grad_()
    with randomness(model, streams()):
        mean_logits = torch.stack([model(x) for _ in range(draws)]).mean(0)
    (other,) = torch.autograd.grad(cross_entropy(mean_logits, y).sum(), x)
    assert not torch.allclose(grad, other, rtol=1e-2)


@pytest.mark.parametrize("inner", [Backprop(), SwapSurrogate(ATan())], ids=["own", "swapped"])
def test_eot_of_one_draw_is_its_inner_gradient_bit_for_bit(inner):
    model = spiking(Triangular(1.0))
    for found, expected in zip(
        EoT(1, inner)(model, X, Y, cross_entropy), inner(model, X, Y, cross_entropy), strict=True
    ):
        assert torch.equal(found, expected)


def test_eot_draws_fresh_noise_each_time():
    model = spiking(Triangular(1.0), sigma=0.5)
    with randomness(model, streams()):
        once = Backprop()(model, X, Y, cross_entropy)[1]
    with randomness(model, streams()):
        assert not torch.equal(EoT(2)(model, X, Y, cross_entropy)[1], once)


class Learning:
    """A gradient that counts its steps."""

    def __init__(self, steps=None):
        self.steps = steps

    def begin(self):
        BEGUN.append(Learning([]))
        return BEGUN[-1]

    def __call__(self, model, x, y, loss):
        self.steps.append(len(x))
        return Backprop()(model, x, y, loss)


BEGUN = []


@pytest.mark.parametrize("draws", [None, 2], ids=["alone", "inside EoT"])
def test_every_search_begins_a_gradient_that_learns_anew(draws):
    BEGUN.clear()
    gradient = Learning() if draws is None else EoT(draws, Learning())
    PGD(Linf(0.1), steps=3, restarts=2, gradient=gradient)(spiking(Triangular(1.0)), X, Y)
    assert [len(fresh.steps) for fresh in BEGUN] == [3 * (draws or 1)] * 2


def test_a_gradient_that_learns_is_not_run_step_by_step():
    model = spiking(Triangular(1.0))
    assert can_step(PGD(Linf(0.1)), model)
    assert not can_step(PGD(Linf(0.1), gradient=EoT(2, Learning())), model)


def test_eot_needs_a_draw():
    with pytest.raises(ValueError, match="draws"):
        EoT(0)
