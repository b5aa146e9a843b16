"""The report shows nothing of files that were edited, or of weights that are no longer there."""

import json
import shutil

import pytest
import torch

from spikeguard.auditing.findings import Finding, conclude
from spikeguard.cli.entry import main
from spikeguard.reporting.readers.collect import collect
from spikeguard.reporting.renderer import report
from spikeguard.runs.run import Run
from spikeguard.storage import checkpoints
from spikeguard.storage.digests import CHECKSUM, FILES, IDENTITY, UNVERIFIED
from tests.toys.report_pages import text_of

pytestmark = pytest.mark.slow

RECIPE = [
    *("demo/vanilla", "data.train_limit=60", "data.test_limit=12", "model.T=2", "model.width=2"),
    *("model.hidden=8", "train.epochs=1", "evaluate.suite=quick", "evaluate.eps=0.1"),
    "evaluate.limit=",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", *RECIPE, "--out", str(path)]) == 0
    assert main(["attack", str(path)]) == 0
    run = Run.load(path)
    run.membrane()
    card = json.loads(next((path / "attacks").glob("*.json")).read_text())
    settings = {"samples": 12, "threat": {"norm": "linf", "eps": 0.1}}
    finding = Finding("S1", "Same sample, same answer", "pass", "as it should be", "always")
    verdict = conclude([finding], settings=settings)
    verdict.save(path / "audit.json", identity=card[IDENTITY], checkpoint=card["checkpoint"])
    return path


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def edit(file, was, becomes):
    text = file.read_text()
    assert was in text
    file.write_text(text.replace(was, becomes, 1))


def card_of(run):
    return next((run / "attacks").glob("*.json"))


def test_the_healthy_run_is_reported_without_a_mark(run):
    assert UNVERIFIED.strip() not in text_of(report([run], run / "report.html"))


@pytest.mark.parametrize("name", ["attacks", "audit.json", "result.json"])
def test_every_edited_digit_is_found(run, name):
    file = card_of(run) if name == "attacks" else run / name
    text = file.read_text()
    digits = [place for place, letter in enumerate(text) if letter.isdigit()]
    found = 0
    for place in digits[:: max(1, len(digits) // 15)]:
        edited = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
        if json.loads(edited) == json.loads(text):
            continue
        file.write_text(edited)
        with pytest.raises(ValueError, match="checksum") as error:
            report([run], run / "report.html")
        assert str(file) in str(error.value) and "\n" not in str(error.value)
        found += 1
    assert found > 5
    assert not (run / "report.html").exists()


def test_an_edited_radius_is_found(run):
    edit(card_of(run), '"eps": 0.1', '"eps": 0.01')
    with pytest.raises(ValueError, match="checksum"):
        report([run], run / "report.html")


def test_an_edited_curve_is_found(run):
    edit(run / "metrics.jsonl", '"val_loss": ', '"val_loss": 1')
    with pytest.raises(ValueError, match=r"result.json: damaged: the SHA-256 of metrics.jsonl"):
        report([run], run / "report.html")


def test_outcomes_of_another_attack_are_found(run):
    arrays = card_of(run).with_suffix(".npz")
    data = arrays.read_bytes()
    arrays.write_bytes(data[:-30] + bytes([data[-30] ^ 1]) + data[-29:])
    with pytest.raises(ValueError, match=r"SHA-256 is not the one in the .json file"):
        report([run], run / "report.html")
    arrays.unlink()
    with pytest.raises(ValueError, match="no such file"):
        report([run], run / "report.html")


def older(file):
    card = json.loads(file.read_text())
    file.write_text(
        json.dumps({k: v for k, v in card.items() if k not in (CHECKSUM, IDENTITY, FILES)})
    )


def test_files_of_an_older_version_are_shown_and_marked(run):
    older(card_of(run))
    older(run / "audit.json")
    page = text_of(report([run], run / "report.html"))
    assert f"of an older version, cannot be verified: {card_of(run).stem}" in page
    assert "at L∞, ε = 0.1, n = 12, older version" in page


def test_a_file_of_an_older_version_must_agree_with_its_outcomes(run):
    older(card_of(run))
    card = json.loads(card_of(run).read_text())
    card["clean"]["accuracy"] += 1 / 12
    card["clean"]["high"] = 1.0
    card_of(run).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"the outcomes in the .npz file are"):
        report([run], run / "report.html")


@pytest.mark.parametrize(
    ("left", "again"),
    [("attacks", "attack"), ("audit.json", "audit"), ("analysis", "audit")],
)
def test_results_of_other_weights_are_refused(run, left, again):
    loaded = Run.load(run)
    before = checkpoints.load(run / "checkpoints" / "best")
    with torch.no_grad():
        next(loaded.model.parameters()).mul_(2)
    info = before.info
    checkpoints.save(run / "checkpoints" / "best", loaded.model, state=before.state, info=info)
    checkpoints.save(run / "checkpoints" / "last", loaded.model, state=before.state, info=info)
    for name in {"attacks", "audit.json", "analysis"} - {left}:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    with pytest.raises(ValueError, match=f"is of other weights; .*{again} again"):
        report([run], run / "report.html")


def test_an_audit_and_analyses_of_another_checkpoint_are_left_out_and_named(run):
    """All are of checkpoint "last"; "best" has other weights and is then the attacked one."""
    loaded = Run.load(run)
    assert main(["analyse", str(run), "activity"]) == 0
    place = run / "checkpoints" / "best"
    before = checkpoints.load(place)
    with torch.no_grad():
        next(loaded.model.parameters()).mul_(2)
    checkpoints.save(place, loaded.model, state=before.state, info=before.info)
    (network,) = collect([run])
    assert network.left_out == ()
    assert network.audited and network.membrane and list(network.analyses) == ["activity"]
    edit(run / "recipe.yaml", "checkpoint: last", "checkpoint: best")
    (network,) = collect([run])
    assert (network.audited, network.membrane, network.analyses) == (None, None, {})
    assert network.left_out == ("audit.json", "analysis/membrane.npz", "analysis/activity.npz")
    page = text_of(report([run], run / "report.html"))
    assert f"{', '.join(network.left_out)}." in page


def test_a_histogram_of_other_weights_is_measured_again(run):
    loaded = Run.load(run)
    before = loaded.membrane()
    with torch.no_grad():
        next(loaded.model.parameters()).mul_(5)
    after = loaded.membrane()
    assert after.weights != before.weights
    assert loaded.membrane().weights == after.weights
