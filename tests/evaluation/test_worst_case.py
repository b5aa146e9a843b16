"""Worst case of several noisy outcomes: never above a part, rows that do not rise, small bias."""

import itertools
import json

import pytest
import torch

from spikeguard.attacks import Linf, UniformNoise
from spikeguard.evaluation.cascade import run_cascade
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.worst_case import lowest, never_rising, worst_of
from spikeguard.storage.digests import CHECKSUM, FILES
from tests.toys.small_evaluations import EPS, Noisy, Shift, Sign, pair

DRAWS = 10


def images(n):
    return torch.full((n, 1, 2, 2), 0.5), torch.zeros(n, dtype=torch.int64)


def noises(n):
    return {f"noise{i}": UniformNoise(Linf(0.1), draws=2) for i in range(n)}


def test_the_lowest_is_that_of_the_lowest_mean_and_the_first_of_equals():
    half, other = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    assert lowest([half, other]) is half and lowest([other, half]) is other
    assert lowest([half, torch.tensor([0.2, 0.7])]).tolist() == pytest.approx([0.2, 0.7])


def test_a_row_above_an_earlier_one_is_that_earlier_one():
    rows = {"clean": [1.0, 0.9], "a": [0.2, 0.6], "b": [0.3, 0.7], "c": [0.7, 0.0]}
    kept = never_rising({name: torch.tensor(row) for name, row in rows.items()})
    assert [kept[name].tolist() for name in kept] == [
        torch.tensor(rows[name]).tolist() for name in ("clean", "a", "a", "c")
    ]


def test_the_worst_of_several_takes_each_sample_from_its_lowest_and_scores_it_again():
    """The first covers two of three samples; its third counts as right."""
    x = torch.zeros(3, 1)
    outcomes = [torch.tensor([0.0, 0.5]), torch.tensor([0.5, 0.25, 0.75, 0.0])]
    points = [torch.full((2, 1), 1.0), torch.full((4, 1), 2.0)]
    assert worst_of(outcomes, points, x).tolist() == [0, 0.25, 0.75]

    def score(chosen):
        assert chosen[:, 0].tolist() == [1, 2, 2]
        return chosen[:, 0].double() / 5

    assert worst_of(outcomes, points, x, score).tolist() == pytest.approx([0.2, 0.4, 0.4])
    worse = worst_of(outcomes, points, x, lambda chosen: torch.ones(3).double())
    assert worse.tolist() == [0.5, 0.25, 0.75]  # never above the second alone, the first is short
    unknown = worst_of(outcomes, [None, points[1]], x, lambda chosen: chosen[:, 0].double())
    assert unknown.tolist() == [0.5, 0.25, 0.75]


# --- known probabilities: bias of the last row of a cascade


