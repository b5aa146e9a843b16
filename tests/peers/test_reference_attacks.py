"""Our attacks on networks that independent code trained and attacked: the same numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spikeguard.attacks import PGD, Linf, suite
from spikeguard.evaluation import evaluate
from spikeguard.models.feedforward import feedforward
from spikeguard.neurons import LIF, Triangular

FOLDER = Path(__file__).parents[3] / "shared" / "reference"
SURROGATE = {"natural": 1.0, "adversarial": 1.0, "masked": 0.02}
EPS = 0.1

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the reference networks are not on this machine ({FOLDER})"
)


def reference(name):
    """Return the network with the surrogate an attacker is handed, its images and its record."""
    with np.load(FOLDER / f"{name}.npz") as file:
        record = {key: torch.from_numpy(file[key]) for key in file.files}
    model = feedforward(
        (12, "A", 24, "A"),
        (64,),
        in_shape=(1, 8, 8),
        num_classes=10,
        T=4,
        neuron=LIF(0.5, v_th=1.0, surrogate=Triangular(SURROGATE[name])),
        mean=(0.3,),
        std=(0.37,),
    )
    weights = {key[2:]: value for key, value in record.items() if key.startswith("w:")}
    model.load_state_dict({**weights, "mean": model.mean, "std": model.std}, strict=True)
    return model.eval(), (record["x"], record["y"]), record


@pytest.mark.parametrize("name", sorted(SURROGATE))
def test_pgd_10_leaves_what_the_independent_pgd_10_left(name):
    """Same step eps/4 from other random starts: 200 images agree to four points."""
    model, data, record = reference(name)
    result = evaluate(model, data, {"pgd10": PGD(Linf(EPS), steps=10, step_size=EPS / 4)})
    assert torch.equal(result.outcomes["clean"].bool(), record["clean"])
    theirs = float(record["pgd10"].double().mean())
    assert result.attacks["pgd10"].accuracy == pytest.approx(theirs, abs=0.04)


def test_the_default_step_is_theirs():
    assert PGD(Linf(EPS)).steps == 10  # 2.5 eps / 10 = eps / 4
    model, data, _ = reference("natural")
    attacks = [PGD(Linf(EPS), step_size=step, random_start=False) for step in (None, EPS / 4)]
    first, second = (attack(model, *data) for attack in attacks)
    assert torch.equal(first, second)


def test_the_surrogate_sweep_unmasks_a_network_whose_gradient_is_hidden():
    """Its own surrogate of half-width 0.02 leaves above 90 %; other half-widths below 40 %."""
    model, (x, y), _ = reference("masked")
    data = x[:50], y[:50]
    result = evaluate(model, data, suite("quick", eps=EPS))
    assert result.attacks["pgd10"].accuracy > 0.9
    assert result.worst_case.accuracy < 0.4
