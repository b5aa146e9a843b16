"""Tests of require_outputs(): a look at two images that leaves no trace, and its errors."""

import pytest
import torch
from torch import nn

from spikeguard.data import ImageSet, Splits
from spikeguard.training.outputs import require_outputs


def splits(labels):
    part = ImageSet(torch.rand(len(labels), 1, 4, 4), torch.tensor(labels), 20, "one")
    return Splits(part, None, part, (0.0,), (1.0,))


def test_a_model_is_looked_at_without_a_trace():
    """Mode, statistics and the global generator stay as they are."""
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(), nn.Linear(16, 2))
    model[2].eval()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    images, seen = splits([0, 1, 0]), []
    drawn = torch.get_rng_state()
    model.register_forward_pre_hook(lambda m, x: seen.append((len(x[0]), m.training)))
    require_outputs(model, images, 0)
    assert seen == [(2, False)] and model.training and not model[2].training
    assert all(torch.equal(before[name], each) for name, each in model.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize(
    ("model", "labels", "error"),
    [
        (nn.Flatten(0), [0, 1], r"must return logits \[B, K\], K >= 2, for 2 inputs, got \[32\]"),
        (nn.Flatten(), [0, 16], "labels go up to 16, but the model has 16 classes"),
    ],
)
def test_outputs_that_do_not_fit_the_labels_are_rejected(model, labels, error):
    with pytest.raises(ValueError, match=f"^train: .*{error}"):
        require_outputs(model, splits(labels), 0)
