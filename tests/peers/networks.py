"""Three small networks that independent code trained, rebuilt from our parts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spikeguard.models.feedforward import feedforward
from spikeguard.neurons import LIF, Triangular

FOLDER = Path(__file__).parents[3] / "shared" / "reference"
SURROGATE = {"natural": 1.0, "adversarial": 1.0, "masked": 0.02}
EPS = 0.1  # radius of all recorded attacks
# The lowest accuracy that is known of independent attacks: on `natural` and `adversarial` APGD-CE
# and APGD-T with half-width 0.5, on `masked` PGD with half-width 1
STRONGEST = {"natural": 0.02, "adversarial": 0.485, "masked": 0.17}

needs_networks = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the reference networks are not on this machine ({FOLDER})"
)


def load(name):
    """Return the network with the surrogate given to the attacker, and its record.

    Conv 12 - A - conv 24 - A - linear 64 - linear 10, in evaluation mode.
    """
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
    return model.eval(), record
