"""Three networks that independent code trained: same weights, same images, same logits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spikeguard.models.feedforward import feedforward
from spikeguard.neurons import LIF, Triangular

FOLDER = Path(__file__).parents[3] / "shared" / "reference"
SURROGATE = {"natural": 1.0, "adversarial": 1.0, "masked": 0.02}

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the reference networks are not on this machine ({FOLDER})"
)


@pytest.fixture(params=SURROGATE)
def reference(request):
    """Return the network and its record: conv 12 - A - conv 24 - A - linear 64 - linear 10."""
    with np.load(FOLDER / f"{request.param}.npz") as file:
        record = {name: torch.from_numpy(file[name]) for name in file.files}
    model = feedforward(
        (12, "A", 24, "A"),
        (64,),
        in_shape=(1, 8, 8),
        num_classes=10,
        T=4,
        neuron=LIF(0.5, v_th=1.0, surrogate=Triangular(SURROGATE[request.param])),
        mean=(0.3,),
        std=(0.37,),
    )
    weights = {name[2:]: x for name, x in record.items() if name.startswith("w:")}
    normalisation = {"mean": model.mean, "std": model.std}
    model.load_state_dict({**weights, **normalisation}, strict=True)
    return model.eval(), record


def test_the_logits_are_those_of_the_independent_code(reference):
    model, record = reference
    with torch.no_grad():
        logits = model(record["x"])
    torch.testing.assert_close(logits, record["logits"], rtol=0, atol=1e-4)


def test_the_same_images_are_classified_right(reference):
    model, record = reference
    with torch.no_grad():
        right = model(record["x"]).argmax(1) == record["y"]
    assert torch.equal(right, record["clean"])


def test_the_comparison_is_sensitive(reference):
    """A strict threshold, a leak of 0.51 or no normalisation would be seen."""
    model, record = reference
    for change in ("v_th", "decay", "std"):
        if change == "std":
            model.std.fill_(0.36)
        for neuron in (m for m in model.modules() if isinstance(m, LIF)):
            neuron.v_th = 1.01 if change == "v_th" else 1.0
            neuron.decay = 0.51 if change == "decay" else 0.5
        with torch.no_grad():
            assert (model(record["x"]) - record["logits"]).abs().max() > 1e-2
