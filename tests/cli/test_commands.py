"""The command line, the public names and the run folder, on a network that trains in a second."""

import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import spikeguard as sg
from spikeguard.attacks import Linf
from spikeguard.attacks.registry import ATTACKS
from spikeguard.auditing.findings import Verdict
from spikeguard.auditing.numbers import Bound, PrintedNumber
from spikeguard.cli import entry as cli
from spikeguard.cli.commands import list as listing
from spikeguard.cli.commands.demo import _cells
from spikeguard.cli.entry import main
from spikeguard.config.schema import EvaluateSection, load_recipe
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation
from spikeguard.runs.attack_results import attack_name
from spikeguard.runs.demo import DemoRow
from spikeguard.runs.recipe_training import train_recipe
from spikeguard.runs.run import Run
from spikeguard.storage import run_folder as run_files
from spikeguard.storage.atomic_files import write_npz
from spikeguard.storage.digests import CHECKSUM, FILES, IDENTITY, file_digest, sealed
from spikeguard.system.environment import describe
from tests.toys.small_evaluations import Shift, Sign, pair

pytestmark = pytest.mark.slow

TINY = [
    "data.train_limit=60",
    "data.test_limit=12",
    "model.T=2",
    "model.width=2",
    "model.hidden=8",
    "train.epochs=2",
    "evaluate.suite=quick",
    "evaluate.eps=0.1",
    "evaluate.limit=",
    "evaluate.checkpoint=best",
]
TRAIN = ["train", "demo/vanilla", *TINY]
COMMANDS = ["demo", "train", "attack", "audit", "analyse", "report", "reproduce", "list", "bench"]
COMMANDS += ["sweep", "map", "export"]
HELP = [[name] for name in COMMANDS] + [["data", "download"], ["data", "check"], ["map", "compare"]]
HELP += [["launch", "torchrun"], ["launch", "slurm"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run; tests may add files to it, never change one."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main([*TRAIN, "--out", str(path)]) == 0
    return path


def weights(path):
    return load_file(path / run_files.BEST / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def text_of(words, capsys):
    assert main(words) == 0
    return capsys.readouterr().out


# --- help, names


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["list", "recipes"], ["--version"]]
)
def test_help_needs_no_torch(words):
    code = (
        "import sys; from spikeguard.cli import main\n"
        f"assert main({words!r}) == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_every_command_has_help_whose_examples_can_be_parsed(words, capsys):
    text = text_of([*words, "--help"], capsys)
    shown = [line.strip() for line in text.splitlines() if line.strip().startswith("spikeguard ")]
    assert shown
    for example in shown:
        command, _, _ = cli.app.parse_args(
            shlex.split(example)[1:], exit_on_error=False, print_error=False
        )
        assert command.__name__.rstrip("_") == words[-1]


def test_every_command_is_listed_with_a_line_of_help(capsys):
    text = text_of(["--help"], capsys)
    for name in [*COMMANDS, "data", "launch"]:
        assert f" {name} " in text


def test_version(capsys):
    assert text_of(["--version"], capsys).strip() == sg.__version__


@pytest.mark.parametrize("name", sg.__all__)
def test_every_public_name_can_be_used(name):
    assert getattr(sg, name) is not None
    assert name in dir(sg)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = sg.nonsense


def test_modules_and_functions_do_not_shadow_each_other():
    assert inspect.isfunction(sg.train)
    assert inspect.isfunction(sg.evaluate)
    assert inspect.isfunction(sg.report)
    assert inspect.ismodule(sg.neurons)
    assert inspect.ismodule(sg.attacks)


# --- list, data


@pytest.mark.parametrize("kind", [*listing._REGISTRIES, "recipes"])
def test_list_describes_every_entry(kind, capsys):
    lines = text_of(["list", kind], capsys).splitlines()
    overview = text_of(["list"], capsys)
    names = list(listing._described(kind, full=True))
    start = lines[0].index("what it is")
    rows = [line for line in lines[1 : lines.index("") if "" in lines else None] if line[0] != " "]
    for name, line in zip(names, rows, strict=True):  # a long row goes on in indented lines
        assert line.split()[0] == name
        assert line[start:].strip()  # every entry has a description, in the same column
        assert line[start - 1] == " "
    assert all(name in overview for name in names if kind != "recipes")


@pytest.mark.parametrize("kind", listing._REGISTRIES)
def test_list_shows_no_markup(kind, capsys):
    text = text_of(["list", kind], capsys)
    assert not re.search(r"``|:\w+:`|\\[|*_`]", text)


def test_markup_is_left_out():
    """What docstrings have: a role, literals, an escaped bar."""
    assert (
        listing._plain(r":func:`MLP` of ``x``, \|x\| and :class:`~a.B`") == "MLP of x, |x| and a.B"
    )


def test_list_attacks_shows_every_setting_and_its_default(capsys):
    for name, factory in ATTACKS.items():
        text = " ".join(text_of(["list", "attacks", name], capsys).split())
        for key, parameter in inspect.signature(factory).parameters.items():
            if key != "threat":
                shown = parameter.default if isinstance(parameter.default, int) else ""
                assert f"{key}={str(shown).lower()}" in text
                assert f"{key}: " in text  # what it means


def test_list_suites_shows_the_lines_of_a_suite(capsys):
    text = text_of(["list", "suites", "tgo-table3"], capsys)
    assert "mtpgd steps=40 step_size=0.01@8/255 momentum=0.9 eot=3" in text
    assert "Source: TGO, section 5.2" in text


def test_doubtful_printed_numbers_are_listed_with_their_note(capsys):
    text = " ".join(text_of(["list", "recipes", "tgo/cifar100-vgg11-at"], capsys).split())
    assert "66.27 / 17.2 / 8.3 (tgo, Table 2); PGD-7: printed below PGD-10" in text


def test_lists_are_plain_text(capsys):
    """No markup of docstrings; tables have no line above 120 columns and no trailing spaces."""
    for kind in (*listing._REGISTRIES, "recipes"):
        text = text_of(["list", kind], capsys).partition("\n\n")[0]
        assert not re.search(r"`|:\w+:|\\", text), kind
        assert all(len(line) <= 120 and line == line.rstrip() for line in text.splitlines())
    assert "max(0, width - |x|)" in text_of(["list", "surrogates"], capsys)
    assert "Not VGG11." in text_of(["list", "models"], capsys)


def test_list_of_one_recipe_says_what_was_chosen_where_its_paper_is_silent(capsys):
    name = "tgo/cifar10-wrn16_4-at"  # others begin so too
    text = text_of(["list", "recipes", name], capsys)
    readings = load_recipe(name).readings
    assert readings and all(f"* {each}" in text for each in readings)
    folder = text_of(["list", "recipes", "tgo/"], capsys)
    assert not any(each in folder for each in readings) and "NAME" in folder


def test_list_recipes_prints_published_numbers_and_takes_a_prefix(capsys):
    text = text_of(["list", "recipes", "tgo/cifar10-wrn16_4-at-tgo"], capsys)
    (line,) = [each for each in text.splitlines() if each.startswith("tgo/")]
    assert line.rstrip().endswith("88.16 / 63.03 / 42.52  (tgo, Table 1)")
    lines = text_of(["list", "recipes", "mini/"], capsys).splitlines()[1:-3]
    assert {each.split("/")[0] for each in lines if not each.startswith(" ")} == {"mini"}
    (line,) = [each for each in lines if each.startswith("mini/cifar10-at ")]
    assert "91.32 / 39.14 / 21.15  (tgo, Table 1; not" in line
    assert main(["list", "recipes", "nowhere/"]) == 2
    assert "no recipes begin with 'nowhere/'" in capsys.readouterr().err


def test_another_name_of_a_recipe_is_listed_as_such(capsys):
    text = text_of(["list", "recipes", "tgo/cifar10-vgg11"], capsys)
    lines = {line.split()[0]: line for line in text.splitlines() if line.startswith("tgo/")}
    assert "another name of tgo/cifar10-vgg11-tgo" in lines["tgo/cifar10-vgg11"]
    assert "VGG11 on CIFAR-10, TGO" in lines["tgo/cifar10-vgg11-tgo"]


def test_data_check_reads_the_data_sets_on_disk(capsys, tmp_path):
    text = text_of(["data", "check", "--data-root", str(tmp_path)], capsys)
    assert "complete" in next(line for line in text.splitlines() if line.startswith("digits"))
    assert "not found" in next(line for line in text.splitlines() if line.startswith("mnist"))


# --- train


def test_training_leaves_a_complete_run_folder_and_says_what_is_next(tmp_path, capsys):
    path = tmp_path / "run"
    assert main([*TRAIN, "--out", str(path)]) == 0
    shown = capsys.readouterr()
    for command in ("attack", "audit", "report"):
        assert f"spikeguard {command} {path}" in shown.out
    epochs = [line for line in shown.err.splitlines() if line.startswith("train: epoch")]
    assert sum("validation" in line for line in epochs) == 2  # of every finished epoch
    for name in (run_files.RECIPE, run_files.ENVIRONMENT, run_files.METRICS, run_files.RESULT):
        assert (path / name).is_file()
    assert len((path / run_files.METRICS).read_text().splitlines()) == 2
    assert json.loads((path / run_files.ENVIRONMENT).read_text())["seed"] == 0
    assert not list(path.rglob("*.tmp"))


def test_a_run_is_repeated_from_its_own_recipe(run, tmp_path):
    assert main(["train", str(run / run_files.RECIPE), "--out", str(tmp_path / "again")]) == 0
    assert same(weights(tmp_path / "again"), weights(run))
    first, second = (path / run_files.RECIPE for path in (run, tmp_path / "again"))
    assert second.read_text() == first.read_text()


def test_the_default_folder_is_named_after_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, "train.epochs=1"]) == 0
    assert (tmp_path / "runs/demo/vanilla" / run_files.RESULT).is_file()


