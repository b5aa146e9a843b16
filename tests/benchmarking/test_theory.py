"""benchmarks/theory.py: counterexamples by hand, searches with a known end, and the page itself."""

import importlib
import math
import re
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.analysis import perturbation_gain
from spikeguard.neurons import IF, NoisyLIF

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "theory.md"
MODULES = ("theory_closed_forms", "theory_networks", "theory_supports", "theory")


@pytest.fixture(scope="module")
def modules():
    path = list(sys.path)
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield [importlib.import_module(name) for name in MODULES]
    finally:
        sys.path[:] = path
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def forms(modules):
    return modules[0]


@pytest.fixture(scope="module")
def supports(modules):
    return modules[2]


@pytest.fixture(scope="module")
def networks(modules):
    return modules[1]


def number(text):
    return float(text.replace("−", "-"))


def absent(tables, page):
    """Return the printed rows, and the numbers of printed lines, that a page does not have."""
    rows = [f"| {' | '.join(row)} |" for each in tables if each.head for row in each.lines()]
    lines = " ".join(each.title for each in tables if not each.head)
    numbers = re.findall(r"\d[\d,]*\.\d+|\d+,\d+", lines)
    assert len(rows) > 30 and len(numbers) > 10
    flat = " ".join(page.split())
    return [row for row in rows if row not in page] + [n for n in numbers if n not in flat]


def test_the_page_has_every_closed_form_that_the_command_prints(forms):
    page, tables = PAGE.read_text(encoding="utf-8"), list(forms.closed_forms())
    assert absent(tables, page) == []
    (row,) = absent(tables, page.replace("| 1.593 | 1.875 |", "| 1.594 | 1.875 |"))
    assert row.startswith("| 0.5 | 4 | 1.414 |")
    assert absent(tables, page.replace("122,145", "122,146")) == ["122,145"]


def test_the_summary_of_the_page_has_the_counterexamples():
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert "1.467 > 1.414" in page and "8 ≤ 1 and 64 ≤ 8" in page


def test_counterexamples_by_hand(supports):
    """I I has 8 entries, and 1 * 1 = 1. A full column times a full row is full: 64. With w1 a full
    column: w2 S = ones has 64 entries, and 8 / 8 * 8 / 8 * 8 = 8."""
    assert [row[-1] for row in supports.counterexamples()] == [
        "8 ≤ 1",
        "64 ≤ 1",
        "64 ≤ 8",
        "64 ≤ 0",
    ]
    assert [row[-1] for row in supports.counterexamples(4)][:3] == ["4 ≤ 1", "16 ≤ 1", "16 ≤ 4"]


def test_both_sides_agree_where_the_theorem_is_an_equality(supports):
    """With w1 = S both gradients are the same."""
    w2 = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    S = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    assert supports.theorem_3(w2, S, S) == (4, 4.0)
    assert supports.eq_16(w2, S) == (4, 4)


def test_all_supports_are_tried(supports):
    """d = 2, once more by loops over numbers."""
    pairs = broken = 0
    for cells in product((0, 1), repeat=8):
        w2, w1 = np.array(cells).reshape(2, 2, 2)
        pairs += 1
        broken += (w2 @ w1 > 0).sum() > w2.sum(1).max() * w1.sum(0).max()
    assert supports.all_supports(2) == (pairs, broken, 0)
    assert 0 < broken < pairs


def test_the_step_has_a_jump_and_no_slope(forms):
    assert forms.step_example() == (1.0, 0.0)
    assert forms.step_example(x=0.5) == (0.0, 0.0)  # the threshold is out of reach
    assert forms.sum_example(100, 0.5) == pytest.approx((2500, 25))


@pytest.mark.parametrize(("decay", "T"), [(0.5, 2), (1.0, 5), (0.9, 6)])
def test_the_search_reaches_the_gain_and_random_inputs_do_not(forms, decay, T):
    weight = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.25], dtype=torch.float64))
    exact = perturbation_gain(decay, T, 2.0)
    assert forms.searched_gain(decay, T, weight) == pytest.approx(exact, rel=1e-9)
    assert forms.random_gain(decay, T, weight, draws=100) < 0.99 * exact


def test_gains_of_spike_differences(forms):
    """T = 2, decay 1/2: (1, 1) gives (1, 3/2), a gain of sqrt(13/8); the others give less."""
    assert forms.spike_gain(0.5, 1) == 1
    assert forms.spike_gain(0.5, 2) == pytest.approx(math.sqrt(13 / 8))


def test_a_bound_that_is_too_small_is_noticed(forms):
    """The printed bound of Theorem 3.1 is one; at T = 2 and decay 1/2 it is not."""
    assert perturbation_gain(0.5, 2) < math.sqrt(2) < perturbation_gain(0.5, 3)
    assert forms.first_failure(0.5) == 3
    of_exact, of_bound = forms.search_over_weights(5)
    assert of_exact == pytest.approx(1) and of_bound < 1


def test_flips_and_shifts_of_the_tables(forms):
    middle = [row for row in forms.flip_rows(10_000) if row[0] == "1"]
    assert middle[0][1] == "15.87"  # half of what lies outside one standard deviation
    low, high = map(float, re.search(r"\[([\d.]+), ([\d.]+)\]", middle[0][2]).groups())
    assert low < 15.87 < high
    crossed, *_, far = forms.shift_rows()
    assert crossed[1] == "100.00" and crossed[-1] == "0.00"
    assert far[1] == "0.00" and float(far[-1]) > 1.4
    assert forms.over_all_distances(0.5) == pytest.approx(0.1)


