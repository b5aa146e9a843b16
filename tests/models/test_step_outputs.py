"""The outputs of the time steps: their mean is the logits, and they are those of one pass."""

import pytest
import torch
from torch import nn

from spikeguard.models import CNN, SEWResNet
from spikeguard.models.step_outputs import collect_steps, spiking_network
from spikeguard.rng import stream

X = torch.rand(3, 1, 8, 8, generator=stream(0, "x"))


@pytest.mark.parametrize("readout", ["logits", "rate"])
def test_the_mean_of_the_steps_is_the_logits(readout):
    model = CNN(1, 3, T=4, width=2, hidden=4, image_size=8, readout=readout).eval()
    with collect_steps(model) as found:
        logits = model(X)
    assert found[0].shape == (4, 3, 3)
    assert torch.equal(found[0].mean(0), logits)
    model(X)
    assert len(found) == 1  # nothing is collected after the block


def test_a_network_inside_another_module_is_found_and_other_modules_are_rejected():
    inner = SEWResNet(num_classes=3, T=2, depth=18, in_channels=1, width=0.05)
    assert spiking_network(nn.Sequential(inner)) is inner
    with (
        pytest.raises(ValueError, match=r"contains no spikeguard.models network"),
        collect_steps(nn.Linear(2, 2)),
    ):
        pass
