"""MeanField: random parts become their means, the rest of the network spikes as before."""

import math

import pytest
import torch
from torch import nn

from spikeguard.attacks import (
    APGD,
    ASSG,
    PGD,
    SAPGD,
    Backprop,
    EoT,
    Linf,
    MeanField,
    SwapSurrogate,
    cross_entropy,
    margin,
    suitable,
)
from spikeguard.attacks.gradients.mean_field import has_mean_field
from spikeguard.attacks.model_access import evaluating, frozen
from spikeguard.encoders import Poisson
from spikeguard.kernels.selection import use_kernel
from spikeguard.models import CNN, MLP
from spikeguard.models.noisy_input import NoisyInput
from spikeguard.neurons import LIF, NoisyLIF, StoG, Triangular
from spikeguard.rng import stream


def linear(logits, y):
    """A loss that is linear in the logits."""
    return logits.gather(1, y[:, None])[:, 0]


def network(neuron, T=3, hidden=(6,), **options):
    generator = stream(0, "init")
    made = MLP(
        num_classes=3,
        T=T,
        hidden=hidden,
        in_shape=(1, 2, 2),
        neuron=neuron,
        generator=generator,
        **options,
    )
    return made.eval()


def inputs(n=8):
    return torch.rand(n, 1, 2, 2, generator=stream(0, "x")), torch.arange(n) % 3


def test_one_layer_one_step_is_the_closed_form():
    model, (x, y) = network(NoisyLIF(sigma=0.5), T=1), inputs()
    first, last = (m for m in model.modules() if isinstance(m, nn.Linear))
    losses, grad = MeanField()(model, x, y, linear)
    z = (first(x.flatten(1)) - 1) / 0.5
    p = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    torch.testing.assert_close(losses, linear(last(p), y))
    slope = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) / 0.5
    torch.testing.assert_close(grad.flatten(1), (last.weight[y] * slope) @ first.weight)


def test_it_is_the_derivative_of_the_mean_over_draws():
    """One layer, one step, a linear loss: finite differences of the mean of many draws agree."""
    model, (x, y) = network(NoisyLIF(sigma=0.5), T=1), inputs(1)
    losses, grad = MeanField()(model, x, y, linear)
    n, d = 200_000, 0.1
    with torch.no_grad():
        many, labels = x.expand(n, 1, 2, 2), y.expand(n)
        draws = linear(model(many), labels)
        assert abs(draws.mean() - losses[0]) < 5 * draws.std() / math.sqrt(n)
        for i in range(4):
            step = torch.zeros(4).index_fill(0, torch.tensor(i), d).view(1, 1, 2, 2)
            up, down = linear(model(many + step), labels), linear(model(many - step), labels)
            error = 5 * (up.var() + down.var()).sqrt() / math.sqrt(n) / (2 * d) + 1e-3
            assert abs((up.mean() - down.mean()) / (2 * d) - grad.flatten()[i]) < error


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach", [False, True])
def test_the_gradient_of_a_network_is_that_of_finite_differences(reset, detach):
    neuron = NoisyLIF(sigma=0.4, reset=reset, detach_reset=detach)
    model, (x, y) = network(neuron, T=4, hidden=(6, 5), readout="rate").double(), inputs(3)
    x = x.double()
    _, grad = MeanField()(model, x, y, cross_entropy)
    for i in range(4):
        step = torch.zeros(4, dtype=x.dtype).index_fill(0, torch.tensor(i), 1e-5).view(1, 1, 2, 2)
        up, down = (MeanField()(model, x + s, y, cross_entropy)[0] for s in (step, -step))
        torch.testing.assert_close((up - down) / 2e-5, grad.flatten(1)[:, i], rtol=1e-6, atol=1e-9)


