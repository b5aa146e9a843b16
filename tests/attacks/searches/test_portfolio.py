"""The portfolio: which searches run on which model."""

import pytest
import torch
from torch import nn

from spikeguard.attacks.base import cost
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.searches.converging import Converging
from spikeguard.attacks.searches.portfolio import Entry, needed, portfolio
from spikeguard.attacks.suitability import suitable
from spikeguard.attacks.threat import L1, L2, Linf
from spikeguard.models import MLP
from spikeguard.rng import stream

SHARP = {"assg-cut", "climb", "assg-cut/margin", "assg-leak", "apgd/assg-cut/margin"}


def names(model, x, threat=Linf(0.1)):  # noqa: B008
    entries = portfolio(threat)
    kept, _ = suitable({n: e.build(0, 0.0) for n, e in entries.items()}, model, x)
    return set(needed({n: entries[n] for n in kept}))


def test_an_entry_leaves_only_beside_the_one_it_names():
    first, second = Entry(lambda pull, spent: None, 0.1), Entry(lambda pull, spent: None, 0.1, "a")
    assert set(needed({"a": first, "b": second})) == {"a"}
    assert set(needed({"b": second, "c": first})) == {"b", "c"}


def test_a_spiking_network_is_searched_with_the_adaptive_surrogate_only():
    model = MLP(16, 3, T=2, hidden=(5,), generator=stream(0, "w"))
    assert names(model, torch.rand(1, 16, generator=stream(0, "x"))) == SHARP


def test_spikes_of_an_unknown_recurrence_are_searched_through_their_own_time():
    """ASSG in another layer's own backward pass; the paths of a known recurrence cannot be cut."""
    entries = portfolio(Linf(0.1))
    known = {"assg-cut", "assg-leak", "assg-cut/margin", "apgd/assg-cut/margin"}
    left = set(needed({name: each for name, each in entries.items() if name not in known}))
    assert left == {"climb", "assg", "own", "width0.5", "width2", "apgd-t", "square"}
    gradient = entries["assg"].build(0, 0.0).gradient
    assert gradient.temporal and gradient.reset


def test_a_network_without_spikes_is_searched_with_its_own_gradient():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x = torch.rand(2, 1, 4, 4, generator=stream(0, "x"))
    assert names(model, x) == {"climb", "own", "apgd-t", "square"}
    assert names(model, x, L1(0.1)) == {"climb", "own", "apgd-t"}


def test_a_network_without_spikes_is_fooled_by_its_own_gradient():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    x = torch.tensor([[0.6, 0.6, 0.5, 0.5], [0.9, 0.9, 0.3, 0.3]]).view(2, 1, 2, 2)
    y = torch.tensor([0, 0])  # the margins 0.2 and 1.2 fall by at most 4 eps
    found = Converging(Linf(0.1), 400)(model, x, y, generator=stream(0, "a"))
    assert model(found).argmax(1).tolist() == [1, 0]


def test_the_first_searches_are_short_and_later_ones_grow_with_what_was_spent():
    entries = portfolio(Linf(0.1))
    steps = [entries["assg-cut"].build(0, s).steps for s in (0, 200, 400, 600, 3000, 10_000, 1e6)]
    assert steps == [100, 100, 200, 300, 300, 1000, 1000]
    queries = [entries["climb"].build(0, s).queries for s in (0, 125, 300, 500, 6000, 12_000, 1e6)]
    assert queries == [500, 500, 1200, 2000, 2000, 4000, 4000]


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(1.0)], ids=lambda threat: threat.norm)
def test_a_search_becomes_longer_and_changes_its_sharpness(threat):
    for entry in portfolio(threat).values():
        early, late = entry.build(1, 0.0), entry.build(1, 1e6)
        assert cost(late) > cost(early)
        if isinstance(getattr(early, "gradient", None), ASSG):
            assert entry.build(2, 0.0).gradient.A != early.gradient.A
