"""Tables of the report as CSV and LaTeX: the planted numbers, and text that cannot break them."""

import csv
import io
import re

import pytest

from spikeguard.evaluation.statistics import wilson
from spikeguard.reporting.renderer import report
from spikeguard.reporting.sections.tables import Cell
from spikeguard.reporting.table_files import FlatTable, _csv, latex
from tests.toys.report_runs import CHECKS, NETWORKS, plant_demo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    root = tmp_path_factory.mktemp("tables")
    report(plant_demo(root), root / "report.html", tables=root / "tables")
    return root / "tables"


def rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("eps", [0.1, 0.2])
def test_accuracies_are_numbers_with_both_ends_of_their_interval(tables, eps):
    found = rows(tables / f"accuracy-linf-{str(eps).replace('.', '_')}.csv")
    assert [row["Network"] for row in found] == list(NETWORKS)
    for row, numbers in zip(found, NETWORKS.values(), strict=True):
        expected = {"Clean": numbers["clean"], "FGSM": numbers[eps][1]}
        for name, accuracy in (expected | {"Worst case": numbers[eps][-1]}).items():
            low, high = wilson(accuracy / 100 * 500, 500)
            three = [float(row[f"{name}{part}, %"]) for part in ("", " low", " high")]
            assert three == [accuracy, round(100 * low, 1), round(100 * high, 1)]
        assert float(row["Zero input gradient, %"]) == pytest.approx(100 * numbers["zero"])
        assert row["Images"] == "500"


def test_every_table_of_the_page_has_both_files(tables):
    names = {path.stem for path in tables.iterdir()}
    assert {path.name for path in tables.iterdir()} == {
        f"{name}{suffix}" for name in names for suffix in (".csv", ".tex")
    }
    kinds = {re.sub(r"-(linf.*|\d+)$", "", name) for name in names}
    assert kinds == {
        *("accuracy", "attacks", "membranes", "audit", "checks", "settings", "environment")
    }
    assert {row["Check"] for row in rows(tables / "checks.csv")} >= set(CHECKS)


def test_latex_shows_the_interval_and_has_equal_columns(tables):
    text = (tables / "accuracy-linf-0_1.tex").read_text(encoding="utf-8")
    low, high = wilson(0.448 * 500, 500)
    assert rf"44.8 \% [{100 * low:.1f}, {100 * high:.1f}]" in text
    assert r"\caption{Accuracy at $L_\infty$, $\varepsilon$ = 0.1}" in text
    for path in tables.glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert lines
        assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {columns}
        assert text.isascii(), path


HOSTILE = 'a & b_c 100 % $x$ #1 {y} ~ ^ \\input{/etc/passwd} <z> "q", λ\nnext'


def test_text_cannot_break_a_table():
    table = FlatTable("t", HOSTILE, ("n&me", "v"), ((Cell(HOSTILE), Cell("1,234")), (Cell("x"),)))
    text = latex(table)
    shown = (
        r"a \& b\_c 100 \% \$x\$ \#1 \{y\} \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{}input\{/etc/passwd\} \textless{}z\textgreater{} "
        r"\textquotedbl{}q\textquotedbl{}, $\lambda$ next"
    )
    assert rf"\caption{{{shown}}}" in text
    assert rf"{shown} & 1,234 \\" in text and r"x &  \\" in text
    head, first, second = csv.reader(io.StringIO(_csv(table)))
    assert (head, first, second) == (["n&me", "v"], [HOSTILE, "1234"], ["x", ""])


def test_counts_with_an_interval_are_numbers_without_a_per_cent_sign():
    """One interval is below 1,000 and has no separator, as that of a share; one has no interval."""
    cells = [Cell("724", "[700, 748]"), Cell("7,724", "[7,541, 7,906]"), Cell("5"), Cell("not run")]
    head, *lines = csv.reader(
        io.StringIO(_csv(FlatTable("t", "t", ("Spikes",), tuple((cell,) for cell in cells))))
    )
    assert head == ["Spikes", "Spikes low", "Spikes high"]
    assert lines == [["724", "700", "748"], ["7724", "7541", "7906"], ["5", "", ""], ["", "", ""]]
