"""L2 gains where they are known: identity, scaled and silent layers."""

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.analysis import Gain, layer_gains
from spikeguard.attacks import FGSM, Linf
from spikeguard.models import CNN
from spikeguard.neurons import LIF, StraightThrough, record
from spikeguard.rng import stream

X = 0.2 + 0.6 * torch.rand(5, 1, 2, 2, generator=stream(0, "x"))
Y = torch.arange(5) % 2


class Stack(nn.Module):
    """Spiking layers in a row, each behind a factor, for T equal steps of the image."""

    def __init__(self, *factors, T=3, v_th=0.5, decay=1e-9):
        super().__init__()
        self.factors, self.T = factors, T
        self.layers = nn.ModuleList(
            LIF(decay, v_th=v_th, surrogate=StraightThrough()) for _ in factors
        )

    def forward(self, x):
        s = x.flatten(1).expand(self.T, -1, -1)
        for factor, layer in zip(self.factors, self.layers, strict=True):
            s = layer(factor * s)
        return s.mean(0)[:, :2]


def test_an_identity_passes_every_perturbation_with_gain_1():
    """The current is the image in units of v_th = 1; the second layer sees the first's spikes."""
    found = Gain(FGSM(Linf(0.1)))(Stack(1.0, 1.0, v_th=1.0), (X, Y))
    np.testing.assert_allclose(found["currents"][:, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(found["weights"][:, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(found["currents_half"][:, 0], 0, atol=1e-6)
    assert found["currents_n"][:, 0].tolist() == [5, 5]


@pytest.mark.parametrize("T", [1, 4])
def test_frames_that_are_the_current_have_gain_1(T):
    """Each event frame is shown at one step; an image at every step."""
    layer, frames = LIF(1e-9, v_th=1.0, surrogate=StraightThrough()), torch.rand(5, T, 1, 2, 2)
    other, seen = (frames + 0.1).clamp_max(0.9), []
    for shown in (frames, other):
        with record(layer) as trace, torch.no_grad():
            layer(shown.transpose(0, 1).flatten(2))
        seen.append(dict(trace))
    found = layer_gains(other - frames, *seen)
    torch.testing.assert_close(found["currents"], torch.ones(1, 5).double(), rtol=1e-5, atol=0)


def test_factors_and_thresholds_scale_the_gain():
    found = Gain(FGSM(Linf(0.1)))(Stack(3.0, v_th=0.5), (X, Y))
    np.testing.assert_allclose(found["currents"][:, 0], 6, rtol=1e-6)


def test_by_hand():
    """One image, four pixels at 0.4, two of them moved to 0.6 over the threshold 0.5."""
    model = Stack(1.0, 2.0)
    x = torch.full((1, 1, 2, 2), 0.4)
    other = x.clone()
    other[0, 0, 0] = 0.6
    seen = []
    for image in (x, other):
        with record(model) as trace, torch.no_grad():
            model(image)
        seen.append(dict(trace))
    found = {name: gain.squeeze(1).tolist() for name, gain in layer_gains(other - x, *seen).items()}
    # change of the image: 0.2 in 2 pixels; of the spikes: 1 in 2 neurons at each of 3 steps
    assert found["currents"] == pytest.approx([2.0, 2 / 0.2 / 0.5], rel=1e-5)
    assert found["spikes"] == pytest.approx([5.0, 5.0], rel=1e-5)
    assert found["weights"] == pytest.approx([2.0, 4.0], rel=1e-5)
    assert found["neurons"] == pytest.approx([2.5, 0.25], rel=1e-5)


def test_a_silent_layer_has_gain_0_and_what_follows_is_not_defined():
    found = Gain(FGSM(Linf(0.1)))(Stack(1.0, 1.0, v_th=50.0), (X, Y))
    assert found["spikes"].max() == 0 and found["neurons"][:, 0].max() == 0
    assert np.isnan(found["weights"][:, 1]).all() and found["weights_n"][:, 1].tolist() == [0, 0]


def test_without_a_perturbation_no_gain_is_defined():
    found = Gain(FGSM(Linf(0.0)))(Stack(1.0), (X, Y))
    assert found["currents_n"].max() == 0 and np.isnan(found["currents"]).all()


def test_gains_multiply_along_the_network():
    """For one image the gain from the image is the product of those of all layers."""
    model = CNN(
        1, 3, T=3, width=3, hidden=6, image_size=8, neuron=LIF(0.9, v_th=0.3),
        generator=stream(0, "w"),
    ).eval()  # fmt: skip
    x = torch.rand(4, 1, 8, 8, generator=stream(0, "images"))
    found = Gain(FGSM(Linf(0.1)), limit=1)(model, (x, Y[:4]))
    product = (found["weights"] * found["neurons"]).cumprod(1)
    np.testing.assert_allclose(product, found["spikes"], rtol=1e-5)
