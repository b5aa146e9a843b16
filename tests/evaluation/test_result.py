"""Results as plain data and as a table."""

import json
import sys
import warnings
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation
from spikeguard.preflight.quick import PreflightWarning
from spikeguard.storage.digests import CHECKSUM, FILES
from tests.toys.small_evaluations import Shift, Sign, pair


@pytest.fixture
def found():
    return evaluate(Sign(), pair(), {"shift": Shift(0.1)})


def test_the_dictionary_is_what_is_stored(found, tmp_path):
    found.save(tmp_path / "r")
    stored, shown = json.loads((tmp_path / "r.json").read_text()), found.to_dict()
    assert json.loads(json.dumps(shown)).items() <= stored.items()
    assert stored.keys() - shown.keys() == {CHECKSUM, FILES}
    assert found.to_dict()["worst_case"]["accuracy"] == found.worst_case.accuracy


def expected(found):
    scores = {"clean": found.clean, **found.attacks, "worst_case": found.worst_case}
    return [(name, s.accuracy, s.low, s.high, s.n) for name, s in scores.items()]


def test_the_table_has_a_row_for_each_attack(found, monkeypatch):
    stub = ModuleType("pandas")
    stub.DataFrame = list
    monkeypatch.setitem(sys.modules, "pandas", stub)
    rows = found.to_frame()
    columns = ("attack", "accuracy", "low", "high", "n")
    assert [tuple(row[c] for c in columns) for row in rows] == expected(found)
    assert {(row["norm"], row["eps"]) for row in rows} == {("linf", found.threat["eps"])}
    assert rows[1]["seconds"] == found.seconds["shift"]


def test_the_table_is_a_frame_of_pandas(found):
    pytest.importorskip("pandas")
    frame = found.to_frame()
    assert list(frame["attack"]) == ["clean", "shift", "worst_case"]
    assert frame.set_index("attack").loc["worst_case", "accuracy"] == found.worst_case.accuracy


def test_without_pandas_one_line_names_it(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="needs pandas: pip install pandas; to_dict"):
        found.to_frame()


class Nearest(nn.Module):
    """Ten logits; the class is the tenth part of the pixel."""

    def forward(self, x):
        return -(10 * x - torch.arange(10)).square()


@pytest.mark.parametrize(
    ("labels", "right", "classes"),
    [(torch.arange(60) % 2, 22, ""), (torch.zeros(40, dtype=torch.int64), 4, "among 10 classes")],
)
def test_a_guess_is_one_of_the_classes_of_the_logits(labels, right, classes, tmp_path):
    """22 of 60 are better than 1 in 10 (not than 1 in 2); 4 of 40 are not, whatever the labels."""
    shown = torch.where(torch.arange(len(labels)) < right, labels, 9)
    data = (shown[:, None] / 10, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PreflightWarning)
        found = sg.evaluate(Nearest(), data, {})
    assert found.clean.accuracy == right / len(labels)
    assert found.classes == 10
    assert classes in found.warning and bool(found.warning) == bool(classes)
    found.save(tmp_path / "now")
    assert Evaluation.load(tmp_path / "now").warning == found.warning
    older = replace(found, classes=None)
    older.save(tmp_path / "older")
    again = Evaluation.load(tmp_path / "older")
    assert again.classes is None
    assert ("among 2 classes" in again.warning) == (classes == "")  # the largest label + 1
