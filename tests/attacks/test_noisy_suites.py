"""Suites on noisy networks: the mean field comes first, and only there."""

import pytest
import torch

from spikeguard.attacks import (
    APGD,
    ASSG,
    FGSM,
    PGD,
    SUITES,
    Backprop,
    EoT,
    Linf,
    MeanField,
    suitable,
    suite,
)
from spikeguard.attacks.gradients.base import nested, unwrap
from spikeguard.attacks.gradients.mean_field import draws_for
from spikeguard.attacks.searches.noisy_portfolio import noisy_portfolio
from spikeguard.attacks.threat import L1
from spikeguard.auditing.worst_case import attack_label
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF

SMOOTH = {"quick": "pgd10", "demo": "apgd-ce", "standard": "apgd-ce", "every": "pgd20"}


def network(neuron):
    return MLP(num_classes=3, T=2, hidden=(6,), in_shape=(1, 2, 2), neuron=neuron)


@pytest.mark.parametrize("name", sorted(SUITES))
def test_the_mean_field_comes_first_where_gradients_are_averaged(name):
    alone, averaged = suite(name, eps=0.1), suite(name, eps=0.1, eot=4)
    assert not any(
        isinstance(unwrap(getattr(a, "gradient", None)), MeanField) for a in alone.values()
    )
    added = [key for key in averaged if key not in alone]
    assert added == ([f"{SMOOTH[name]}/mean-field"] if name in SMOOTH else [])
    if added:
        assert next(iter(averaged)) == added[0]
        assert averaged[added[0]].gradient == MeanField()


@pytest.mark.parametrize("name", sorted(SMOOTH))
def test_a_network_without_noise_gets_the_suite_without_it(name):
    attacks = suite(name, eps=0.1, eot=4)
    kept, left_out = suitable(attacks, network(LIF()))
    assert f"{SMOOTH[name]}/mean-field" in left_out
    assert kept.keys() <= suite(name, eps=0.1).keys()
    assert f"{SMOOTH[name]}/mean-field" in suitable(attacks, network(NoisyLIF()))[0]


@pytest.mark.parametrize("threat", [Linf(0.1), L1(1.0)], ids=["linf", "l1"])
def test_a_converging_search_on_a_noisy_network_begins_on_the_mean_field(threat):
    entries = noisy_portfolio(threat)
    first = max(entries, key=lambda name: entries[name].expected)
    assert isinstance(entries[first].build(0, 0.0).gradient, MeanField)
    assert ("square" in entries) == (threat.norm == "linf")
    every = {name: entry.build(0, 0.0) for name, entry in entries.items()}
    for name, attack in every.items():
        kinds = {type(each) for each in nested(getattr(attack, "gradient", None))}
        assert name == "square" or len(kinds & {MeanField, EoT}) == 1
    assert suitable(every, network(NoisyLIF()))[1] == ()


def test_an_eot_search_costs_what_was_spent_before_it():
    build = noisy_portfolio(Linf(0.1))["eot"].build
    draws = [build(0, spent).gradient.draws for spent in (0, 400, 1000, 1650, 3200, 10_000)]
    assert draws == [4, 4, 10, 16, 32, 32]
    longer = noisy_portfolio(Linf(0.1))["mean-field"].build
    assert [longer(0, spent).steps for spent in (0, 3000, 50_000)] == [100, 300, 1000]


def test_draws_are_what_a_budget_pays():
    assert [draws_for(left, 800) for left in (0, 10, 50, 100, 400)] == [32, 32, 16, 8, 4]


def test_the_gradient_of_the_mean_field_is_not_that_of_the_model():
    """Labels and checks that look for the model's own gradient do not take it for one."""
    smooth, plain = MeanField(), EoT(2, Backprop())
    assert unwrap(smooth) is smooth
    assert unwrap(EoT(2, smooth)) is smooth
    assert unwrap(plain) == Backprop()
    assert [type(each) for each in nested(EoT(2, MeanField(ASSG())))] == [EoT, MeanField, ASSG]
    assert list(nested(None)) == []
    assert attack_label(APGD(Linf(0.1), gradient=smooth)) == "APGD-100, MeanField"
    assert attack_label(PGD(Linf(0.1), gradient=plain)) == "PGD-10, own surrogate"
    assert attack_label(FGSM(Linf(0.1))) == "FGSM, own surrogate"


def test_the_first_round_on_a_noisy_network_is_on_the_mean_field():
    """The judge counts a moved input as fooled: one search on the mean field ends the run."""
    from spikeguard.attacks.searches.converging import NONE_LEFT, Converging
    from spikeguard.attacks.searches.search_state import SearchState
    from spikeguard.rng import SampleStreams

    model = network(NoisyLIF(sigma=0.3)).eval()
    x, y = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    progress = SearchState.of(x, torch.ones(4, dtype=torch.float64))

    def judge(points, rows):
        return (points != x[rows]).flatten(1).all(1).logical_not().double()

    search = Converging(Linf(0.5), budget=500)
    ended = search.run(
        model, x, y, progress, SampleStreams(0, torch.arange(4)), batch_size=4, judge=judge
    )
    assert (ended.ended, [each.search for each in ended.rounds]) == (NONE_LEFT, ["mean-field"])