class Pixels(nn.Module):
    """One neuron per pixel over T steps; the first logit is the sum of the image, or of spikes."""

    def __init__(self, neuron=None, T=1):
        super().__init__()
        self.neuron, self.T = neuron, T

    def forward(self, x):
        x = x.flatten(1)
        value = x if self.neuron is None else self.neuron(x.expand(self.T, *x.shape)).mean(0)
        return torch.stack([value.sum(1), torch.zeros(len(x))], 1)


def test_distances_are_those_of_the_potentials_before_and_after_noise(networks):
    x = torch.tensor([[0.25, 1.5]]).view(1, 1, 1, 2)
    before, after = networks.distances(Pixels(IF(), T=2), x)
    assert before.tolist() == after.tolist() == [[-0.75, 0.5, -0.5, 0.5]]
    before, after = networks.distances(Pixels(NoisyLIF(sigma=0.1)), x)
    assert before.tolist() == [[-0.75, 0.5]]
    assert (before != after).all()


def test_flips_of_known_noise_are_predicted(networks):
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(200, 500, generator=generator) * 4 - 2
    noise = torch.randn(200, 500, generator=generator)
    rows = networks.flip_rows(before, before + noise * networks.SIGMA)
    assert [row[0] for row in rows] == ["0 to 0.2", "0.2 to 0.632", "0.632 to 1.264", "above 1.264"]
    for _, predicted, measured in rows:
        _, low, high = map(float, re.findall(r"[\d.]+", measured))
        spare = high - low
        assert low - spare < float(predicted) < high + spare
    doubled = networks.flip_rows(before, before + 2 * noise * networks.SIGMA)  # not the theorem's
    _, low, _ = map(float, re.findall(r"[\d.]+", doubled[2][2]))
    assert low > 1.5 * float(doubled[2][1])


def test_shifts_of_known_potentials(networks):
    """Distances -0.05 and -2: one is inside sigma, and half of the shifts of 0.1 cross from it."""
    met, without, noisy, difference = networks.shift_cells(torch.tensor([[-0.05, -2.0]] * 3))[:4]
    assert met == "50.00 [50.00, 50.00]"
    assert without == "25.00 [25.00, 25.00]"
    assert number(noisy.split()[0]) < 5 and number(difference.split()[0]) < -20


def test_zeros_and_ratios_of_known_gradients(networks):
    gradient = torch.ones(4, 1, 2, 2)
    gradient[0] = 0
    gradient[1, 0, 0, 0] = 0
    zeros, all_zero, some, ratio, bound = networks.zero_cells(gradient)
    assert zeros.startswith("31.25 ")  # (4 + 1) / 16
    assert all_zero.startswith("25.0 ") and some == "1"
    assert ratio.startswith("11.00 ") and bound == "9 to 12"  # (9 + 12 + 12) / 3


def test_a_linear_function_is_at_its_bound_and_not_above(networks):
    """f = sum of 9 pixels: rho_adv = 81 eps^2, rho_rand = 3 eps^2, ratio 27 = 3 * 9."""
    model, x = Pixels(), torch.rand(40, 1, 3, 3)
    y = torch.zeros(40, dtype=torch.int64)
    gradient = networks.surrogate_gradient(model, x, y)
    assert torch.equal(gradient, torch.ones_like(x))
    eps, ratio, above = networks.true_cells(model, x, y, gradient, 0.1, draws=400)
    assert eps == "0.1" and float(ratio) == pytest.approx(27, abs=3)
    assert above.startswith("0.0 ")


def test_a_function_that_jumps_in_one_corner_is_above_the_bound(networks):
    """Only the corner where all 9 pixels rise passes the last threshold in the whole cube."""
    x = torch.full((40, 1, 3, 3), 0.5)

    class Corner(nn.Module):
        def forward(self, x):
            rare = (x.flatten(1).sum(1) >= 9 * 0.59).float()
            return torch.stack([10 * rare + 1e-3 * x.flatten(1).sum(1), 0 * rare], 1)

    y, gradient = torch.zeros(40, dtype=torch.int64), torch.ones_like(x)
    assert networks.true_cells(Corner(), x, y, gradient, 0.1)[2].startswith("100.0 ")


def test_a_spiking_output_does_not_move_by_a_tiny_step_and_jumps_by_a_larger_one(networks):
    near = torch.full((5, 1, 1, 3), 0.95)
    still, change = networks.affine_cells(Pixels(IF()), near, torch.ones_like(near))
    assert still.startswith("100.0 ") and change.startswith("9.00 ")  # 3 spikes, squared
    still, change = networks.affine_cells(Pixels(), near, torch.ones_like(near))
    assert still.startswith("0.0 ") and change.startswith("0.09 ")  # (3 * 0.1)^2


def test_networks_that_are_missing_are_named(modules, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["theory.py", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        modules[3].main()
    assert ended.value.code == 2
    assert "has no run vanilla; run `spikeguard demo`" in capsys.readouterr().err