def test_two_calls_agree_and_draw_nothing():
    model, (x, y) = network(NoisyLIF()), inputs()
    generator = stream(0, "noise")
    for module in model.modules():
        if isinstance(module, NoisyLIF):
            module.random.bound = generator
    before = generator.get_state()
    first, again = (MeanField()(model, x, y, cross_entropy) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(generator.get_state(), before)
    assert not torch.equal(model(x), model(x))  # outside the gradient the network draws again


@pytest.mark.parametrize("kernel", ["reference", "multistep", "cpu"])
def test_normalisation_and_pooling_give_the_same_with_every_kernel(kernel):
    model = CNN(1, 3, T=2, width=3, hidden=5, image_size=8, neuron=NoisyLIF()).eval()
    x, y = torch.rand(4, 1, 8, 8, generator=stream(0, "x")), torch.arange(4) % 3
    with frozen(model), use_kernel("reference"):
        losses, grad = MeanField()(model, x, y, cross_entropy)
    with frozen(model), use_kernel(kernel):
        found = MeanField()(model, x, y, cross_entropy)
    torch.testing.assert_close(found, (losses, grad), rtol=1e-4, atol=1e-6)


def test_gates_become_their_means():
    model, (x, y) = network(StoG(p=0.7)), inputs()
    twin = network(LIF(1.0))
    odd = twin.load_state_dict(model.state_dict(), strict=False)
    gates = {f"{name}.p" for name, m in model.named_modules() if isinstance(m, StoG)}
    assert gates and (odd.missing_keys, set(odd.unexpected_keys)) == ([], gates)
    last = [m for m in twin.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.weight *= 0.7  # a gate's mean scales what the next layer receives
    expected = Backprop()(twin, x, y, cross_entropy)
    torch.testing.assert_close(MeanField()(model, x, y, cross_entropy), expected)
    wide = SwapSurrogate(Triangular(3.0))
    found = MeanField(wide)(model, x, y, cross_entropy)
    torch.testing.assert_close(found, wide(twin, x, y, cross_entropy))
    assert not torch.equal(found[1], expected[1])


@pytest.mark.parametrize("signed", [False, True])
def test_poisson_input_becomes_the_pixel(signed):
    model, (x, y) = network(LIF(0.5), encoder=Poisson(signed)), inputs()
    twin = network(LIF(0.5))
    seen = (2 * x - 1) if signed else x
    losses, grad = Backprop()(twin, seen, y, cross_entropy)
    found = MeanField()(model, x, y, cross_entropy)
    torch.testing.assert_close(found, (losses, grad * (2 if signed else 1)))


def test_a_layer_without_noise_in_the_phase_uses_its_surrogate():
    """Noise in training only: the layer is deterministic in an attack, beside one that draws."""
    model, (x, y) = network(NoisyLIF(), hidden=(6, 5)), inputs()
    quiet, noisy = (m for m in model.modules() if isinstance(m, NoisyLIF))
    quiet.noise_in = ("train", "test")
    with frozen(model):
        found = MeanField()(model, x, y, cross_entropy)
        quiet.surrogate = Triangular(0.01)
        assert torch.equal(MeanField()(model, x, y, cross_entropy)[0], found[0])  # real spikes
        assert not torch.equal(MeanField()(model, x, y, cross_entropy)[1], found[1])
        noisy.surrogate, quiet.surrogate = Triangular(0.01), Triangular(1.0)
        assert torch.equal(MeanField()(model, x, y, cross_entropy)[1], found[1])


@pytest.mark.parametrize("neuron", [LIF(), NoisyLIF(noise_in=("train", "test"))], ids=type)
def test_a_network_that_draws_nothing_in_an_attack_is_refused(neuron):
    model, (x, y) = network(neuron), inputs()
    with frozen(model), pytest.raises(ValueError, match="draws no noise during an attack"):
        MeanField()(model, x, y, cross_entropy)
    attacks = {"mean": PGD(Linf(0.1), gradient=MeanField(ASSG())), "own": PGD(Linf(0.1))}
    assert suitable(attacks, model)[1] == ("mean",)
    assert suitable(attacks, network(NoisyLIF()))[1] == ()


def test_noise_around_a_noisy_network_has_no_known_mean():
    inner = network(NoisyLIF(sigma=0.5))
    assert has_mean_field(inner) and not has_mean_field(NoisyInput(inner, 0.5))
    with pytest.raises(ValueError, match=r"the mean of the model \(NoisyInput\) is not known"):
        MeanField()(NoisyInput(inner, 0.5).eval(), *inputs(), linear)


def test_a_random_part_without_a_mean_is_refused():
    class Jitter(nn.Module):
        stochastic = True

        def forward(self, x):
            return x

    model, (x, y) = nn.Sequential(Jitter(), network(NoisyLIF())), inputs()
    with pytest.raises(ValueError, match=r"the mean of 0 \(Jitter\) is not known"):
        MeanField()(model, x, y, cross_entropy)
    assert suitable({"mean": PGD(Linf(0.1), gradient=MeanField())}, model)[1] == ("mean",)


@pytest.mark.parametrize("kind", [APGD, SAPGD])
@pytest.mark.parametrize("loss", [cross_entropy, margin])
def test_a_search_returns_the_point_of_highest_mean_field_loss(kind, loss):
    model, (x, y) = network(NoisyLIF()), inputs()
    seen = []

    class Spy:
        def __call__(self, model, x, y, loss):
            losses, grad = MeanField()(model, x, y, loss)
            seen.append(losses)
            return losses, grad

    found = kind(Linf(0.3), steps=10, loss=loss, gradient=Spy())(model, x, y)
    with evaluating(model):
        reached, _ = MeanField()(model, found, y, loss)
    highest = torch.stack(seen).amax(0)
    if kind is APGD:
        torch.testing.assert_close(reached, highest)
    else:  # its last point is compared by one draw of the model
        assert (reached >= highest - 1e-5).float().mean() >= 0.5


def test_pgd_climbs_the_mean_field_loss():
    model, (x, y) = network(NoisyLIF()), inputs()
    found = PGD(Linf(0.3), steps=20, gradient=MeanField())(model, x, y)
    before, after = (MeanField()(model, at, y, cross_entropy)[0] for at in (x, found))
    assert (after > before).all()


def test_averaging_it_over_draws_changes_nothing():
    model, (x, y) = network(NoisyLIF()), inputs()
    one, many = (g(model, x, y, cross_entropy) for g in (MeanField(), EoT(4, MeanField())))
    torch.testing.assert_close(one, many)
