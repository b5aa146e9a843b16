"""The exact oracle against closed forms, against fine grids, and on planted adversarial regions."""

import numpy as np
import pytest
import torch

from spikeguard.models import MLP
from spikeguard.neurons import LIF
from spikeguard.rng import stream
from tests.toys.exact_networks import SHAPES, Shape, answers, drawn
from tests.toys.exact_robustness import Exact
from tests.toys.fitting import fitted
from tests.toys.linear_programs import proven_bound, roomiest

BOX = np.zeros(2), np.ones(2)


@pytest.mark.parametrize(
    ("rows", "limits", "room"),
    [
        ([[1.0, 1.0]], [1.0], 0.5),  # from the corner at zero, |a|_1 = 2
        ([[-1.0, -1.0]], [-1.8], 0.1),  # from the corner at one
        ([[-1.0, -1.0]], [-2.2], -0.1),  # none: the corner misses it by 0.2
        ([[1.0, 0.0], [-1.0, 0.0]], [0.6, -0.2], 0.2),  # between 0.2 and 0.6
        ([[1.0, 0.0], [-1.0, 0.0]], [0.2, -0.6], -0.2),  # none: the two exclude each other
        (np.zeros((0, 2)), np.zeros(0), 1.0),
    ],
)
def test_the_roomiest_point_has_its_closed_form(rows, limits, room):
    rows, limits = np.array(rows), np.array(limits)
    found = roomiest(rows, limits, *BOX)
    assert found.room == pytest.approx(room, abs=1e-12)
    assert found.bound == pytest.approx(room, abs=1e-12)


def test_random_programs_end_at_a_point_and_a_proof_that_agree():
    """Weak duality bounds every point, so a proof that meets a point shows that it is the best."""
    random, signs = np.random.default_rng(0), set()
    for size in (2, 5, 16):
        for _ in range(40):
            low = random.uniform(0, 0.8, size)
            high = low + 0.2
            rows = random.normal(size=(12, size))
            limits = rows @ random.uniform(low, high) + random.normal(0.1, 0.3, 12)
            found = roomiest(rows, limits, low, high)
            assert ((low <= found.x) & (found.x <= high)).all()
            proof = proven_bound(found.multipliers, rows, limits, low, high)
            assert found.room == pytest.approx(proof, abs=1e-9)
            signs.add(found.room > 0)
    assert signs == {True, False}


def planted(v_th, decay=0.5, T=3, pixels=16):
    """One neuron of current sum x, and class 1 where it fires at all."""
    model = MLP(in_shape=(pixels,), num_classes=2, T=T, hidden=(1,), neuron=LIF(decay, v_th))
    first, last = model.classifier[1], model.classifier[3]
    with torch.no_grad():
        first.weight.fill_(1.0)
        last.weight.copy_(torch.tensor([[0.0], [1.0]]))
        last.bias.copy_(torch.tensor([0.1, 0.0]))
    return model.eval()


@pytest.mark.parametrize(("T", "gain"), [(1, 1.0), (2, 1.5), (3, 1.75)])
def test_a_planted_corner_is_found_from_its_radius_on(T, gain):
    """It fires at step T if 16 (0.3 + eps) gain >= v_th: only in the last corner of the ball."""
    edge = 0.1
    exact = Exact(planted(16 * (0.3 + edge) * gain, T=T))
    x = np.full(16, 0.3)
    assert exact.decide(x, 0, edge - 1e-4).adversarial is False
    assert exact.decide(x, 0, edge).adversarial is None
    found = exact.decide(x, 0, edge + 1e-4)
    assert found.adversarial
    assert found.room == pytest.approx(1e-4, rel=1e-6)


def test_the_box_bounds_the_ball():
    """At x = 0.9 the largest mean is 1, whatever the radius."""
    x = np.full(16, 0.9)
    assert Exact(planted(16 * 1.75 * 1.001)).decide(x, 0, 0.5).adversarial is False
    assert Exact(planted(16 * 1.75 * 0.999)).decide(x, 0, 0.5).adversarial


def test_a_tie_of_logits_is_ambiguous():
    model = planted(1e3)
    with torch.no_grad():
        model.classifier[3].bias.zero_()
    assert Exact(model).decide(np.full(16, 0.5), 0, 0.1).adversarial is None


GRIDS = [
    (Shape(2, (12,), 4, 0.5), 0.08, 201),
    (Shape(2, (8, 8), 6, 0.9), 0.05, 201),
    (Shape(2, (8, 8, 8), 3, 0.75, 0.5), 0.05, 201),
    (Shape(3, (8, 6), 3, 0.5), 0.05, 31),
]


@torch.no_grad()
def wrong_on_grid(model, x, y, eps, points):
    """Return for each image whether a grid over ball and box holds a misclassified point."""
    found = []
    for image, label in zip(x, y, strict=True):
        axes = [torch.linspace(max(0, p - eps), min(1, p + eps), points) for p in image.tolist()]
        grid = torch.cartesian_prod(*axes)
        found.append(bool((model(grid.to(x.dtype)).argmax(1) != label).any()))
    return found


@pytest.mark.parametrize(("shape", "eps", "points"), GRIDS)
def test_fine_grids_agree(shape, eps, points):
    """A grid finds each region with more room than its step, and nothing where there is none."""
    train, (x, y) = drawn(shape.pixels, 1)
    model = fitted(shape.network(1), train, 8, stream(1, "order"))
    x, y = x[:12], model(x[:12]).argmax(1)
    found = answers(model, x, y, eps)
    seen = wrong_on_grid(model, x, y, eps, points)
    step = 2 * eps / (points - 1)
    for verdict, grid in zip(found, seen, strict=True):
        assert verdict.adversarial is not None
        assert verdict.adversarial or not grid
        assert grid or not (verdict.adversarial and verdict.room > step)
    assert {verdict.adversarial for verdict in found} == {True, False}


@pytest.mark.parametrize("fault", ["decay", "weight"])
def test_a_fault_of_the_oracle_is_seen_by_the_grid(fault):
    shape, eps, points = GRIDS[0]
    train, (x, y) = drawn(shape.pixels, 1)
    model = fitted(shape.network(1), train, 8, stream(1, "order"))
    y = model(x).argmax(1)
    other = Shape(shape.pixels, shape.hidden, shape.T, 0.8 if fault == "decay" else shape.decay)
    faulty = other.network()
    faulty.load_state_dict(model.state_dict())
    if fault == "weight":
        with torch.no_grad():
            faulty.classifier[-1].weight[:, 0] *= -1
    found = [verdict.adversarial for verdict in answers(faulty, x, y, eps)]
    seen = wrong_on_grid(model, x, y, eps, points)
    assert any(grid and not verdict for grid, verdict in zip(seen, found, strict=True))


def test_the_networks_are_as_various_as_they_should_be():
    assert len(set(SHAPES)) == 30
    assert {len(shape.hidden) for shape in SHAPES} == {1, 2, 3}
    assert {shape.T for shape in SHAPES} == {2, 3, 4, 5, 6}
    assert min(shape.pixels for shape in SHAPES) == 2
    assert sum(shape.pixels >= 16 for shape in SHAPES) >= 5