def test_an_interrupted_training_ends_like_one_that_never_stopped(
    run, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "run"
    planted = list(TRAIN)

    def interrupt(self, done, total, what):
        if done >= 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("spikeguard.cli.commands.train.progress", _Calling(interrupt))
        assert main([*planted, "train.checkpoint_seconds=0", "--out", str(path)]) == 130
    planned, told = capsys.readouterr().err.strip().splitlines()
    assert planned.startswith("memory: about ")
    assert not (path / run_files.RESULT).exists()
    command = shlex.split(told.partition("continue with: ")[2])
    assert command[0] == "spikeguard"
    assert command[-1] == "--resume"
    assert main(command[1:]) == 0  # the line can be used unchanged
    assert same(weights(path), weights(run))


def test_resume_returns_a_finished_run_as_it_is(run):
    kept = run / run_files.CHECKPOINTS
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    assert main([*TRAIN, "--out", str(run), "--resume"]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == before


def test_resume_rejects_another_recipe_but_accepts_another_evaluation(run, capsys):
    assert main([*TRAIN, "train.lr=1e-3", "--out", str(run), "--resume"]) == 2
    assert "train.lr" in capsys.readouterr().err
    assert main([*TRAIN, "evaluate.batch_size=7", "--out", str(run), "--resume"]) == 0
    assert load_recipe(run / run_files.RECIPE).evaluate.batch_size == 7
    assert main([*TRAIN, "--out", str(run), "--resume"]) == 0


# --- attack, audit, report


def test_a_run_is_loaded_with_its_best_weights(run):
    loaded = Run.load(run)
    assert same(dict(loaded.model.state_dict()), weights(run))
    assert loaded.recipe == load_recipe(run / run_files.RECIPE)
    assert len(loaded.data.test) == 12


def test_attack_stores_a_result_and_reads_it_back(run, capsys, monkeypatch):
    words = ["attack", str(run), "--eps", "0.05,8/255", "--suite", "quick", "--limit", "6"]
    first = text_of(words, capsys)
    assert "pgd10" in first
    stems = {path.stem for path in (run / run_files.ATTACKS).glob("*.json")}
    assert {"quick-linf-0.05-first6", "quick-linf-8_255-first6"} <= stems
    stored = json.loads((run / run_files.ATTACKS / "quick-linf-0.05-first6.json").read_text())
    assert stored["samples"] == 6
    assert stored["suite"] == "quick"

    def never(*args, **kwargs):
        raise AssertionError("a finished attack was computed again")

    monkeypatch.setattr("spikeguard.evaluation.evaluator.evaluate", never)
    assert text_of(words, capsys) == first


def test_attacks_by_name_have_results_of_their_own(run, capsys):
    """Repeated; each with a file named after its settings, and read back from it."""
    words = ["attack", str(run), "--attack", "mtpgd steps=2 momentum=0.9 eot=2"]
    words += ["--attack", "rfgsm variant=stog"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "attack mtpgd steps=2 momentum=0.9 eot=2, linf eps 0.1" in shown
    stored = run / run_files.ATTACKS
    cards = [
        json.loads((stored / f"{name}.json").read_text())
        for name in ("mtpgd_steps=2_momentum=0.9-linf-0.1-eot2", "rfgsm_variant=stog-linf-0.1")
    ]
    assert [card["attack"] for card in cards] == [
        "mtpgd steps=2 momentum=0.9",
        "rfgsm variant=stog",
    ]
    assert [card["eot"] for card in cards] == [2, 1]
    assert cards[0]["attacks"]["mtpgd steps=2 momentum=0.9"]["settings"]["steps"] == 2
    before = {path: path.stat().st_mtime_ns for path in stored.iterdir()}
    assert main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in stored.iterdir()} == before
    assert capsys.readouterr().out == shown
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "MTPGD steps=2 momentum=0.9" in page
    assert "--attack &#39;rfgsm variant=stog&#39;" in page


def test_a_wrong_attack_is_rejected_before_any_runs(run, capsys):
    before = sorted((run / run_files.ATTACKS).iterdir())
    words = ["attack", str(run), "--attack", "pgd steps=1", "--attack", "mtpgd step=4"]
    assert main([*words, "--eps", "0.05"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "Did you mean 'steps'?" in told
    assert sorted((run / run_files.ATTACKS).iterdir()) == before


def test_audit_judges_an_attack_by_name_from_its_stored_result(run, tmp_path):
    """The number is that of the stored result: no attack is made for it."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    line = "pgd steps=3 restarts=2"
    loaded = Run.load(copy)
    stored = loaded.evaluate(line, eps=0.1).attacks[line]
    verdict = loaded.audit(attack=line, budget="quick")
    assert verdict.printed.attack.startswith("PGD-3")
    assert (verdict.printed.value, verdict.printed.n) == (stored.accuracy, stored.n)


def test_an_interrupted_attack_continues_at_the_next_batch(run, tmp_path, monkeypatch, capsys):
    from spikeguard.evaluation.shard_runner import ShardRunner

    words = ["attack", str(run), "--eps", "0.06", "--suite", "baseline"]
    whole, path = ShardRunner.run, run / run_files.ATTACKS / "baseline-linf-0.06"
    recipe = load_recipe(run / run_files.RECIPE, ["evaluate.batch_size=4"])
    monkeypatch.setattr("spikeguard.runs.run.load_recipe", lambda *args, **options: recipe)
    batches = []

    def counting(self, images, index, *rest):
        batches.append(index.tolist())
        if len(batches) == 2:
            raise KeyboardInterrupt
        return whole(self, images, index, *rest)

    monkeypatch.setattr(ShardRunner, "run", counting)
    assert main(words) == 130
    assert f"continue with: spikeguard attack {run}" in capsys.readouterr().err
    assert not path.with_name(f"{path.name}.json").exists()
    assert main(words) == 0
    assert [index[0] for index in batches] == [0, 4, 4, 8]
    assert path.with_name(f"{path.name}.json").exists()
    assert not path.exists()  # the parts are gone


def test_a_stored_result_of_other_attacks_is_not_passed_off_as_this_one(run, capsys):
    words = ["attack", str(run), "--eps", "0.07", "--suite", "baseline"]
    text_of(words, capsys)
    path = run / run_files.ATTACKS / "baseline-linf-0.07.json"
    stored = json.loads(path.read_text())
    stored["attacks"]["noise"]["settings"]["draws"] = 3
    path.write_text(json.dumps(sealed({k: v for k, v in stored.items() if k != CHECKSUM})))
    assert main(words) == 2
    assert "other attack settings" in capsys.readouterr().err


def test_a_cascade_and_a_bfloat16_search_have_results_of_their_own(run, capsys):
    words = ["attack", str(run), "--eps", "0.08", "--suite", "quick"]
    plain = text_of(words, capsys)
    lean = text_of([*words, "--cascade", "--precision", "bf16"], capsys)
    stem = run / run_files.ATTACKS / "quick-linf-0.08-cascade-bf16"
    stored = json.loads(stem.with_name(f"{stem.name}.json").read_text())
    assert (stored["cascade"], stored["precision"], stored["suite"]) == (True, "bf16", "quick")
    assert "after this and all cheaper attacks" in lean
    assert "+ pgd10" in lean
    assert text_of([*words, "--no-cascade", "--precision", "32"], capsys) == plain
    assert text_of([*words, "--cascade", "--precision", "bf16"], capsys) == lean
    for suffix in (".json", ".npz", ".worst.npz"):  # a plain one under its name
        before = stem.with_name(f"quick-linf-0.08{suffix}").read_bytes()
        stem.with_name(f"{stem.name}{suffix}").write_bytes(before)
    assert main([*words, "--cascade", "--precision", "bf16"]) == 2
    assert "other attack settings" in capsys.readouterr().err


def test_what_an_attack_costs_is_said_before_it(run, capsys):
    assert main(["attack", str(run), "--eps", "0.055", "--suite", "baseline"]) == 0
    assert "at most 5 gradients each" in capsys.readouterr().err


def test_kept_inputs_are_scored_again_and_a_planted_fault_is_found(run, capsys):
    words = ["attack", str(run), "--eps", "0.3", "--suite", "quick"]
    text_of(words, capsys)
    assert "scored again:" in text_of([*words, "--rescore"], capsys)
    stem = run / run_files.ATTACKS / "quick-linf-0.3"
    with np.load(stem.with_name(f"{stem.name}.worst.npz")) as kept:
        x, accuracy = kept["x"], kept["accuracy"]
    worst, card = (stem.with_name(stem.name + end) for end in (".worst.npz", ".json"))
    write_npz(worst, x=x, accuracy=accuracy + 0.25)
    assert main([*words, "--rescore"]) == 2
    assert "its SHA-256 is not the one in the .json file" in capsys.readouterr().err
    stored = json.loads(card.read_text())
    stored[FILES][".worst.npz"] = file_digest(worst)
    card.write_text(json.dumps(sealed({k: v for k, v in stored.items() if k != CHECKSUM})))
    assert main([*words, "--rescore"]) == 1
    assert "NOT the" in capsys.readouterr().out
    assert main(["attack", str(run), "--eps", "0.31", "--rescore"]) == 2
    assert "attack first, without --rescore" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".worst.npz", ".npz"])
@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_kept_inputs_that_cannot_be_read_are_named_with_what_to_do(damage, suffix, run, capsys):
    words = ["attack", str(run), "--eps", "0.04", "--suite", "baseline"]
    stem = run / run_files.ATTACKS / "baseline-linf-0.04"
    card, file = (stem.with_name(stem.name + end) for end in (".json", suffix))
    card.unlink(missing_ok=True)
    text_of(words, capsys)
    file.unlink() if damage == "gone" else file.write_bytes(b"no arrays")
    assert main([*words, "--rescore"]) == 2
    changed = "damaged, its SHA-256 is not the one in the .json file"
    problem = "no such file" if damage == "gone" else changed
    advice = "move baseline-linf-0.04.json away and run the attack again."
    assert capsys.readouterr().err == f"spikeguard attack: {file}: {problem}; {advice}\n"
    card.unlink()
    text_of(words, capsys)  # the advice is good
    assert "as reported" in text_of([*words, "--rescore"], capsys)


def test_without_a_terminal_every_batch_has_a_progress_line(run, capsys, monkeypatch):
    """3 batches of 4 images: each line names the attack and the time left."""
    recipe = load_recipe(run / run_files.RECIPE, ["evaluate.batch_size=4"])
    monkeypatch.setattr("spikeguard.runs.run.load_recipe", lambda *args, **options: recipe)
    assert main(["attack", str(run), "--eps", "0.045", "--suite", "baseline"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "attack with" in line]
    first, *between, last = [line.partition(": ")[2] for line in told]
    assert first.startswith("noise (") and " left)" not in first
    assert len(between) >= 2
    assert all(line.startswith("noise (") and " left)" in line for line in between)
    assert re.fullmatch(r"done \((\d+)/\1\)", last)


def test_standard_is_a_cascade_by_itself(run, capsys):
    words = ["attack", str(run), "--eps", "0.3", "--suite", "standard", "--limit", "2"]
    text_of(words, capsys)
    card = json.loads((run / run_files.ATTACKS / "standard-linf-0.3-first2.json").read_text())
    assert card["cascade"] is True
    assert attack_name("standard", 0.3, EvaluateSection(cascade=False)).endswith("each")


def test_two_processes_attack_a_run_as_one_does(run, capsys, tmp_path):
    """12 images: two shards of 6, whose outcomes are those of one process."""
    words = ["--eps", "0.25", "--suite", "quick"]
    other = tmp_path / "other"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns(run_files.ATTACKS))
    alone = text_of(["attack", str(run), *words], capsys)
    assert main(["attack", str(other), *words, "--jobs", "2"]) == 0
    told = capsys.readouterr()
    assert told.out.replace(str(other), str(run)) == alone
    lines = [line for line in told.err.splitlines() if "attack with" in line]
    assert re.search(r": done \((\d+)/\1\)$", lines[-1])
    stems = [path / run_files.ATTACKS / "quick-linf-0.25" for path in (run, other)]
    for end in (".npz", ".worst.npz"):
        one, two = (np.load(stem.with_name(stem.name + end)) for stem in stems)
        assert one.files == two.files
        assert all(np.array_equal(one[name], two[name]) for name in one.files)
    assert main(["attack", str(other), *words, "--jobs", "0"]) == 2
    assert "jobs counts processes, >= 1, got 0" in capsys.readouterr().err


def test_a_recipe_can_ask_for_a_lean_evaluation():
    """YAML reads a bare 32 as a number; it is meant as the name of the precision."""
    plan = load_recipe("demo/at", ["evaluate.cascade=true", "evaluate.precision=bf16"]).evaluate
    assert (plan.cascade, plan.precision) == (True, "bf16")
    assert load_recipe("demo/at", ["evaluate.precision=32"]).evaluate.precision == "32"
    with pytest.raises(ValueError, match=r"evaluate\.precision.*'32' or 'bf16', got '16'"):
        load_recipe("demo/at", ["evaluate.precision=16"])


def test_attack_results_have_distinct_names():
    plans = [
        EvaluateSection(),
        EvaluateSection(norm="l2"),
        EvaluateSection(limit=5),
        EvaluateSection(eot=3),
        EvaluateSection(draws=4),
        EvaluateSection(cascade=True),
        EvaluateSection(precision="bf16"),
        EvaluateSection(cascade=True, precision="bf16"),
    ]
    names = {attack_name("quick", eps, plan) for plan in plans for eps in (0.1, 8 / 255)}
    assert len(names) == 2 * len(plans)
    assert all(Path(name).name == name for name in names)
    other_batch = EvaluateSection(batch_size=3)
    assert attack_name("quick", 0.1, other_batch) == attack_name("quick", 0.1, plans[0])


def planted_verdict(status, refuted, bound=0.44):
    ends = (0.88, 0.84, 0.91, 200, 0.44, 0.37, 0.51) if refuted else (0.45, 0.4, 0.5, 200, 0, 0, 0)
    printed = PrintedNumber("PGD-40", "refuted" if refuted else "within", *ends)
    return Verdict((), Bound(status, bound, 0.4, 0.5, 200, checks=40), printed)


@pytest.mark.parametrize(
    ("status", "refuted", "words", "code"),
    [
        ("no fault found", False, ["--strict"], 0),
        ("faulty", False, ["--strict"], 3),
        ("faulty", True, ["--strict"], 3),
        ("no fault found", True, ["--strict"], 4),
        ("open", True, ["--strict"], 4),
        ("open", False, ["--strict"], 5),
        ("faulty", True, [], 0),
        ("no fault found", False, ["--min-robust", "44"], 0),
        ("no fault found", False, ["--min-robust", "44.5"], 6),
        ("open", False, ["--strict", "--min-robust", "90"], 5),
    ],
)
def test_the_exit_code_of_audit_names_the_judgement(
    run, monkeypatch, capsys, status, refuted, words, code
):
    verdict = planted_verdict(status, refuted)
    monkeypatch.setattr(Run, "audit", lambda self, **options: verdict)
    assert main(["audit", str(run), *words]) == code
    out = capsys.readouterr().out
    assert verdict.printed.statement in out and verdict.bound.statement in out
    assert (run / run_files.MEMBRANE).is_file()


def test_the_bound_that_was_not_measured_is_below_every_demand(run, monkeypatch):
    verdict = Verdict((), Bound("faulty"), None)
    monkeypatch.setattr(Run, "audit", lambda self, **options: verdict)
    assert main(["audit", str(run), "--min-robust", "0"]) == 6


def test_audit_prints_json_and_nothing_else(run, capsys):
    out = text_of(["audit", str(run), "--quick", "--limit", "6", "--json"], capsys)
    stored = json.loads((run / run_files.AUDIT).read_text())
    shown = json.loads(out)
    assert shown.pop("schema") == "spikeguard/1" and shown.pop("command") == "audit"
    assert shown.pop("file") == str(run / run_files.AUDIT)
    assert shown.items() <= stored.items()
    assert stored.keys() - shown.keys() == {CHECKSUM, IDENTITY, "checkpoint"}


def test_a_typed_in_number_is_judged_against_the_bound(run, capsys):
    words = ["audit", str(run), "--quick", "--limit", "6", "--eps", "8/255"]
    typed = ["--printed", "99.5", "--protocol", "PGD-20 8/255, n 1000"]
    text_of([*words, *typed], capsys)
    printed = json.loads((run / run_files.AUDIT).read_text())["printed"]
    assert (printed["value"], printed["n"], printed["paired"]) == (0.995, 1000, False)
    assert printed["attack"] == "PGD-20 8/255, n 1000"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--printed", "62.3"], "the number of images is missing"),
        (["--printed", "162.3", "--printed-n", "10"], "a percentage in [0, 100], got 162.3"),
        (["--printed", "62", "--printed-n", "9", "--attack", "pgd40"], "both name the printed"),
        (["--protocol", "PGD-20, n 10"], "describe --printed, which is missing"),
        (["--max-gap", "-1"], "--max-gap: a number in [0, 100], got -1"),
        (["--min-robust", "101"], "--min-robust: a number in [0, 100], got 101"),
        (
            ["--printed", "62", "--protocol", "PGD-20 2/255, n 10", "--eps", "8/255"],
            "is at 2/255, the audit at 0.0313725; audit with --eps 2/255",
        ),
    ],
)
def test_a_printed_number_that_cannot_be_judged_is_rejected(run, capsys, words, message):
    assert main(["audit", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_stored_evaluation_lowers_the_bound(run, tmp_path, capsys):
    """A result in which no image survives: the bound is 0, whatever the audit finds."""
    run = shutil.copytree(run, tmp_path / "run")
    words = ["--eps", "0.01"]
    text_of(["attack", str(run), "--suite", "quick", *words, "--limit", "6"], capsys)
    (card,) = (run / run_files.ATTACKS).glob("quick-linf-0.01*.json")
    stem = card.with_name(card.name.removesuffix(".json"))
    found = Evaluation.load(stem)
    planted = replace(found, outcomes={**found.outcomes, "worst_case": torch.zeros(6).double()})
    planted.save(stem, suite="quick", identity=found.identity)
    text_of(["audit", str(run), "--quick", "--limit", "6", *words], capsys)
    verdict = json.loads((run / run_files.AUDIT).read_text())
    assert verdict["upper_bound"] == 0
    assert "the stored result quick-linf-0.01" in verdict["bound"]["statement"]
    replace(planted, labels=found.labels + 1).save(stem, suite="quick", identity=found.identity)
    assert main(["audit", str(run), "--quick", "--limit", "6", *words]) == 2
    assert "is of other images" in capsys.readouterr().err


def test_audit_keeps_its_verdict_in_the_run(run, capsys):
    text_of(["audit", str(run), "--limit", "6"], capsys)
    verdict = json.loads((run / run_files.AUDIT).read_text())
    assert verdict["status"] in ("no fault found", "faulty", "open")
    assert verdict["printed"]["attack"] == "PGD-40, own surrogate"
    said = {found["code"]: found["status"] for found in verdict["findings"]}
    assert said["S22"] == "pass"  # the recipe names the surrogate of the training


def test_audit_puts_the_number_of_a_named_attack_to_the_test(run, capsys):
    text_of(["audit", str(run), "--quick", "--limit", "6", "--attack", "pgd7"], capsys)
    asked = json.loads((run / run_files.AUDIT).read_text())["settings"]["reported"]
    assert (asked["kind"], asked["steps"]) == ("PGD", 7)


def test_report_writes_one_page_for_one_run_or_several(run, tmp_path, capsys, monkeypatch):
    out = text_of(["report", str(run)], capsys)
    assert str(run / run_files.REPORT) in out
    page = (run / run_files.REPORT).read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype")
    shutil.copytree(run, tmp_path / "runs/first")
    shutil.copytree(run, tmp_path / "runs/second")
    monkeypatch.chdir(tmp_path)
    text_of(["report", "runs/first", str(tmp_path / "runs/second")], capsys)
    assert (tmp_path / "runs" / run_files.REPORT).is_file()  # in the folder that both share


# --- demo


def test_the_bound_of_the_demo_is_that_of_the_suite_that_leaves_least():
    """Of four images one falls by a shift of 0.06, and three by one of 0.2."""
    x, y = pair([0.9, 0.65, 0.62, 0.55], [1] * 4)
    shifts = {"pgd40": Shift(-0.06, Linf(0.2)), "snn": Shift(-0.2, Linf(0.2))}
    results = tuple(
        evaluate(Sign(), (x, y), {name: shift}, check=False) for name, shift in shifts.items()
    )
    row = DemoRow("Planted", results, 0.1, "open")
    assert row.radii == (0.2,)
    cells = _cells(row, 0.2)
    assert cells[:3] == ("Planted", "0.2", "100.0%")
    assert "75.0 %" in cells[3] and "25.0 %" in cells[4]
    assert cells[5].startswith("50.0 [") and cells[6] == "bound: open"


def test_the_demo_continues_where_it_stopped(tmp_path, monkeypatch, capsys):
    from spikeguard.runs import demo

    monkeypatch.setattr(demo, "RECIPES", ("demo/vanilla",))
    monkeypatch.setattr(demo, "_QUICK", tuple(TINY))
    out = ["demo", "--quick", "--workers", "1", "--out", str(tmp_path / "demo")]

    def interrupt(self, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "audit", interrupt)
        assert main(out) == 130
    told = capsys.readouterr().err
    assert "continue with: spikeguard demo --quick" in told
    trained = [line for line in told.splitlines() if "] demo/vanilla, train: epoch" in line]
    assert sum("validation" in line for line in trained) == 2
    first = text_of(out, capsys)
    assert (tmp_path / "demo/vanilla" / run_files.AUDIT).is_file()
    assert (tmp_path / "demo" / run_files.REPORT).is_file()

    def never(*args, **kwargs):
        raise AssertionError("a finished stage was computed again")

    monkeypatch.setattr("spikeguard.evaluation.evaluator.evaluate", never)
    monkeypatch.setattr("spikeguard.auditing.auditor.audit", never)
    assert text_of(out, capsys) == first


# --- environment


def test_the_environment_names_versions_and_no_person(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    told = describe(["spikeguard", "train", "/home/somebody/x y.yaml"], seed=7)
    assert told["command"] == "spikeguard train '~/x y.yaml'"
    assert told["torch"] == torch.__version__
    assert told["seed"] == 7
    assert "somebody" not in json.dumps(told)


def test_a_machine_without_git_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert describe("x")["commit"] is None


class _Calling:
    """Replaces ``progress``: a context manager whose callback is the given function."""

    def __init__(self, update):
        self.update = update

    def __call__(self, task, **options):
        return self

    def __enter__(self):
        return lambda done, total, what: self.update(self, done, total, what)

    def __exit__(self, *error):
        return False


def test_a_noisy_run_is_attacked_with_averaged_gradients_by_default(tmp_path):
    """The default of EoT is 4 for a noisy model and 1 for any other."""
    recipe = load_recipe("demo/tgo", [*TINY, "evaluate.eot="])
    train_recipe(recipe, tmp_path / "noisy")
    noisy = Run.load(tmp_path / "noisy")
    found = noisy.evaluate("quick", eps=0.1)
    assert found.settings["fgsm"]["gradient"]["kind"] == "EoT"
    assert found.settings["fgsm"]["gradient"]["draws"] == 4
    told = noisy.evaluate("quick", eps=0.1, plan=recipe.evaluate.changed(eot=1))
    assert told.settings["fgsm"]["gradient"]["kind"] == "Backprop"


def test_a_plain_run_is_not_averaged(run):
    found = Run.load(run).evaluate("quick", eps=0.3)
    assert found.settings["fgsm"]["gradient"]["kind"] == "Backprop"
