"""The analysis of zeros: shares by role, intervals, and what the report shows."""

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.analysis import Measurement, Zeros
from spikeguard.rng import stream
from tests.toys.known_gradients import linear_network

X = torch.rand(6, 1, 4, 4, generator=stream(0, "x"))
Y = torch.arange(6) % 2


def test_known_shares_by_operation_and_weight():
    model = linear_network(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]), pool=nn.MaxPool2d(2))
    found = Zeros(weights=4)(model, (X, Y), batch_size=4)
    assert found["role"].tolist() == ["image", "pooling", "other", "linear"]
    assert found["zeros"].tolist() == [0.75, 0.75, 0, 0]
    assert found["zeros_interval"][:2].tolist() == [[0.75, 0.75]] * 2  # the same in all images
    assert found["zeros_interval"][2].tolist() == pytest.approx([0, 0.3903], abs=1e-4)  # 0 of 6
    assert found.axes["weight"].tolist() == ["2.weight"]
    assert found["weight_zeros"].tolist() == [0]
    assert (found.samples, int(found["weight_images"])) == (6, 4)
    (row,) = Zeros.table({"max": found}).rows
    assert row[1] == "75.0 % [75.0, 75.0]" and row[5] == "75 to 75 %"


def test_the_interval_of_the_norm_is_that_of_the_images():
    model = linear_network(torch.randn(2, 16, generator=stream(0, "w")))
    found = Zeros()(model, (X, Y))
    x = X.clone().requires_grad_()
    nn.functional.cross_entropy(model(x), Y, reduction="sum").backward()
    norms = x.grad.flatten(1).norm(dim=1).numpy()
    half = 1.959964 * norms.std(ddof=1) / np.sqrt(6)
    assert found["norm"][0] == pytest.approx(norms.mean())
    assert found["norm_interval"][0] == pytest.approx(
        [norms.mean() - half, norms.mean() + half], rel=1e-5
    )


def test_a_network_without_weights_is_measured_without_them():
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat = nn.Flatten()

        def forward(self, x):
            flat = self.flat(x)
            return torch.stack([flat[:, :8].mean(1), flat[:, 8:].mean(1)], 1)

    found = Zeros()(Means(), (X, Y))
    assert found["weight_zeros"].shape == (0,)
    assert Zeros.table({"a": found}).rows[0][-1] == "–"
    assert [plot.name for plot in Zeros.plots({"a": found})] == ["zeros", "near", "norm"]


def test_the_share_of_all_weights_counts_their_entries():
    """36 entries without a zero and 16,384 that the logits do not use: 16,384 of 16,420."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(9, 4), nn.Linear(128, 128)

        def forward(self, x):
            return self.used(0.1 + x.flatten(1)[:, :9])

    found = Zeros(weights=2)(Half(), (X, Y))
    assert found["weight_zeros"].tolist() == [0, 1]
    assert found["weight_entries"].tolist() == [36, 128**2]
    (plot,) = [plot for plot in Zeros.plots({"a": found}) if plot.name == "weight-zeros"]
    assert plot.summary == "Exact zeros among the entries of all weights, 2 images: a 99.8 %"
    kept = {
        name: (found[name], q.axes, q.unit, q.about)
        for name, q in found.quantities.items()
        if name != "weight_entries"
    }
    earlier = Measurement.of(found.analysis, found.settings, found.samples, found.axes, **kept)
    assert Zeros.plots({"a": earlier})[-1].summary.endswith("images: a -")


def test_mistakes_are_rejected():
    with pytest.raises(ValueError, match="weights is a number of images >= 1, got 0"):
        Zeros(weights=0)
    for near in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"near is a fraction in \[0, 1\)"):
            Zeros(near=near)
