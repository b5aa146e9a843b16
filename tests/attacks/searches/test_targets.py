"""The targets of targeted searches: every other class once, also against noise."""

import pytest
import torch

from spikeguard.attacks import APGD, FAB, MTPGD, EoT, Linf
from spikeguard.attacks.searches import restarts
from spikeguard.models import MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import SampleStreams, stream

N, CLASSES = 12, 6
ATTACKS = {
    "mtpgd": MTPGD(Linf(1e-4), steps=2, targets=0, gradient=EoT(2)),
    "fab": FAB(Linf(1e-4), steps=2, targets=CLASSES - 1, gradient=EoT(2)),
    "apgd-t": APGD(Linf(1e-4), steps=2, targets=CLASSES - 1, gradient=EoT(2)),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_other_class_is_a_target_once_against_noise(monkeypatch, name):
    """Each rank is a place in one ranking of the sample, whatever is drawn between two targets."""
    neuron = NoisyLIF(0.5, 0.5, v_th=0.3)
    model = MLP(16, CLASSES, T=3, hidden=(16,), neuron=neuron, generator=stream(0, "w")).eval()
    x = torch.rand(N, 16, generator=stream(0, "x"))
    with torch.no_grad():  # no sample is misclassified in every draw, so none ends early
        y = sum(model(x) for _ in range(20)).argmax(1)
    chosen, real = [], restarts.runner_up

    def spy(logits, y, rank):
        chosen.append(real(logits, y, rank))
        return chosen[-1]

    monkeypatch.setattr(restarts, "runner_up", spy)
    ATTACKS[name](model, x, y, generator=SampleStreams(0, torch.arange(N)))
    whole = torch.stack([each for each in chosen if len(each) == N])
    for number in range(N):
        others = set(range(CLASSES)) - {int(y[number])}
        assert sorted(whole[:, number].tolist()) == sorted(others)
