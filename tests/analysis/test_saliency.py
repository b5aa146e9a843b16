"""Maps of the input gradient: the gradient itself, and the share of pixels that hold half of it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.analysis import Saliency, half_share
from spikeguard.analysis.base import NotApplicable
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream
from tests.toys.known_gradients import two_logits

W = torch.tensor([3.0, -1, 0.5, 2, 0, -0.25, 1, 4])
DATA = 0.3 + 0.4 * torch.rand(6, 1, 2, 4, generator=stream(0, "x")), torch.zeros(6).long()


def test_half_share_of_known_gradients():
    one = torch.zeros(1, 2, 4)
    one[0, 0, 1] = -3.0
    equal = torch.ones(1, 2, 4)
    steps = torch.tensor([[[8.0, 4, 2, 1], [1, 0, 0, 0]]])
    found = half_share(torch.stack([one, equal, steps, torch.zeros(1, 2, 4)]))
    assert found[:3].tolist() == [1 / 8, 1 / 2, 1 / 8]  # 8 of 16 is half
    assert math.isnan(found[3])


def test_channels_are_added_without_their_signs():
    both = torch.zeros(1, 2, 1, 4)
    both[0, 0, 0, 0], both[0, 1, 0, 0], both[0, 0, 0, 1] = 1.0, -1.0, 1.5
    assert half_share(both).item() == 1 / 4


def test_the_map_is_the_gradient_of_the_cross_entropy():
    model, (x, y) = two_logits(W), DATA
    found = Saliency(show=2)(model, (x, y), batch_size=4)
    p = torch.sigmoid(x.flatten(1) @ W)  # of the true class, by the softmax of (w x, 0)
    expected = (1 - p[:2, None]) * W.abs()
    np.testing.assert_allclose(found["gradient"].reshape(2, 8), expected.numpy(), rtol=1e-4)
    np.testing.assert_allclose(found["norm"], ((1 - p) * W.norm()).numpy(), rtol=1e-4)
    assert found["zeros"].tolist() == [1 / 8] * 6
    assert found["half"].tolist() == [2 / 8] * 6  # 4 + 3 of 11.75
    np.testing.assert_array_equal(found["pixels"], x[:2].mean(1).numpy())


def test_images_without_a_gradient_are_counted_and_left_empty():
    neuron = nn.Sequential(nn.Flatten(), LIF(0.5, surrogate=Triangular(1e-6)), nn.Linear(8, 2))

    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.neuron, self.last = neuron

        def forward(self, x):
            return self.last(self.neuron(self.flat(x)[None])[0])

    found = Saliency(show=2)(Once(), DATA)
    assert np.isnan(found["half"]).all() and found["zeros"].tolist() == [1.0] * 6
    assert Saliency.table({"a": found}).rows[0][-1] == "6"
    plots = Saliency.plots({"a": found})
    assert [plot.name for plot in plots] == ["images", "map-0"]
    assert np.isnan(plots[1].marks[0].grid).all()


def test_all_networks_have_one_scale_and_the_images_are_grey():
    model, weak = two_logits(W), two_logits(W / 100)
    found = {"strong": Saliency(show=3)(model, DATA), "weak": Saliency(show=3)(weak, DATA)}
    images, *maps = [plot.marks[0] for plot in Saliency.plots(found)]
    assert images.grey and images.image and (images.low, images.high) == (0, 1)
    assert (maps[0].low, maps[0].high) == (maps[1].low, maps[1].high)
    assert max(np.nanmax(heat.grid) for heat in maps) == pytest.approx(maps[0].high, abs=1e-3)
    assert maps[0].grid.shape == (2, 3 * 4 + 2)
    assert "classes 0, 0, 0" in Saliency.plots(found)[0].title


def test_flat_inputs_and_mistakes_are_rejected():
    model, (x, y) = two_logits(W), DATA
    with pytest.raises(NotApplicable, match="flat vectors"):
        Saliency()(model, (x.flatten(1), y))
    with pytest.raises(ValueError, match="show is a number of images >= 1, got 0"):
        Saliency(show=0)
