"""Results of the suite "snn" before it was a converging search: bounds still, and marked as old."""

import json

import pytest
import torch

from spikeguard.attacks import PGD, Converging, Linf
from spikeguard.auditing.auditor import audit
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import EvaluateSection
from spikeguard.data import ImageSet, Splits
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.identity import identity_of
from spikeguard.evaluation.search_record import BEFORE, is_of_suite_before
from spikeguard.reporting.readers.attack_results import read_attacked
from spikeguard.reporting.renderer import report
from spikeguard.rng import stream
from spikeguard.runs.attack_results import evaluate_once
from spikeguard.runs.stored_evaluations import stored_evaluations
from tests.toys.planted_portfolios import planted
from tests.toys.report_pages import text_of
from tests.toys.report_runs import plant_attacks, plant_run
from tests.toys.small_evaluations import Shift, Sign

EPS = 0.2


def images():
    x = torch.rand(20, 1, 2, 2, generator=stream(0, "x"))
    return ImageSet(x, (x.mean((1, 2, 3)) > 0.5).long(), 2, "light", peak=1.0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An old result of two attacks and a new one of a planted search, both of suite "snn"."""
    planted(monkeypatch)
    old = evaluate(Sign(), images(), {"noise": Shift(0.0), "pgd10": Shift(-EPS)}, cascade=True)
    identity = identity_of(Sign(), images())
    old.save(tmp_path / "snn-linf-0.2", suite="snn", identity=identity)
    new = {"snn": Converging(Linf(EPS), budget=300)}
    evaluate(Sign(), images(), new, cascade=True).save(
        tmp_path / "snn-linf-0.2-first20", suite="snn", identity=identity
    )
    return tmp_path


def test_the_old_result_is_marked_and_counts_in_the_bound(folder):
    found = stored_evaluations(folder, Linf(EPS))
    assert set(found) == {f"snn-linf-0.2{BEFORE}", "snn-linf-0.2-first20"}
    old = found[f"snn-linf-0.2{BEFORE}"].worst_case.accuracy
    assert old < found["snn-linf-0.2-first20"].worst_case.accuracy
    said = audit(Sign(), images(), threat=Linf(EPS), budget="quick", stored=found)
    assert said.bound.value <= old
    assert any(BEFORE in source for source in said.bound.sources)


def test_an_old_result_is_not_loaded_as_one_of_the_new_suite(folder):
    data = Splits(images(), images(), images(), (0.0,), (1.0,))
    with pytest.raises(ConfigError, match='now "snn-cascade"; move it away') as error:
        evaluate_once(
            *(Sign(), data, "snn"), eps=EPS, plan=EvaluateSection(), seed=0, folder=folder
        )
    assert "\n" not in str(error.value)


def test_the_reader_marks_the_rows_of_the_old_result_alone(folder):
    old, new = (read_attacked(folder / f"snn-linf-0.2{end}.json") for end in ("", "-first20"))
    assert (old.before, new.before) == (True, False)
    assert (old.title, new.title) == (f"snn-linf-0.2{BEFORE}", "snn-linf-0.2-first20")
    assert list(old.attacks) == [f"{n} + all cheaper of snn{BEFORE}" for n in ("noise", "pgd10")]
    assert list(new.attacks) == ["snn"] and new.gradients["snn"], "it uses other gradients"


@pytest.mark.parametrize(
    ("suite", "attacks", "before"),
    [("snn", ["fgsm"], True), ("snn", ["snn"], False), ("snn-cascade", ["fgsm"], False)],
)
def test_what_tells_them_apart(suite, attacks, before):
    assert is_of_suite_before({"suite": suite, "attacks": dict.fromkeys(attacks)}) == before


def test_the_page_says_which_suite_it_was_and_repeats_it_by_its_new_name(tmp_path):
    path = plant_run(tmp_path / "run", "Planted")
    file = plant_attacks(path, 0.1, 90.0, (80.0, 70.0, 70.0), names=("fgsm", "pgd10"))
    card = json.loads(file.read_text()) | {"suite": "snn", "cascade": True}
    file.write_text(json.dumps(card))
    text = text_of(report([path], tmp_path / "report.html"))
    assert f"all cheaper of snn{BEFORE}" in text
    assert 'marks the suite "snn" before it was a converging search' in text
    assert "--suite snn-cascade" in text and "--suite snn " not in text


def test_an_attack_in_a_larger_box_is_not_of_this_threat_set(tmp_path):
    """Its inputs may lie outside [0, 1]."""
    identity = identity_of(Sign(), images())
    for peak in (1.0, 4.0):
        attack = {"pgd": PGD(Linf(EPS, peak=peak), steps=1)}
        found = evaluate(Sign(), images(), attack)
        found.save(tmp_path / f"peak{peak:g}", suite="papers", identity=identity)
    assert set(stored_evaluations(tmp_path, Linf(EPS))) == {"peak1"}
    assert set(stored_evaluations(tmp_path, Linf(EPS, peak=4.0))) == {"peak4"}
    norms = {read_attacked(file).norm for file in tmp_path.glob("*.json")}
    assert norms == {"linf", "linf peak=4"}
