"""MPD-SGR: the share of a Gaussian in the surrogate's range, by formula and by counting."""

import math

import pytest
import torch
from torch import nn

from spikeguard.defences import MPDSGR
from spikeguard.defences.piece import Pass, Step
from spikeguard.models import CNN, MLP
from spikeguard.neurons import (
    LIF,
    ATan,
    LayerTrace,
    NoisyLIF,
    Rectangular,
    StoG,
    StraightThrough,
    Triangular,
    record,
)
from spikeguard.rng import stream


def phi(x):
    return 0.5 * (1 + math.erf(x / math.sqrt(2)))


def layer(v, *, v_th=1.0, surrogate=None):
    """A trace made by hand; only v, v_th and the surrogate matter here."""
    surrogate = Triangular() if surrogate is None else surrogate
    return LayerTrace(v, v, (v >= v_th).to(v.dtype), None, v_th, surrogate, "hard")


def seen_by(model, x):
    with record(model) as trace:
        logits = model(x)
    return Pass(x, logits, trace)


def term(piece, seen, model=None):
    model = nn.Identity() if model is None else model
    return piece.term(Step(model, seen, None, torch.zeros(2), 0.5, stream(0, "step")))


def test_share_by_hand():
    """v - v_th = -1, 1 in one channel (mean 0, deviation 1) and 1, 5 in another (3 and 2)."""
    v = torch.tensor([[[0.0, 2.0], [2.0, 6.0]]], dtype=torch.float64)  # T = 1, B = 2, C = 2
    share = MPDSGR(eta=1.0, width=0.5).share(layer(v))
    assert share.shape == (1, 2)
    assert share[0, 0].item() == pytest.approx(phi(0.5) - phi(-0.5), rel=1e-4)
    assert share[0, 1].item() == pytest.approx(phi(3.5 / 2) - phi(2.5 / 2), rel=1e-4)


@pytest.mark.parametrize("mean", [-1.0, 0.0, 0.7])
@pytest.mark.parametrize("g", [0.5, 1.0])
def test_for_gaussian_potentials_it_is_the_share_within_the_range(mean, g):
    n = 40_000
    v = 1 + mean + 0.8 * torch.randn(1, n, 1, generator=stream(0, "v"))
    share = MPDSGR(eta=1.0, width=g).share(layer(v)).item()
    counted = ((v - 1).abs() < g).double().mean().item()
    assert abs(share - counted) < 5 * math.sqrt(0.25 / n)


def test_it_is_the_mean_rectangular_surrogate_times_the_width_of_its_range():
    """The mean surrogate derivative scales the gradient of an attack."""
    surrogate = Rectangular(0.5)
    v = 1.2 + 0.6 * torch.randn(1, 40_000, 1, generator=stream(1, "v"))
    passed = surrogate(v - 1).mean().item()  # area 1: 1 / (2 g) inside the range
    share = MPDSGR(eta=1.0).share(layer(v, surrogate=surrogate)).item()
    assert share == pytest.approx(2 * 0.5 * passed, abs=5 * math.sqrt(0.25 / 40_000))


def test_moments_are_those_of_a_channel_over_the_batch_and_the_feature_map():
    v = torch.randn(3, 4, 2, 5, 6, generator=stream(2, "v"), dtype=torch.float64) + 0.5
    share = MPDSGR(eta=1.0, width=0.5).share(layer(v, v_th=0.7))
    assert share.shape == (3, 2)
    values = v[1, :, 1].flatten() - 0.7
    mean, s = values.mean().item(), values.std(correction=0).item()
    expected = phi((mean + 0.5) / s) - phi((mean - 0.5) / s)
    assert share[1, 1].item() == pytest.approx(expected, rel=1e-4)


