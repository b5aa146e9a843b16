"""Three networks that independent code trained: same weights, same images, same logits."""

import pytest
import torch

from spikeguard.neurons import LIF
from tests.peers.networks import SURROGATE, load, needs_networks

pytestmark = needs_networks


@pytest.fixture(params=SURROGATE)
def reference(request):
    return load(request.param)


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
