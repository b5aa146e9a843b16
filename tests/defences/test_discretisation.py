"""Input discretisation: rounded pixels, signed Poisson spikes, and their gradients."""

import pytest
import torch

from spikeguard.config.instantiate import instantiate
from spikeguard.defences import Objective, Vanilla
from spikeguard.encoders import ENCODERS
from spikeguard.encoders.coding import Direct, Poisson, Quantised
from spikeguard.models import CNN, MLP
from spikeguard.neurons import LIF
from spikeguard.rng import SampleStreams, randomness, stream


def images(*shape):
    return torch.rand(shape, generator=stream(0, "images"))


def encode(encoder, x, T, seed=0):
    with randomness(encoder, SampleStreams(seed, range(len(x)))):
        return encoder(x, T)


# ------------------------------------------------------------------------------- Quantised


def test_four_levels_by_hand():
    x = torch.tensor([[0.0, 0.1, 0.2, 0.5001, 0.8, 0.9, 1.0]])
    expected = torch.tensor([[0, 0, 1, 2, 2, 3, 3]]) / 3
    assert torch.equal(Quantised(4)(x, 2), expected.expand(2, 1, 7))


@pytest.mark.parametrize("levels", [2, 3, 4, 16, 255])
def test_a_pixel_moves_by_half_a_step_at_most_and_only_once(levels):
    x = images(2, 500)
    once = Quantised(levels)(x, 1)[0]
    assert (once - x).abs().max() <= 0.5 / (levels - 1) + 1e-6
    assert len(once.unique()) == levels or levels == 255
    assert torch.equal(Quantised(levels)(once, 1)[0], once)


def test_256_levels_are_the_pixels_of_a_stored_image():
    x = (torch.arange(256) / 255).view(1, -1)
    assert torch.equal(Quantised(256)(x, 1)[0], x)


def test_pixels_outside_the_range_take_its_ends():
    x = torch.tensor([[-0.4, 1.3]])
    assert Quantised(4)(x, 1).flatten().tolist() == [0.0, 1.0]


def test_a_perturbation_moves_only_pixels_near_the_edge_of_a_level():
    """The edges of 4 levels are 1/6, 1/2 and 5/6; further than eps from them nothing changes."""
    x, eps = images(4, 2000), 8 / 255
    edges = torch.tensor([1 / 6, 1 / 2, 5 / 6])
    far = (x[..., None] - edges).abs().amin(-1) > eps
    quantised, encoder = Quantised(4)(x, 1)[0], Quantised(4)
    for sign in (-1, 1):
        moved = encoder((x + sign * eps).clamp(0, 1), 1)[0] != quantised
        assert not moved[far].any()
        assert moved[~far].any()
    assert 0.75 < far.float().mean() < 0.87  # 1 - 3 * 2 eps = 0.81


def network(encoder):
    return CNN(
        1, 3, T=2, width=4, hidden=8, image_size=8, neuron=LIF(0.5, v_th=0.3), encoder=encoder
    )


def input_gradient(model, x):
    x = x.clone().requires_grad_()
    logits = model(x)
    (grad,) = torch.autograd.grad(logits[:, 0].sum(), x)
    return logits.detach(), grad


def test_an_attack_sees_the_gradient_of_the_plain_network_at_the_rounded_image():
    x = images(3, 1, 8, 8)
    logits, grad = input_gradient(network(Quantised(4)).eval(), x)
    expected = input_gradient(network(Direct()).eval(), Quantised(4)(x, 1)[0])
    assert grad.abs().max() > 0
    torch.testing.assert_close((logits, grad), expected)


def test_that_gradient_is_not_the_slope_of_the_network():
    """A small step along it changes nothing, which an audit has to detect."""
    x = 0.3 + 0.05 * images(3, 1, 8, 8)  # inside one level
    model = network(Quantised(4)).eval()
    logits, grad = input_gradient(model, x)
    assert torch.equal(model(x + 0.01 * grad.sign()), logits)


@pytest.mark.parametrize("levels", [0, 1, 257])
def test_a_number_of_levels_out_of_range_is_rejected(levels):
    with pytest.raises(ValueError, match=f"Quantised: levels must be 2 to 256, got {levels}"):
        Quantised(levels)


# -------------------------------------------------------------------------- signed Poisson


def test_signed_spikes_have_the_mean_of_the_rescaled_pixel():
    """The mean of n spikes of variance r (1 - r), r = 2 x - 1, within 5 standard errors."""
    n, x = 20_000, torch.tensor([[0.0, 0.1, 0.45, 0.5, 0.6, 1.0]])
    code = encode(Poisson(signed=True), x, n)
    rate = 2 * x - 1
    error = (rate.abs() * (1 - rate.abs()) / n).sqrt()
    assert ((code.mean(0) - rate).abs() <= 5 * error + 1e-6).all()
    assert set(code.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (code[..., :3] <= 0).all()
    assert (code[..., 3] == 0).all()
    assert (code[..., 4:] >= 0).all()


def test_their_gradient_is_straight_through_in_the_rescaled_pixel():
    """d r / d x = 2 at every step."""
    x = images(2, 3).requires_grad_()
    (grad,) = torch.autograd.grad(encode(Poisson(signed=True), x, 5).sum(), x)
    assert torch.equal(grad, torch.full((2, 3), 10.0))


def test_a_sample_draws_the_same_in_any_batch():
    x, encoder = images(4, 9), Poisson(signed=True)
    code = encode(encoder, x, 6)
    for i in range(4):
        with randomness(encoder, SampleStreams(0, [i])):
            assert torch.equal(encoder(x[i : i + 1], 6), code[:, i : i + 1])


def test_unsigned_is_the_default_and_the_settings_show():
    assert repr(Poisson()) == "Poisson()"
    assert repr(Poisson(signed=True)) == "Poisson(signed=True)"
    assert repr(Quantised()) == "Quantised(levels=4)"


def test_recipes_can_name_them():
    poisson = instantiate(ENCODERS, {"name": "poisson", "signed": True}, "encoder")
    assert poisson.signed
    assert instantiate(ENCODERS, {"name": "quantised", "levels": 16}, "encoder").levels == 16


def test_both_ingredients_train_with_a_leaky_soft_reset_neuron():
    """The network of the paper in small: signed Poisson input, leak 0.99, soft reset."""
    neuron = LIF(0.99, reset="soft")
    model = MLP(12, 3, T=20, hidden=(16,), neuron=neuron, encoder=Poisson(signed=True)).train()
    with randomness(model, stream(0, "noise")):
        outcome = Objective.of(Vanilla())(
            model, images(6, 12), torch.arange(6) % 3, progress=0.0, generator=stream(0, "o")
        )
    outcome.total.backward()
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    assert all(p.grad.isfinite().all() and p.grad.any() for p in weights)