def test_gradient_descent_moves_the_mean_out_of_the_range_on_either_side():
    """A distribution centred below the threshold moves down, one above it moves up."""
    spread = torch.linspace(-1, 1, 9, dtype=torch.float64).view(1, 9, 1)
    v = torch.cat([0.6 + spread, 1.4 + spread], dim=2).requires_grad_()
    (grad,) = torch.autograd.grad(MPDSGR(eta=1.0, width=0.5).share(layer(v)).sum(), v)
    below, above = grad.sum(1)[0]
    assert below > 0
    assert above < 0
    assert below.item() == pytest.approx(-above.item())


def test_a_channel_that_never_moves_has_share_0_or_1_and_a_finite_gradient():
    v = torch.tensor([[[1.0, 5.0]]]).requires_grad_()  # one sample: no spread
    share = MPDSGR(eta=1.0).share(layer(v))
    assert share.tolist() == [[1.0, 0.0]]
    (grad,) = torch.autograd.grad(share.sum(), v)
    assert grad.isfinite().all()


def test_term_is_the_weight_times_the_mean_over_layers_of_their_means():
    model = MLP(6, 3, T=4, hidden=(5, 4), neuron=LIF(0.5, 0.1, surrogate=Triangular(0.8)))
    seen = seen_by(model, torch.rand(7, 6, generator=stream(2, "x")))
    piece = MPDSGR(eta=0.3)
    first, second = (piece.share(trace) for trace in seen.trace.values())
    assert (first.shape, second.shape) == ((4, 5), (4, 4))
    expected = 0.3 * (first.mean() + second.mean()) / 2
    torch.testing.assert_close(term(piece, seen), expected)
    torch.testing.assert_close(term(MPDSGR(eta=0.3, width=0.8), seen), expected)
    term(piece, seen).backward()
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    assert [bool(p.grad is not None and p.grad.any()) for p in weights] == [True, True, False]


@pytest.mark.parametrize("neuron", [LIF(v_th=0.3), StoG(1.0, p=0.5, v_th=0.3), NoisyLIF(v_th=0.3)])
@pytest.mark.parametrize("readout", ["logits", "rate"])
def test_the_neuron_of_the_readout_is_left_out(readout, neuron):
    """Also where its spikes pass a gate before they are the logits."""
    kwargs = {"T": 3, "width": 2, "hidden": 4, "image_size": 8, "neuron": neuron}
    model = CNN(1, 3, readout=readout, **kwargs)
    seen = seen_by(model, torch.rand(5, 1, 8, 8, generator=stream(3, "x")))
    layers = list(seen.trace.values())
    hidden = layers[:-1] if readout == "rate" else layers
    piece = MPDSGR(eta=1.0)
    expected = torch.stack([piece.share(trace).mean() for trace in hidden]).mean()
    torch.testing.assert_close(term(piece, seen, model), expected)


def test_the_range_is_each_layers_own_surrogate_half_width():
    v = torch.tensor([[[0.0], [2.0]]], dtype=torch.float64)
    share = MPDSGR(eta=1.0).share(layer(v, surrogate=ATan(2.0))).item()
    g = 2 / (math.pi * 2)  # half-width at half maximum
    assert share == pytest.approx(phi(g) - phi(-g), rel=1e-4)


def test_a_surrogate_without_end_needs_an_explicit_width():
    v = torch.tensor([[[0.0], [2.0]]])
    with pytest.raises(ValueError, match=r"features\.2 uses StraightThrough.*pass width"):
        MPDSGR(eta=1.0).share(layer(v, surrogate=StraightThrough()), "features.2")
    assert MPDSGR(eta=1.0, width=1.0).share(layer(v, surrogate=StraightThrough())) > 0


def test_a_model_without_spiking_layers_is_rejected():
    with pytest.raises(ValueError, match="no spiking layer before its readout"):
        term(MPDSGR(eta=1.0), seen_by(nn.Linear(2, 2), torch.rand(3, 2)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eta": -0.1}, "eta is a weight >= 0, got -0.1"),
        ({"eta": math.inf}, "eta is a weight >= 0, got inf"),
        ({"eta": 1.0, "width": 0.0}, "width is a half-width > 0"),
        ({"eta": 1.0, "width": math.nan}, "width is a half-width > 0"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        MPDSGR(**wrong)
