"""Converging: the rules that end it, what it depends on, and that it resumes bit for bit."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import L1, L2, SAPGD, Converging, Linf, LocalClimb, cost
from spikeguard.attacks.base import describe
from spikeguard.attacks.model_access import observe_passes
from spikeguard.attacks.searches import converging, search_rounds
from spikeguard.attacks.searches.nearest import Nearest
from spikeguard.attacks.searches.noisy_portfolio import noisy_portfolio
from spikeguard.attacks.searches.portfolio import Entry, needed, portfolio
from spikeguard.attacks.searches.search_rounds import SearchRounds
from spikeguard.attacks.searches.search_state import Round, SearchState
from spikeguard.models import MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import SampleStreams, stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import LIFNode
from tests.toys.planted_portfolios import planted
from tests.toys.stepping_attacks import spiking

THREAT = Linf(0.3)


class Light(nn.Module):
    """Class 1 above a mean of 0.4; no spiking layer."""

    def forward(self, x):
        score = x.flatten(1).mean(1) - 0.4
        return torch.stack([-score, score], 1)


def marked(uses):
    """Images of which each is darkened by one use of a planted search; -1 by none."""
    x = torch.tensor([0.5 + use / 100 for use in uses]).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    return x, torch.ones(len(uses), dtype=torch.int64)


def vectors(n=14):
    x = torch.rand(n, 16, generator=stream(0, "x"))
    with torch.no_grad():
        return x, spiking()(x).argmax(1)


def judge_of(model, y):
    @torch.no_grad()
    def judge(points, rows):
        return (model(points).argmax(1) == y[rows]).double()

    return judge


def run(attack, model, x, y, *, state=None, batch_size=64, after_round=None, ids=None):
    if state is None:
        state = SearchState.of(x, torch.ones(len(x), dtype=torch.float64))
    return attack.run(
        model,
        x,
        y,
        state,
        SampleStreams(3, torch.arange(len(x)) if ids is None else ids),
        batch_size=batch_size,
        judge=judge_of(model, y),
        after_round=after_round,
    )


def equal(one, other):
    """Whether two states are the same bit for bit, CPU seconds aside."""
    assert torch.equal(one.points, other.points) and torch.equal(one.right, other.right)
    assert torch.equal(one.nearest.points, other.nearest.points)
    assert torch.equal(one.nearest.margin, other.nearest.margin)
    assert torch.equal(one.lowest, other.lowest)
    assert (one.start, one.ended) == (other.start, other.ended)
    rounds = [[replace(each, cpu_s=0.0) for each in state.rounds] for state in (one, other)]
    assert rounds[0] == rounds[1]


# --- how it ends: planted searches of 300 gradients each


def test_it_ends_when_no_sample_is_left(monkeypatch):
    planted(monkeypatch)
    found = run(Converging(THREAT), Light(), *marked([0, 1, 1, 0]))
    assert found.ended == "no sample is left"
    assert [(r.search, r.fooled, r.left, r.spent) for r in found.rounds] == [
        ("first", 2.0, 2.0, 300.0),
        ("first", 2.0, 0.0, 600.0),  # it was productive
    ]


def test_a_constant_curve_is_flat_after_ten_times_300_gradients(monkeypatch):
    """300 a round: 2,700 are too few, 3,000 are enough."""
    planted(monkeypatch)
    found = run(Converging(THREAT), Light(), *marked([-1] * 5))
    assert found.ended == "the curve is flat"
    assert (len(found.rounds), found.spent, found.left) == (10, 3000.0, 5.0)
    assert torch.equal(found.points, marked([-1] * 5)[0])


@pytest.mark.parametrize(
    ("samples", "rounds"),
    [(50, 100), (100, 10)],  # 1 of 50 is more than 1 %, 1 of 100 is not
)
def test_a_late_find_prolongs_the_search_to_ten_times_its_gradients(samples, rounds, monkeypatch):
    """One sample falls in the tenth round, at 3,000 gradients: over at 30,000."""
    planted(monkeypatch)
    found = run(Converging(THREAT), Light(), *marked([9] + [-1] * (samples - 1)))
    assert (found.ended, len(found.rounds)) == ("the curve is flat", rounds)
    assert found.left == samples - 1


def test_no_curve_is_flat_before_every_search_was_used(monkeypatch):
    """Twelve searches take turns, so the rule waits for the twelfth."""
    planted(monkeypatch, names=[f"search{i}" for i in range(12)])
    found = run(Converging(THREAT), Light(), *marked([-1] * 5))
    assert (found.ended, len(found.rounds)) == ("the curve is flat", 12)


@pytest.mark.parametrize(("budget", "rounds"), [(1, 1), (300, 1), (301, 2), (700, 3)])
def test_it_ends_when_the_budget_is_spent(budget, rounds, monkeypatch):
    planted(monkeypatch)
    found = run(Converging(THREAT, budget=budget), Light(), *marked([-1] * 5))
    assert (found.ended, found.spent) == ("the budget is spent", 300.0 * rounds)


def test_what_remains_is_the_way_to_a_flat_curve(monkeypatch):
    """Per sample left: 3,000 - 600 with finds until 300; after one at 1,200, 12,000 - 1,200."""
    planted(monkeypatch)
    attack, seen = Converging(THREAT), []
    found = run(
        attack,
        Light(),
        *marked([0, 3, -1, -1]),
        after_round=lambda state: seen.append(attack.remaining(state)),
    )
    assert seen[1] == 3 * (3000 - 600)
    assert seen[3] == 2 * (12_000 - 1200)
    assert seen[-1] == 0 == attack.remaining(found)
    assert found.spent == 12_000
    short = Converging(THREAT, budget=1000)
    assert short.remaining(replace(found, ended="", rounds=found.rounds[:2])) == 2 * 400


# --- what one round does


def test_a_sample_that_is_fooled_is_searched_no_more_and_gradients_are_counted(monkeypatch):
    """A planted search makes a forward pass of a sample, and its margin takes another."""
    planted(monkeypatch)
    found = run(Converging(THREAT, budget=900), Light(), *marked([0, 0, 1, -1]))
    # a third of a gradient each; the judge of this file does not use classify
    assert [r.gradients for r in found.rounds] == pytest.approx([8 / 3, 4 / 3, 2 / 3])


def test_an_observer_outside_sees_the_passes_too(monkeypatch):
    planted(monkeypatch)
    passes = []
    with observe_passes(lambda samples, gradient: passes.append(samples)):
        run(Converging(THREAT, budget=900), Light(), *marked([0, 0, 1, -1]))
    assert passes == [4, 4, 2, 2, 1, 1]


def test_a_climb_starts_from_the_points_of_lowest_margin_and_uses_them_up(monkeypatch):
    """The climb is expected to find most, but has no start before another search has run."""
    starts, parts, own = [], [], SearchRounds._climb

    def noting(self, attack, streams, part):
        before = self.state.nearest
        seen, left = self.seen(), len(self.left())
        starts.append((seen, before.points.clone(), before.margin.clone()))
        climbs = own(self, attack, streams, part)
        used = self.state.nearest.margin[seen].isinf()
        parts.append(part)
        assert used.sum() == min(len(seen), -(-left // part)), "a part of those left"
        assert climbs == used.sum(), "no batch is filled so early"
        if not used.all():
            assert before.margin[seen][~used].min() >= starts[-1][2][seen][used].max()
        return climbs

    monkeypatch.setattr(SearchRounds, "_climb", noting)
    entries = {
        "climb": Entry(lambda pull, spent: LocalClimb(Linf(0.02), 80), 0.9),
        "own": Entry(lambda pull, spent: SAPGD(Linf(0.02), steps=4), 0.1),
    }
    monkeypatch.setattr(converging, "portfolio", lambda threat: entries)
    (x, y), model = vectors(), spiking()
    found = run(Converging(Linf(0.02), budget=200), model, x, y)
    names = [each.search for each in found.rounds]
    assert names[:4] == ["own", "climb", "own", "climb"]
    assert parts[:5] == [3, 3, 3, 3, 1], "all, after the second search that is on all"
    rows, points, margin = starts[0]
    with torch.no_grad():
        logits = model(points)
    led = logits.gather(1, y[:, None])[:, 0]
    led = led - logits.scatter(1, y[:, None], -torch.inf).amax(1)
    assert torch.equal(led[rows], margin[rows]) and len(rows) > 5
    with torch.no_grad():
        clean = model(x).scatter(1, y[:, None], -torch.inf).amax(1)
        clean = model(x).gather(1, y[:, None])[:, 0] - clean
    assert (margin[rows] < clean[rows]).any(), "the search has seen lower ones"


def test_a_focused_search_starts_several_times_from_the_samples_of_lowest_margins(monkeypatch):
    """Of four searches the first is on all samples; small batches are filled with more starts."""
    searched, own = [], search_rounds.active_set

    def noting(attack, model, x, y, **options):
        streams = options["streams"]
        starts = attack.begin(x, y, streams, 0)["x_adv"]
        searched.append((x, starts))
        return own(attack, model, x, y, **options)

    monkeypatch.setattr(search_rounds, "active_set", noting)
    entries = {"own": Entry(lambda pull, spent: SAPGD(Linf(0.001), steps=4), 0.1)}
    monkeypatch.setattr(converging, "portfolio", lambda threat: entries)
    (x, y), model = vectors(), spiking()
    one = cost(SAPGD(Linf(0.001), steps=4))
    monkeypatch.setattr(search_rounds, "_FILLED", 3 * one)
    found = run(Converging(Linf(0.001), budget=12 * one), model, x, y)
    assert [r.fooled for r in found.rounds] == [0.0] * 6, "the set is too small to fool any"
    # 14 are left: one start of all; of a third, 5, three; later 64 / 14 and 64 / 5, but at most 8
    assert [len(each) for each, _ in searched] == [14, 15, 15, 40, 56, 40]
    assert found.rounds[0].cost == pytest.approx(one)
    assert found.rounds[3].cost == pytest.approx(one * 40 / 14)
    with torch.no_grad():
        logits = model(x)
    led = logits.gather(1, y[:, None]) - logits.scatter(1, y[:, None], -torch.inf)
    nearest = led.amin(1).argsort()[:5].sort().values  # margins hardly move in this set
    x_focus, starts = searched[1]
    assert torch.equal(x_focus, x[nearest].repeat(3, 1))
    assert len(searched[3][1].unique(dim=0)) == 40
    assert len(starts.unique(dim=0)) == 15, "every start is another one"


def test_a_large_block_starts_three_times_from_a_third_and_once_from_all(monkeypatch):
    searched, own = [], search_rounds.active_set

    def noting(attack, model, x, y, **options):
        searched.append(len(x))
        return own(attack, model, x, y, **options)

    monkeypatch.setattr(search_rounds, "active_set", noting)
    entries = {"own": Entry(lambda pull, spent: SAPGD(Linf(1e-6), steps=2), 0.1)}
    monkeypatch.setattr(converging, "portfolio", lambda threat: entries)
    model, x = spiking(), torch.rand(90, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
    run(Converging(Linf(1e-6), budget=4), model, x, y)
    assert searched == [90, 90]


def test_repeated_climbs_of_a_sample_differ(monkeypatch, shortened):
    monkeypatch.setattr(search_rounds, "_FILLED", 0)
    ids, own = [], LocalClimb.climb

    def noting(self, model, x, y, start, streams, **options):
        ids.append((len(x), streams.ids.tolist()))
        return own(self, model, x, y, start, streams, **options)

    monkeypatch.setattr(LocalClimb, "climb", noting)
    (x, y), model = vectors(9), spiking()
    run(Converging(Linf(0.02), budget=400), model, x, y)
    assert all(len(set(each)) == n for n, each in ids)
    assert max(n for n, _ in ids) == 8, "of 8, 4, 2 or 1 samples: 64 candidates at once"


def test_a_short_search_of_few_samples_is_various():
    (x, y), model = vectors(5), spiking()
    found = run(Converging(Linf(1e-4), budget=600), model, x, y)
    assert len({r.search for r in found.rounds}) >= 3


def test_a_sample_falls_at_the_time_of_its_first_start(shortened):
    (x, y), model = vectors(2), spiking()
    state = SearchState.of(x, torch.ones(2, dtype=torch.float64))
    streams = SampleStreams(0, torch.arange(2))
    rounds = search_rounds.SearchRounds(model, x, y, state, streams, 2, lambda p, r: None)
    for at in (9.0, 2.0, 5.0):
        times = torch.full((1,), at, dtype=torch.float64)
        rounds._accept(torch.tensor([1]), x[1:], torch.zeros(1), 1.0, times)
    assert state.fell.tolist() == [float("inf"), 1.0]


def test_a_search_of_other_rules_is_another_attack():
    """Its name in a stored evaluation differs, so that no round of it is continued."""
    assert describe(Converging(Linf(0.1), 600))["rules"] == 2
    with pytest.raises(TypeError):
        Converging(Linf(0.1), 600, rules=1)


def test_chains_of_a_search_do_not_depend_on_the_batch(shortened):
    (x, y), model = vectors(9), spiking()
    whole = [run(Converging(Linf(0.02), 400), model, x, y, batch_size=b) for b in (64, 2)]
    assert sum(r.search != "climb" for r in whole[0].rounds) > 4
    equal(*whole)


def test_no_climb_follows_a_climb(shortened):
    (x, y), model = vectors(), spiking()
    names = [r.search for r in run(Converging(Linf(0.02), budget=400), model, x, y).rounds]
    assert names.count("climb") > 2
    assert not any(a == b == "climb" for a, b in itertools.pairwise(names))


def test_the_nearest_point_is_that_of_lowest_margin():
    x = torch.zeros(3, 2)
    nearest = Nearest.of(x)
    assert nearest.margin.isinf().all()
    nearest.see(torch.tensor([2, 0]), torch.tensor([[1.0, 1], [2, 2]]), torch.tensor([0.5, 0.7]))
    nearest.see(torch.tensor([0, 2]), torch.tensor([[3.0, 3], [4, 4]]), torch.tensor([0.6, 0.5]))
    assert nearest.points.tolist() == [[3, 3], [0, 0], [1, 1]]
    assert nearest.margin[[0, 2]].tolist() == pytest.approx([0.6, 0.5])
    assert nearest.margin[1].isinf()


# --- the portfolio, on small spiking networks


@pytest.fixture
def shortened(monkeypatch):
    """The searches of the portfolio with few steps and queries; equally much is expected."""

    def build(entry):
        def short(pull, spent):
            attack = entry.build(pull, spent)
            field = "steps" if hasattr(attack, "steps") else "queries"
            return replace(attack, **{field: max(8, getattr(attack, field) // 30)})

        return Entry(short, 0.1, entry.unless)

    for whole in (portfolio, noisy_portfolio):
        monkeypatch.setattr(
            converging,
            whole.__name__,
            lambda threat, whole=whole: {n: build(e) for n, e in whole(threat).items()},
        )


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.long), 3])
def test_results_do_not_depend_on_the_batch_size(batch_size, shortened):
    (x, y), model = vectors(9), spiking()
    attack = Converging(Linf(0.04), budget=250)
    whole = run(attack, model, x, y)
    assert 0 < whole.left < len(x) and len({r.search for r in whole.rounds}) == 5
    equal(run(attack, model, x, y, batch_size=batch_size), whole)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "after", [pytest.param(1, marks=pytest.mark.long), 4, pytest.param(9, marks=pytest.mark.long)]
)
def test_a_search_killed_between_rounds_continues_bit_for_bit(after, shortened):
    (x, y), attack, files = vectors(), Converging(Linf(0.04), budget=300), []
    whole = run(attack, spiking(), x, y)
    assert len(whole.rounds) > 9

    def save(state):
        files.append({name: array.copy() for name, array in state.arrays().items()})
        if len(files) == after:
            raise Killed

    with pytest.raises(Killed):
        run(attack, spiking(), x, y, after_round=save)
    state = SearchState.from_arrays(files[-1], torch.device("cpu"))
    assert len(state.rounds) == after and not state.ended
    equal(run(attack, spiking(), x, y, state=state), whole)


def test_a_state_before_the_first_round_and_after_the_last_is_stored_whole(shortened):
    (x, y) = vectors()
    for state in (
        SearchState.of(x, torch.ones(len(x), dtype=torch.float64)),
        run(Converging(Linf(0.04), budget=100), spiking(), x, y),
    ):
        equal(SearchState.from_arrays(state.arrays(), torch.device("cpu")), state)


@pytest.mark.parametrize("threat", [Linf(0.05), L2(0.15), L1(0.4)], ids=["linf", "l2", "l1"])
def test_points_stay_in_the_set_and_fool_the_model(threat, shortened):
    (x, y), model = vectors(), spiking()
    found = Converging(threat, budget=100)(
        model, x, y, generator=SampleStreams(3, torch.arange(len(x)))
    )
    threat.check(found, x)
    with torch.no_grad():
        wrong = model(found).argmax(1) != y
    assert wrong.any()
    assert torch.equal(found[~wrong], x[~wrong]), "a sample that is not fooled stays as it was"


def noisy(sigma=0.2):
    model = MLP(16, 3, T=2, hidden=(12,), neuron=NoisyLIF(0.5, sigma, v_th=0.3))
    return drawn(model, 0.6, stream(0, "noisy")).eval()


def test_a_noisy_network_is_searched_without_climbs(shortened):
    x = torch.rand(8, 16, generator=stream(0, "x"))
    y = torch.zeros(8, dtype=torch.int64)
    attack, seen = Converging(Linf(0.1), budget=250), []
    streams = SampleStreams(3, torch.arange(8))
    own = Converging.run
    try:
        Converging.run = lambda self, *a, **o: seen.append(own(self, *a, **o)) or seen[-1]
        found = attack(noisy(), x, y, generator=streams)
        again = attack(noisy(), x, y, generator=SampleStreams(3, torch.arange(8)))
    finally:
        Converging.run = own
    assert torch.equal(found, again)
    Linf(0.1).check(found, x)
    names = {each.search for each in seen[0].rounds}
    assert names == set(noisy_portfolio(THREAT)) and "climb" not in names
    assert set((seen[0].right * 40).tolist()) <= set(map(float, range(41))), "40 draws choose"


@pytest.mark.parametrize("phase", ["attack", "test"])
def test_the_searches_are_those_of_the_network_that_is_attacked(phase):
    """Noise that is drawn in the test alone is none for a search, and the reverse."""
    neuron = NoisyLIF(0.5, 0.2, v_th=0.3, noise_in=("train", phase))
    model = drawn(MLP(16, 3, T=2, hidden=(12,), neuron=neuron), 0.6, stream(0, "noisy")).eval()
    x, y = torch.rand(4, 16, generator=stream(0, "x")), torch.zeros(4, dtype=torch.int64)
    expected = noisy_portfolio if phase == "attack" else portfolio
    found = set(converging._entries(Linf(0.1), model, x[:1]))
    assert found <= set(expected(THREAT)) and ("climb" in found) == (phase == "test")
    points = Converging(Linf(0.1), budget=60)(model, x, y, generator=SampleStreams(3, range(4)))
    Linf(0.1).check(points, x)


def test_the_curve_of_a_noisy_network_can_be_flat(monkeypatch):
    planted(monkeypatch)
    monkeypatch.setattr(converging, "noisy_portfolio", converging.portfolio)
    model = noisy()
    x = torch.rand(4, 16, generator=stream(0, "x"))
    state = SearchState.of(x, torch.full((4,), 0.7, dtype=torch.float64))
    found = Converging(THREAT).run(
        *(model, x, torch.zeros(4, dtype=torch.int64), state, SampleStreams(0, torch.arange(4))),
        batch_size=4,
        judge=lambda points, rows: torch.full((len(rows),), 0.7, dtype=torch.float64),
    )
    assert (found.ended, found.left) == ("the curve is flat", pytest.approx(2.8))


def test_a_foreign_network_gets_the_searches_that_apply(shortened):
    net = nn.Sequential(nn.Linear(16, 12), LIFNode(), nn.Linear(12, 3))
    model = sg.foreign(drawn(net, 0.8, stream(0, "net")), T=4).eval()
    x = torch.rand(10, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
    found = run(Converging(Linf(0.02), budget=250), model, x, y)
    names = {r.search for r in found.rounds}
    assert names == set(needed(portfolio(THREAT))) and "climb" in names
    assert found.left < len(x)
    Linf(0.02).check(found.points, x)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    found = run(Converging(Linf(0.001), budget=900), plain, x, plain(x).argmax(1))
    assert {r.search for r in found.rounds} == {"own", "climb", "apgd-t", "square"}


# --- arguments


@pytest.mark.parametrize("budget", [0, -5, float("inf"), float("nan")])
def test_a_wrong_budget_is_rejected_in_one_line(budget):
    with pytest.raises(ValueError, match="Converging: budget counts gradients, > 0") as error:
        Converging(THREAT, budget)
    assert "\n" not in str(error.value)


def test_it_declares_its_budget_as_its_cost():
    assert cost(Converging(THREAT, 700)) == 700
    assert Round("a", 1.0, 1.0, 1.0, 0.0, 1.0, 0.0).search == "a"


def test_every_search_of_the_portfolio_declares_its_cost_and_grows():
    for threat in (Linf(0.1), L2(0.3), L1(1.0)):
        entries = portfolio(threat)
        assert ("square" in entries) == (threat.norm != "l1")
        for entry in entries.values():
            early, late = entry.build(1, 300.0), entry.build(1, 20_000.0)
            assert 0 < cost(early) < cost(late) < 10_000 and early.threat == threat
