"""Results as plain data and as a table."""

import json
import sys
from types import ModuleType

import pytest

from spikeguard.evaluation.evaluator import evaluate
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