def simulated(p, n, seed, *, common):
    """Cascade over points of known p [K + 1]; return the last row and the true mean of its choice.

    With ``common`` a draw is right where one number of the sample is below p, for all its points;
    else every point has numbers of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 1 if common else len(p), n, DRAWS)
    choice, report = (
        (torch.rand(shape, generator=generator, dtype=torch.float64) < p.view(1, -1, 1, 1))
        .double()
        .mean(-1)
    )
    number, names = 0, [f"{k}" for k in range(1, len(p))]

    def attack_samples(name, rows):
        nonlocal number
        number = int(name)
        return torch.full((len(rows), 1), float(number)), choice[number, rows]

    def rescore(points, rows):
        return report[points[:, 0].long(), rows]

    true = {"clean": float(p[0])}
    found = run_cascade(
        names,
        torch.zeros(n, 1),
        choice[0],
        report[0],
        attack_samples=attack_samples,
        rescore=rescore,
        on_progress=lambda state: true.update(
            {str(number): float(p[state.worst[:, 0].long()].mean())}
        ),
    )
    rows = {"clean": report[0], **found.right}
    means = [float(row.mean()) for row in never_rising(rows).values()]
    assert means == sorted(means, reverse=True)
    chosen = min(rows, key=lambda name: float(rows[name].mean()))
    return means[-1], true[chosen]


@pytest.mark.parametrize(
    ("p", "n", "common", "limit"),
    [
        ([0.5] * 21, 1000, False, 0.006),  # nothing to find, and independent draws: the worst case
        ([0.5] * 21, 100, True, 0.0),  # nothing to find, common draws: always the same score
        ([0.9, 0.3, *[0.4] * 19], 200, False, 0.003),  # one attack is the best for all
        ([0.9, *torch.linspace(0.8, 0.4, 20).tolist()], 100, False, 0.005),
        ([0.9, *torch.linspace(0.8, 0.4, 20).tolist()], 100, True, 0.005),
    ],
)
def test_the_bias_of_the_last_row_is_small(p, n, common, limit):
    """Means over 100 seeds; their standard error is at most 0.0016 (n = 100), and is added twice.

    The lowest of 21 shares of ten draws is 28 points too low.
    """
    p = torch.tensor(p, dtype=torch.float64)
    pairs = [simulated(p, n, seed, common=common) for seed in range(100)]
    gaps = torch.tensor([row - true for row, true in pairs])
    error = (0.25 / (n * DRAWS * len(gaps))) ** 0.5
    assert abs(float(gaps.mean())) <= limit + 2 * error
    if len(p.unique()) == 1 and not common:
        naive = torch.rand(21, 2000, DRAWS, generator=torch.Generator().manual_seed(0))
        assert float((naive < 0.5).double().mean(-1).amin(0).mean()) < 0.5 - 0.2


# --- through evaluate


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("model", [Noisy(), Noisy(shuffles=True), Noisy(sees_light=True)])
def test_the_rows_of_a_noisy_cascade_never_rise(model, seed):
    attacks = noises(4) | {"up": Shift(0.1, Linf(0.1)), "down": Shift(-0.1, Linf(0.1))}
    result = evaluate(model, images(40), attacks, seed=seed, cascade=True)
    rows = [result.clean.accuracy, *(score.accuracy for score in result.attacks.values())]
    assert rows == sorted(rows, reverse=True)
    assert result.worst_case.accuracy == rows[-1]


def test_the_planted_cascade_without_the_rule_rises():
    """Rows as they were before: 20 equal attacks rise for most seeds."""
    p = torch.full((21,), 0.5, dtype=torch.float64)
    rises = 0
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        choice, report = torch.rand(2, 21, 40, DRAWS, generator=generator)
        choice, report = ((s < p[0]).double().mean(-1) for s in (choice, report))
        rows = [report[choice[: k + 1].argmin(0), torch.arange(40)].mean() for k in range(21)]
        rises += any(after > before for before, after in itertools.pairwise(rows))
    assert rises == 10


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_one_more_attack_never_raises_the_worst_case(seed, cascade):
    """Equal costs keep the order in which attacks are given."""
    attacks, before = noises(6), 1.0
    for count in range(1, 7):
        some = dict(list(attacks.items())[:count])
        found = evaluate(Noisy(shuffles=True), images(40), some, seed=seed, cascade=cascade)
        parts = [found.clean.accuracy, *(score.accuracy for score in found.attacks.values())]
        assert found.worst_case.accuracy <= min(before, *parts)
        before = found.worst_case.accuracy


# --- zero gradients


class Flat(Sign):
    """No gradient below 1/2."""

    def forward(self, x):
        return super().forward(x.clamp_min(0.5))


@pytest.mark.parametrize("cascade", [False, True])
def test_zero_and_survives_is_counted_per_sample(tmp_path, cascade):
    """0.1, 0.35, 0.45 and 0.2 have no gradient; the clamp predicts class 0 for the first three,
    of which up by 0.2 fools 0.35 and 0.45; 0.2 is of class 1, wrong without an attack.
    """
    result = evaluate(Flat(), pair(), {"up": Shift(EPS)}, cascade=cascade)
    survivors = result.outcomes["worst_case"].bool()
    assert result.zero.tolist() == [False] * 3 + [True] * 3 + [False, True]
    assert result.unmoved == int((result.zero & survivors).sum()) / 8 == 1 / 8
    assert result.unmoved <= result.worst_case.accuracy
    assert max(map(len, result.table().splitlines())) <= 120
    words = " ".join(result.table().split())
    assert "12.5 % of all samples have such a gradient and survive" in words
    result.save(tmp_path / "r")
    back = Evaluation.load(tmp_path / "r")
    assert torch.equal(back.zero, result.zero) and back.table() == result.table()


def test_of_a_network_without_robustness_no_sample_counts_as_unmoved():
    """Half the gradients are zero, and noise fools every sample: half cannot survive."""
    result = evaluate(
        Flat(), pair([0.45, 0.48, 0.6, 0.55], [0, 0, 1, 1]), {"up": Shift(EPS), "down": Shift(-EPS)}
    )
    assert (result.zero_gradient, result.worst_case.accuracy, result.unmoved) == (0.5, 0, 0)
    assert "none of these samples survives every attack" in result.table()


def test_a_noisy_gradient_is_zero_where_it_is_zero_on_every_draw():
    """A gate that opens with probability 1/2: on four draws 1/16 of the samples have no gradient.

    Standard error of 2,000 samples: 0.0054; the bound is five of them. One draw: 1/2.
    """

    class Gated(Noisy):
        def forward(self, x):
            open_ = (self.random.uniform(x[:, 0, 0, 0], dim=0) < 0.5).to(x.dtype)
            score = open_ * (x.flatten(1).mean(1) - 0.4)
            return torch.stack([score, -score], 1)

    result = evaluate(Gated(), images(2000), {})
    assert abs(result.zero_gradient - 1 / 16) < 5 * (15 / 256 / 2000) ** 0.5
    assert "zero on all of 4 draws" in result.table()
    assert result.unmoved <= result.worst_case.accuracy


def test_a_stored_result_without_the_flags_is_read(tmp_path):
    import numpy as np

    result = evaluate(Flat(), pair(), {"up": Shift(EPS)})
    result.save(tmp_path / "r")
    with np.load(tmp_path / "r.npz") as stored:
        older = {name: stored[name] for name in stored.files if name != "zero_gradient"}
    np.savez(tmp_path / "r.npz", **older)
    card = json.loads((tmp_path / "r.json").read_text())
    kept = {name: part for name, part in card.items() if name not in (FILES, CHECKSUM)}
    (tmp_path / "r.json").write_text(json.dumps(kept))
    back = Evaluation.load(tmp_path / "r")
    assert back.zero is None and back.unmoved is None and back.zero_gradient == 0.5
    assert back.table().endswith("50.0 % of the input gradients are exactly zero")
