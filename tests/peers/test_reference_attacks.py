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
IMAGES = 50
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
    return model.eval(), (record["x"][:IMAGES], record["y"][:IMAGES]), record


@pytest.mark.parametrize("name", sorted(SURROGATE))
def test_pgd_10_leaves_what_the_independent_pgd_10_left(name):
    """Same step eps/4, other random starts: a few samples at the boundary may differ."""
    model, data, record = reference(name)
    attack = PGD(Linf(EPS), steps=10, step_size=EPS / 4)
    result = evaluate(model, data, {"pgd10": attack})
    assert torch.equal(result.outcomes["clean"].bool(), record["clean"][:IMAGES])
    theirs = record["pgd10"][:IMAGES]
    assert result.attacks["pgd10"].accuracy == pytest.approx(
        float(theirs.double().mean()), abs=0.06
    )
    assert int((result.outcomes["pgd10"].bool() != theirs).sum()) <= 5


def test_the_surrogate_sweep_unmasks_a_network_whose_gradient_is_hidden():
    """Its own surrogate of half-width 0.02 leaves above 90 %; other half-widths below 40 %."""
    model, data, _ = reference("masked")
    result = evaluate(model, data, suite("quick", eps=EPS))
    assert result.attacks["pgd10"].accuracy > 0.9
    assert result.worst_case.accuracy < 0.4
