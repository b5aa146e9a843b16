"""Thirty small spiking networks, 20 images each, and for every image whether it can be attacked.

``python -m tests.toys.exact_networks`` trains the networks that are not stored yet, computes the
answers and writes ``exact_networks.npz``. For each network it takes the first radius at which at
least a fifth of the images are robust, at least a fifth are right but not robust, and no image is
ambiguous. No attack has a say in this choice. Weights are stored because training gives other bits
on other processors.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikeguard.models import MLP
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream
from tests.toys.exact_robustness import Exact
from tests.toys.fitting import fitted

STORED = Path(__file__).with_suffix(".npz")
IMAGES, CLASSES, EPOCHS = 20, 4, 20
RADII = (0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)
SPREAD = 0.1  # of the images of a cluster, in pixels


@dataclass(frozen=True)
class Shape:
    """Inputs, hidden widths, time steps, decay and threshold of a network."""

    pixels: int
    hidden: tuple[int, ...]
    T: int
    decay: float
    v_th: float = 1.0

    def network(self, seed=0):
        """Return the network, untrained."""
        return MLP(
            in_shape=(self.pixels,),
            num_classes=CLASSES,
            T=self.T,
            hidden=self.hidden,
            neuron=LIF(self.decay, self.v_th, surrogate=Triangular(1.0)),
            mean=(0.5,),
            std=(0.25,),
            generator=stream(seed, "weights"),
        ).eval()


SHAPES = (
    Shape(2, (12,), 4, 0.5),
    Shape(3, (12,), 6, 0.9),
    Shape(4, (8, 8), 3, 0.5),
    Shape(4, (12,), 5, 1.0),
    Shape(5, (8, 8, 8), 4, 0.8),
    Shape(6, (16,), 2, 0.5),
    Shape(8, (12, 8), 4, 0.5),
    Shape(8, (10, 10), 6, 0.25, 0.5),
    Shape(9, (12, 8, 8), 3, 0.9),
    Shape(10, (16,), 4, 0.75),
    Shape(12, (12, 12), 5, 0.5),
    Shape(12, (10, 8, 6), 4, 1.0),
    Shape(14, (16,), 3, 0.5, 0.5),
    Shape(16, (16,), 4, 0.5),
    Shape(16, (12, 12), 4, 0.5),
    Shape(16, (16, 8), 2, 0.8),
    Shape(16, (12, 8, 8), 6, 0.5),
    Shape(16, (16, 8, 8), 4, 0.9),
    Shape(18, (12, 12, 12), 3, 0.75),
    Shape(20, (14, 10), 4, 0.6),
    Shape(3, (8, 8, 8), 5, 0.6),
    Shape(5, (14,), 6, 0.8),
    Shape(7, (10, 8), 3, 0.9, 0.5),
    Shape(8, (10, 8, 8), 4, 0.6),
    Shape(10, (12, 10), 2, 0.5),
    Shape(12, (16,), 6, 0.6),
    Shape(14, (10, 10), 3, 1.0),
    Shape(16, (14, 8), 5, 0.75),
    Shape(18, (12, 8, 8), 2, 0.9),
    Shape(20, (16,), 3, 0.25),
)


@dataclass(frozen=True)
class Known:
    """A network, its images [N, D] and labels, the radius, and the truth about every image.

    ``points`` holds an adversarial image where ``robust`` is False, and the image itself elsewhere.
    ``room`` is the distance of that point to the next change of a first-layer spike, in pixels.
    """

    model: MLP
    x: Tensor
    y: Tensor
    eps: float
    robust: Tensor
    points: Tensor
    room: Tensor


def drawn(pixels, seed):
    """Return training and test images of three clusters for each class."""
    generator = stream(seed, "images")
    centres = torch.rand(3 * CLASSES, pixels, generator=generator)

    def images(count):
        cluster = torch.randint(3 * CLASSES, (count,), generator=generator)
        noise = torch.randn(count, pixels, generator=generator)
        return (centres[cluster] + SPREAD * noise).clamp(0, 1), cluster % CLASSES

    return images(512), images(IMAGES)


def answers(model, x, y, eps):
    """Return the verdict of the oracle on every image."""
    exact = Exact(model)
    return [
        exact.decide(image, label, eps)
        for image, label in zip(x.double().numpy(), y.tolist(), strict=True)
    ]


def made(number):
    """Train a network and return it with the truth, as arrays."""
    shape = SHAPES[number]
    train, (x, y) = drawn(shape.pixels, number)
    model = fitted(shape.network(number), train, EPOCHS, stream(number, "order"))
    right = model(x).argmax(1) == y
    for eps in RADII:
        found = answers(model, x, y, eps)
        robust = torch.tensor([each.adversarial is False for each in found])
        clear = all(each.adversarial is not None for each in found)
        if clear and min(robust.sum(), (right & ~robust).sum()) >= IMAGES // 5:
            break
    else:
        raise RuntimeError(f"network {number}: no radius divides the images; change its shape")
    points = [x[i].numpy() if each.x is None else each.x for i, each in enumerate(found)]
    weights = {f"weights/{name}": value for name, value in model.state_dict().items()}
    truth = {"x": x, "y": y, "robust": robust}
    return {name: value.numpy() for name, value in (weights | truth).items()} | {
        "eps": np.array(eps),
        "points": np.array(points, dtype=np.float32),
        "room": np.array([each.room for each in found]),
    }


@cache
def known(number):
    """Read a stored network and its truth."""
    with np.load(STORED) as archive:
        prefix = f"{number}/"
        arrays = {k.removeprefix(prefix): archive[k] for k in archive if k.startswith(prefix)}
    state = {k.removeprefix("weights/"): torch.from_numpy(v) for k, v in arrays.items() if "/" in k}
    model = SHAPES[number].network()
    model.load_state_dict(state)
    eps = float(arrays["eps"])
    rest = {k: torch.from_numpy(arrays[k]) for k in ("x", "y", "robust", "points", "room")}
    return Known(model, eps=eps, **rest)


def main():
    """Make and store the networks that are not stored yet."""
    arrays = {}
    if STORED.exists():
        with np.load(STORED) as archive:
            arrays = dict(archive)
    stored = {int(name.split("/")[0]) for name in arrays}
    for number in sorted(set(range(len(SHAPES))) - stored):
        found = made(number)
        arrays |= {f"{number}/{name}": value for name, value in found.items()}
        print(number, SHAPES[number], float(found["eps"]), f"{found['robust'].mean():.0%}")
    np.savez_compressed(STORED, **arrays)


if __name__ == "__main__":
    main()
