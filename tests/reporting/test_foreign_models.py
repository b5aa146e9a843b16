"""The report of a foreign model: its attacks and audit, without sections about training."""

import json
import re

import pytest

from spikeguard.cli.entry import main
from spikeguard.reporting.renderer import report
from spikeguard.storage.atomic_files import write_json
from tests.toys.report_pages import SCRIPT, text_of
from tests.toys.report_runs import NETWORKS, plant_attacks, plant_audit, plant_run, truncate

CARD = {
    "model": "nets:vgg",
    "data": "digits",
    "weights": "8759b4466e5e",
    "framework": "snntorch",
    "T": 6,
    "presentation": "steps",
    "readout": "mean",
    "arguments": ["--model", "nets:vgg", "--weights", "my w.pt", "--T", "6", "--data", "digits"],
}
NAMED = "--model nets:vgg --weights 'my w.pt' --T 6 --data digits --out"


@pytest.fixture
def foreign(tmp_path):
    """The folder of a foreign model, attacked at 0.2 and audited."""
    path = tmp_path / "foreign"
    write_json(path / "model.json", CARD)
    plant_attacks(path, 0.2, 98.6, NETWORKS["TGO"][0.2])
    plant_audit(path, failed=("S4",))
    return path


def sections(page):
    return re.findall(
        r'<(?:section|details class="section") id="(\w+)"',
        SCRIPT.sub("", page.read_text(encoding="utf-8")),
    )


def test_its_attacks_its_sweep_and_its_audit_are_shown_and_no_training(foreign, tmp_path):
    page = report([foreign], tmp_path / "report.html")
    text = text_of(page)
    assert sections(page) == ["verdict", "attacks", "radius", "audit", "recipe", "words"]
    for words in (
        "Robustness of nets:vgg 1 network · digits · L∞ attacks at ε = 0.2",
        "PGD-40 with its own surrogate is 29.0 points too optimistic: at most 1.0 % survive",
        "own surrogate 63.0 %, worst of 5 54.8 %",
        "What was attacked digits: settings, commands Setting nets:vgg Data set digits "
        "Network nets:vgg Framework snntorch Time steps T 6 Presentation steps Readout mean",
        f"spikeguard attack {NAMED} {foreign} --suite demo --norm linf --eps 0.2 --limit 500",
        f"spikeguard audit {NAMED} {foreign}",
    ):
        assert words in text, words
    for absent in ("recipe.yaml", "Environment", "Membrane potentials", "Best epoch"):
        assert absent not in text
    source = SCRIPT.sub("", page.read_text(encoding="utf-8"))
    assert set(re.findall(r'href="#([^"]+)"', source)) <= set(re.findall(r'\sid="([^"]+)"', source))


def test_missing_results_are_shown_with_a_command_that_names_the_model(foreign, tmp_path):
    (foreign / "audit.json").unlink()
    text = text_of(report([foreign], tmp_path / "report.html"))
    assert f"not run: spikeguard audit {NAMED} {foreign}" in text
    assert f"spikeguard audit {foreign}" not in text


@pytest.mark.slow
def test_it_is_shown_beside_a_run(foreign, tmp_path):
    run = plant_run(tmp_path / "run", "Run")
    plant_attacks(run, 0.2, 97.6, NETWORKS["AT"][0.2])
    page = report([foreign, run], tmp_path / "report.html")
    text = text_of(page)
    assert {"training", "membrane", "recipe"} <= set(sections(page))
    assert "Time steps T 6 4" in text
    assert "Framework snntorch unknown" in text and "Epochs unknown 15" in text
    assert "CPU unknown Planted CPU" in text
    assert f"{run}/recipe.yaml" in text and f"{foreign}/recipe.yaml" not in text
    assert text.count("Run not run: spikeguard audit") >= 1


def test_a_plain_classifier_of_an_older_version_has_no_steps_and_no_arguments(foreign, tmp_path):
    card = {name: CARD[name] for name in ("model", "data", "weights")}
    write_json(foreign / "model.json", card)
    text = text_of(report([foreign], tmp_path / "report.html"))
    assert "Network nets:vgg SHA-256 of the weights 8759b4466e5e" in text
    assert f"spikeguard audit --model nets:vgg --data digits --out {foreign}" in text


def test_a_damaged_card_is_named(foreign, tmp_path):
    write_json(foreign / "model.json", {"model": "nets:vgg"})
    with pytest.raises(ValueError, match=r"model\.json: damaged: it holds no 'data'"):
        report([foreign], tmp_path / "report.html")
    truncate(foreign / "model.json")
    with pytest.raises(ValueError, match=r"model\.json: damaged: "):
        report([foreign], tmp_path / "report.html")


def test_the_command_takes_the_folder(foreign, capsys):
    assert main(["report", str(foreign)]) == 0
    assert (foreign / "report.html").is_file()
    capsys.readouterr()
    (foreign / "model.json").unlink()
    assert main(["report", str(foreign)]) == 2
    assert "not a run folder, it holds no recipe.yaml" in capsys.readouterr().err


def test_hostile_cards_are_escaped(foreign, tmp_path):
    hostile = "</script><script>window.pwned = 1</script>"
    card = json.loads((foreign / "model.json").read_text())
    write_json(foreign / "model.json", card | {"model": hostile, "framework": hostile})
    page = report([foreign], tmp_path / "report.html")
    assert "<script>window.pwned" not in page.read_text(encoding="utf-8")
    assert hostile in text_of(page)
