"""Projections and random starts of the threat sets on events, against enumerations."""

from itertools import product

import pytest
import torch

from spikeguard.attacks import Counts, Edits, Flips, Retiming
from spikeguard.rng import SampleStreams, stream


def grids(shape, values):
    """Return every grid of a shape with entries among ``values`` [N, 1, *shape]."""
    size = torch.tensor(shape).prod()
    every = torch.tensor(list(product(values, repeat=int(size))), dtype=torch.float32)
    return every.view(-1, *shape)


def points(x, seed, scale=1.5):
    return x + scale * torch.randn(x.shape, generator=stream(seed, "point"))


CASES = {
    **{f"flips{k}": (Flips(k), (2, 1, 2, 2), (0, 1)) for k in (0, 1, 2, 3, 8)},
    **{f"edits{k}": (Edits(k), (2, 2, 1, 2), (0, 1)) for k in (0, 1, 2, 3, 4, 5, 8)},
    "edits one channel": (Edits(2), (2, 1, 2, 2), (0, 1)),
    **{f"counts{k}": (Counts(k), (3, 1, 1, 1), range(10)) for k in (0, 1, 2, 3, 7)},
    "shift1": (Retiming(1), (4, 1, 1, 2), (0, 1)),
    "shift2": (Retiming(2), (4, 1, 1, 2), (0, 1)),
    **{f"total{k}": (Retiming(3, total=k), (4, 1, 1, 2), (0, 1)) for k in (0, 1, 2, 4)},
    **{f"moved{k}": (Retiming(2, moved=k), (4, 1, 1, 2), (0, 1)) for k in (0, 1, 2, 3)},
    "all limits": (Retiming(2, total=3, moved=2), (4, 1, 1, 2), (0, 1)),
    "retimed counts": (Retiming(1, total=3), (3, 1, 1, 2), range(3)),
}


@pytest.mark.parametrize("case", CASES)
def test_projection_is_the_nearest_point_of_an_enumerated_set(case):
    threat, shape, values = CASES[case]
    every = grids(shape, values)
    clean = every[torch.randperm(len(every), generator=stream(0, "clean"))[:8]].clamp_max(3)
    allowed = [[g for g in every if threat.contains(g[None], x[None])] for x in clean]
    for seed in range(3):
        point = points(clean, seed)
        found = threat.project(point, clean)
        threat.check(found, clean)
        for some, z, near in zip(allowed, point, found, strict=True):
            best = min(float((g.double() - z.double()).square().sum()) for g in some)
            assert float((near.double() - z.double()).square().sum()) == pytest.approx(best)


@pytest.mark.parametrize("case", CASES)
def test_a_steepest_step_reaches_the_linear_optimum(case):
    """max <w, x'> over the set, enumerated; the step may be short or long."""
    threat, shape, values = CASES[case]
    every = grids(shape, values if threat.norm != "counts" else range(10))
    x = grids(shape, values)[1:60:12].clamp_max(1)
    w = torch.randn(x.shape, generator=stream(1, "w"))
    allowed = [torch.stack([g for g in every if threat.contains(g[None], c[None])]) for c in x]
    for length in (0.01, 30.0):
        found = threat.project(x + length * threat.steepest(w), x)
        for some, direction, near in zip(allowed, w, found, strict=True):
            best = (some * direction).flatten(1).sum(1).max()
            torch.testing.assert_close((near * direction).sum(), best)


@pytest.mark.parametrize("case", CASES)
def test_samples_are_in_the_set_and_depend_on_their_stream_alone(case):
    threat, shape, values = CASES[case]
    x = grids(shape, values)[::7][:20].clamp_max(3)
    ids = torch.arange(len(x)) + 5
    found = threat.sample(x, SampleStreams(3, ids))
    threat.check(found, x)
    other = threat.sample(x[3:6], SampleStreams(3, ids[3:6]))
    assert torch.equal(other, found[3:6])


@pytest.mark.parametrize("case", CASES)
def test_projection_keeps_points_of_the_set_and_each_row_for_itself(case):
    threat, shape, values = CASES[case]
    x = grids(shape, values)[::5][:30].clamp_max(3)
    inside = threat.sample(x, SampleStreams(0, torch.arange(len(x))))
    assert torch.equal(threat.project(inside, x), inside)
    point = points(x, 7)
    together = threat.project(point, x)
    alone = torch.cat([threat.project(p[None], c[None]) for p, c in zip(point, x, strict=True)])
    assert torch.equal(alone, together)


def test_many_counts_far_away():
    """A total of 1,000 spread over entries of very different distance."""
    x = torch.zeros(1, 2, 1, 1, 2)
    found = Counts(1000).project(x + torch.tensor([900.2, 400.4, 0.4, -3.0]).view(x.shape), x)
    assert found.flatten().tolist() == [750, 250, 0, 0]
