"""Trajectories have one row per step, however often a step calls the model."""

from dataclasses import replace

import pytest
import torch

from spikeguard.attacks import APGD, ASSG, L1, L2, PGD, SAPGD, SUITES, EoT, Linf, suite
from spikeguard.auditing import Context
from spikeguard.auditing.measurements.trajectories import unseen, walk
from spikeguard.auditing.registry import CHECKS
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF
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


NAMED = {name: attack for each in SUITES for name, attack in suite(each, eps=0.1, steps=4).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_named_attack_can_be_the_reported_one(name):
    """G10 and G11 judge its trajectory, or state why it has none; neither raises."""
    attack = NAMED[name]
    if hasattr(attack, "queries"):
        attack = replace(attack, queries=20)
    model = MLP(
        num_classes=4, T=2, hidden=(6,), in_shape=(1, 3, 3), readout="rate", neuron=LIF(0.5)
    ).eval()
    x = torch.rand(6, 1, 3, 3, generator=stream(0, "x"))
    subject = Context(model, x, torch.arange(6) % 4, Linf(0.1), budget="quick", attack=attack)
    for code in ("G10", "G11"):
        found = CHECKS[code](subject)
        assert found.status in ("pass", "fail", "open", "does not apply"), found.measured
        assert (unseen(attack) is None) or found.status == "does not apply"
    if unseen(attack) is None:
        assert len(walk(subject, attack).loss) in (attack.steps, attack.steps + 1)


def test_under_noise_the_last_look_of_sa_pgd_is_no_step():
    attack = SAPGD(Linf(0.1), steps=6, gradient=EoT(3, ASSG()))
    model = MLP(6, 3, T=2, hidden=(8,), neuron=NoisyLIF(0.5, 0.3), generator=stream(0, "w")).eval()
    subject = Context(model, X, Y, Linf(0.1), attack=attack)
    assert walk(subject, attack).loss.shape == (6, 5)
    assert CHECKS["G10"](subject).status != "not run"


@pytest.mark.parametrize("norm", [L1, L2, Linf])
def test_apgd_is_not_blamed_for_where_it_begins_under_l1(norm):
    """Its first searches run in larger balls; adversarial inputs there are rightly discarded."""
    attack = APGD(norm(0.5), steps=30)
    model = MLP(num_classes=4, T=2, hidden=(6,), in_shape=(1, 3, 3), neuron=LIF(0.5)).eval()
    x = torch.rand(40, 1, 3, 3, generator=stream(0, "x"))
    subject = Context(model, x, model(x).argmax(1), norm(0.5), attack=attack)
    assert CHECKS["G11"](subject).status != "fail"
    assert (CHECKS["G11"](subject).status == "does not apply") == (norm is L1)
