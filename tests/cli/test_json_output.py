"""--json: one object on standard output, of the documented schema; everything else on stderr."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikeguard.cli.commands import list as listing
from spikeguard.cli.entry import app, main
from spikeguard.cli.json_output import SCHEMA, is_json, write_result
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.statistics import Score, over_seeds
from spikeguard.runs.demo import DemoResult, DemoRow
from spikeguard.runs.reproduction import Entry, Reproduced
from spikeguard.storage.digests import CHECKSUM, IDENTITY
from spikeguard.storage.run_folder import ATTACKS, AUDIT
from tests.toys.report_runs import plant_demo
from tests.toys.small_evaluations import Shift, Sign, pair

pytestmark = pytest.mark.slow

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
NET = """
import os
import torch
from torch import nn

print("imported")

def net():
    print("loading weights")
    os.write(1, b"from compiled code\\n")
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
"""
MODEL = ["--model", "my_json_nets:net", "--T", "1", "--data", "digits", "--out", "mine"]
ATTACK = ["attack", *MODEL, "--suite", "baseline", "--eps", "0.1", "--limit", "20", "--no-check"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "my_json_nets.py").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("my_json_nets", None)


def result(words, capsys, code=0):
    assert main([*words, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    name = " ".join(words[:2]) if words[0] == "data" else words[0]
    assert (found["schema"], found["command"]) == (SCHEMA, name)
    assert [key for key in found if f"`{key}`" not in DOCUMENTED] == []
    return found


def test_every_command_has_the_option_and_is_documented():
    commands = {name: app[name] for name in ("attack", "audit", "train", "report", "reproduce")}
    commands |= {name: app[name] for name in ("demo", "bench", "list", "sweep", "map", "export")}
    commands |= {f"data {name}": app["data"][name] for name in ("check", "download")}
    for name, command in commands.items():
        options = {n for each in command.assemble_argument_collection() for n in each.names}
        assert "--json" in options, name
        assert f"| `{name}` |" in DOCUMENTED
    assert f"schema is `{SCHEMA}`" in DOCUMENTED


def test_what_a_users_code_prints_goes_to_stderr_in_a_process(folder):
    """As a shell runs it, with workers of its own: only the object is on standard output."""
    source = str(Path(__file__).parents[2] / "src")
    environment = {**os.environ, "PYTHONPATH": source}
    command = [sys.executable, "-m", "spikeguard", *ATTACK, "--json"]
    for jobs in ("1", "2"):
        out = ["--out", f"jobs{jobs}", "--jobs", jobs]
        words = [word for word in command if word not in ("--out", "mine")]
        done = subprocess.run([*words, *out], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["results"][0]["samples"] == 20
        for text in ("imported", "loading weights", "from compiled code", "suite baseline"):
            assert text in done.stderr


def test_attack_prints_what_it_stores(folder, capsys):
    found = result(ATTACK, capsys)
    (entry,) = found["results"]
    (stored,) = Path("mine", ATTACKS).glob("*.json")
    card = json.loads(stored.read_text(encoding="utf-8"))
    assert found["folder"] == f"mine/{ATTACKS}"
    assert (entry["suite"], entry["norm"], entry["eps"]) == ("baseline", "linf", 0.1)
    for name in ("clean", "attacks", "worst_case", "threat", "samples", "seed"):
        assert entry[name] == card[name]
    assert [key for key in entry if f"`{key}`" not in DOCUMENTED] == []
    again = result([*ATTACK, "--rescore"], capsys)["results"][0]
    assert again["agrees"] is True
    assert again["accuracy"] == again["reported"] == card["worst_case"]["accuracy"]


def test_audit_prints_what_it_stores(folder, capsys):
    words = ["audit", *MODEL, "--quick", "--limit", "6", "--eps", "0.1", "--no-check"]
    found = result(words, capsys)
    assert found.pop("file") == f"mine/{AUDIT}"
    del found["schema"], found["command"]
    stored = json.loads(Path("mine", AUDIT).read_text(encoding="utf-8"))
    assert found.items() <= stored.items()
    assert stored.keys() - found.keys() <= {CHECKSUM, IDENTITY, "checkpoint"}


def test_list(capsys):
    kinds = result(["list"], capsys)["kinds"]
    assert set(kinds) == {*listing._REGISTRIES, "recipes"}
    assert "lif" in kinds["neurons"]
    found = result(["list", "recipes", "demo/"], capsys)
    assert found["kind"] == "recipes"
    assert [entry["name"] for entry in found["names"]] == [
        n for n in kinds["recipes"] if "demo/" in n
    ]
    assert all(entry["description"] for entry in found["names"])


def test_data_check(tmp_path, capsys):
    found = result(["data", "check", "--data-root", str(tmp_path)], capsys)["data_sets"]
    by_name = {entry.pop("name"): entry for entry in found}
    digits = {"train": 1297, "test": 500, "shape": [1, 8, 8], "state": "complete"}
    assert by_name["digits"] == digits
    assert by_name["mnist"]["train"] is None and "complete" not in by_name["mnist"]["state"]


def test_report_and_its_tables(tmp_path, capsys):
    runs = [str(path) for path in plant_demo(tmp_path)]
    found = result(["report", *runs, "--tables", str(tmp_path / "tables")], capsys)
    assert found["report"] == str(tmp_path / "report.html")
    assert found["tables"] == str(tmp_path / "tables")
    assert list((tmp_path / "tables").glob("accuracy-linf-*.csv"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["report", *runs, "--tables", str(tmp_path / "file")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_train(tmp_path, capsys):
    changes = ["data.train_limit=60", "data.test_limit=12", "model.T=2", "model.width=2"]
    changes += ["model.hidden=8", "train.epochs=2", "evaluate.limit="]
    found = result(["train", "demo/vanilla", *changes, "--out", str(tmp_path / "run")], capsys)
    assert found["folder"] == str(tmp_path / "run")
    assert [line["epoch"] for line in found["history"]] == [1, 2]


def test_demo(monkeypatch, capsys):
    found = evaluate(Sign(), pair(), {"shift": Shift(0.1)})
    row = DemoRow("a", (found,), 0.25, "open")
    made = DemoResult((row,), Path("report.html"))
    monkeypatch.setattr("spikeguard.runs.demo.run_demo", lambda *args, **options: made)
    shown = result(["demo"], capsys)
    assert shown["report"] == "report.html"
    (network,) = shown["networks"]
    assert (network["name"], network["audit"], network["near_threshold"]) == ("a", "open", 0.25)
    assert network["results"] == json.loads(json.dumps([found.to_dict()]))


def test_reproduce(monkeypatch, capsys):
    scores = {"clean": over_seeds([Score(0.5, 0.4, 0.6, 10)])}
    entry = Entry("mini/a", "quick", 0.1, 10, (0,), scores, 0.0, (1.0, 2.0))
    made = Reproduced((entry,), ())
    monkeypatch.setattr("spikeguard.runs.reproduction.reproduce", lambda *a, **options: made)
    shown = result(["reproduce", "mini", "--out", "there"], capsys)
    assert (shown["folder"], shown["diverged"]) == ("there", [])
    assert shown["entries"][0]["scores"]["clean"]["mean"] == 0.5


def test_an_error_prints_no_object(capsys):
    assert main(["attack", "no-such-run", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "spikeguard attack: no-such-run: no such run folder.\n"


def test_results_are_plain_and_strict(capsys):
    write_result("attack", {"a": Score(0.5, 0.4, 0.6, 10), "b": float("nan"), "c": (Path("x"),)})
    expected = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 10}
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"], found["c"]) == (expected, None, ["x"])


def test_the_option_is_recognised():
    assert is_json(["audit", "x", "--json"]) and is_json(["audit", "--json=true"])
    assert not is_json(["audit", "json"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell):
    script = app.generate_completion(prog_name="spikeguard", shell=shell)
    for word in ("attack", "reproduce", "precision", "json", "surrogates"):
        assert word in script


def test_completion_is_installed_on_request(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert main(["--install-completion"]) == 0
    assert [path.name for path in tmp_path.rglob("spikeguard")] == ["spikeguard"]
