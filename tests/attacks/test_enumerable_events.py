"""Attacks on events against enumerations of all inputs of their threat set."""

from functools import cache
from itertools import combinations, product

import pytest
import torch

from spikeguard.attacks import (
    FGSM,
    PGD,
    SDA,
    Edits,
    EventGreedy,
    Flips,
    RawEvents,
    Retiming,
    SpikeCompatible,
    SpikeFool,
    SpikeRetiming,
)
from spikeguard.rng import SampleStreams, stream
from tests.toys.event_networks import EventNet, LinearEvents, event_grids

SHAPE, SEEDS, MOST = (3, 1, 3, 3), range(3), 3


def fewest_flips(model, x, y):
    """Return the fewest flips that fool the model, by enumeration; MOST + 1 if there are more."""
    for count in range(1, MOST + 1):
        places = torch.tensor(list(combinations(range(x.numel()), count)))
        points = x.flatten().repeat(len(places), 1)
        points.scatter_(1, places, 1 - points.gather(1, places))
        if bool((model(points.view(-1, *x.shape)).argmax(1) != y).any()):
            return count
    return MOST + 1


@cache
def spiking_cases():
    """Return networks with their grids, labels and fewest flips."""
    cases = []
    for seed in SEEDS:
        model = EventNet(channels=1, size=3, width=4, classes=3, seed=seed).eval()
        x = event_grids(12, SHAPE, seed=seed + 100)
        y = model(x).argmax(1)
        least = torch.tensor([fewest_flips(model, g, label) for g, label in zip(x, y, strict=True)])
        cases.append((model, x, y, least))
    return cases


def found_share(build, below=0):
    """Return the share of samples that an attack fools with the fewest flips, less ``below``."""
    hits = total = 0
    for seed, (model, x, y, least) in enumerate(spiking_cases()):
        for count in range(1, MOST + 1):
            at = (least == count).nonzero()[:, 0]
            if len(at):
                attack = build(Flips(count - below))
                found = attack(model, x[at], y[at], generator=SampleStreams(seed, at))
                hits += int((model(found).argmax(1) != y[at]).sum())
                total += len(at)
    assert total >= 20
    return hits / total


SEARCHES = {
    "greedy": EventGreedy,
    "spike-compatible": SpikeCompatible,
    "sda": lambda threat: SDA(threat, steps=6),
    "spikefool": SpikeFool,
    "raw-events": lambda threat: RawEvents(threat, steps=50, reach=3),
}
SHARE = {"greedy": 0.4, "spike-compatible": 0.5, "sda": 0.85, "spikefool": 0.4, "raw-events": 0.85}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_spiking_network_is_fooled_with_the_fewest_flips(name):
    """The searches are heuristics: each finds the optimum of the enumeration for a share."""
    assert found_share(SEARCHES[name]) >= SHARE[name]


@pytest.mark.parametrize("name", SEARCHES)
def test_no_search_needs_fewer_flips_than_the_enumeration(name):
    assert found_share(SEARCHES[name], below=1) == 0


@pytest.mark.parametrize("kind", [Flips, Edits])
@pytest.mark.parametrize("name", ["fgsm", "pgd", *SEARCHES])
@pytest.mark.parametrize("seed", range(3))
def test_a_linear_model_is_fooled_with_the_fewest_flips(name, kind, seed):
    """The fewest flips of a linear model are those of largest gain; all attacks find them."""
    shape = (3, 1, 3, 3)
    w, x = torch.randn(shape, generator=stream(seed, "w")), event_grids(1, shape, seed=seed)
    gain = (w * (1 - 2 * x[0])).flatten().sort(descending=True).values
    for count in (1, 2, 4):
        between = (gain[:count].sum() + gain[: count - 1].sum()) / 2
        model = LinearEvents(w, float((w * x[0]).sum() + between))
        build = {"fgsm": FGSM, "pgd": PGD, **SEARCHES}[name]
        if name == "spike-compatible":
            build = lambda threat: SpikeCompatible(threat, steps=200)  # noqa: E731
        if name == "raw-events":
            build = lambda threat: RawEvents(threat, steps=200, reach=3)  # noqa: E731
        y = torch.zeros(1, dtype=torch.int64)
        found = build(kind(count))(model, x, y, generator=stream(0, "attack"))
        assert model(found).argmax(1) != y
        if count > 1:
            less = build(kind(count - 1))(model, x, y, generator=stream(0, "attack"))
            assert model(less).argmax(1) == y


@pytest.mark.parametrize("budget", [1, 2])
def test_a_larger_budget_never_fools_fewer_linear_models(budget):
    """The exact searches are monotone in their budget: their sets are nested."""
    x = event_grids(20, SHAPE, seed=3)
    w = torch.randn(SHAPE, generator=stream(3, "w"))
    y = torch.zeros(20, dtype=torch.int64)
    model = LinearEvents(w, 2.0)
    for build in (FGSM, EventGreedy):
        small, large = (
            (build(Flips(each))(model, x, y) * w).flatten(1).sum(1) for each in (budget, budget + 1)
        )
        wrong = model(x).argmax(1) != y
        assert ((large >= small - 1e-6) | (small > 2.0) | wrong).all()


RETIMED = (4, 1, 2, 2)


@cache
def every_retimed():
    return torch.tensor(list(product((0.0, 1.0), repeat=16))).view(-1, *RETIMED)


@pytest.mark.parametrize(
    ("threat", "share"),
    [(Retiming(1), 0.75), (Retiming(3, total=2), 0.85), (Retiming(2, moved=2), 0.75)],
    ids=["shift", "total", "moved"],
)
def test_retiming_finds_most_samples_that_any_retiming_fools(threat, share):
    """The possible samples are found by enumerating all grids with the same lines."""
    hits = total = 0
    for seed in range(2):
        model = EventNet(channels=1, size=2, width=4, classes=3, seed=seed).eval()
        x = event_grids(12, RETIMED, seed=seed + 50, share=0.4)
        y = model(x).argmax(1)
        possible = []
        for grid, label in zip(x, y, strict=True):
            same = (every_retimed().sum(1) == grid.sum(0)).flatten(1).all(1)
            wrong = every_retimed()[same]
            wrong = wrong[model(wrong).argmax(1) != label]
            possible.append(any(threat.contains(each[None], grid[None]) for each in wrong))
        at = torch.tensor(possible).nonzero()[:, 0]
        attack = SpikeRetiming(threat, restarts=20)
        found = attack(model, x, y, generator=SampleStreams(seed, torch.arange(12)))
        fooled = model(found).argmax(1) != y
        assert not (fooled & ~torch.tensor(possible)).any(), "found outside the enumeration"
        hits, total = hits + int(fooled[at].sum()), total + len(at)
    assert total >= 10
    assert hits / total >= share


def test_retiming_of_a_linear_model_finds_the_optimum():
    x = event_grids(4, (4, 1, 2, 2), seed=5)
    w = torch.randn(x.shape[1:], generator=stream(5, "w"))
    y = torch.zeros(4, dtype=torch.int64)
    threat = Retiming(2)
    best = (threat.project(x + threat.steepest(w.expand_as(x)), x) * w).flatten(1).sum(1)
    for row in range(4):
        model = LinearEvents(w, float(best[row]) - 1e-3)
        attack = SpikeRetiming(threat, steps=100, restarts=5)
        found = attack(model, x[row : row + 1], y[:1], generator=stream(0, "attack"))
        assert model(found).argmax(1) != y[:1]
