"""What a search sees on its way: one row a step, however often the step asks the model."""

import pytest
import torch

from spikeguard.attacks import PGD, EoT, Linf
from spikeguard.auditing import Context
from spikeguard.auditing.walks import walk
from spikeguard.models import MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import stream

X = torch.rand(5, 6, generator=stream(0, "x"))
Y = torch.tensor([0, 1, 2, 0, 1])
ONE, THREE = (PGD(Linf(0.1), steps=4, gradient=EoT(k)) for k in (1, 3))


@pytest.mark.parametrize("sigma", [0.0, 0.3], ids=["quiet", "noisy"])
@pytest.mark.parametrize(
    "attack",
    [PGD(Linf(0.1), steps=4), ONE, THREE, PGD(Linf(0.1), steps=4, gradient=EoT(2, EoT(3)))],
    ids=["no EoT", "1 draw", "3 draws", "nested"],
)
def test_a_walk_has_a_row_for_every_step(attack, sigma):
    neuron = NoisyLIF(0.5, sigma, v_th=0.3)
    model = MLP(6, 3, T=2, hidden=(8,), neuron=neuron, generator=stream(0, "w")).eval()
    seen = walk(Context(model, X, Y, Linf(0.1), batch_size=2), attack)
    assert seen.loss.shape == seen.right.shape == (4, 5)
    assert seen.end.shape == (5,)
