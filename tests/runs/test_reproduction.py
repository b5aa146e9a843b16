"""reproduce: every recipe at every seed, resumable, one table with intervals over seeds."""

import json
import math
import shutil

import pytest

from spikeguard.cli.entry import main
from spikeguard.evaluation.statistics import Score, over_seeds, wilson
from spikeguard.runs import reproduction
from spikeguard.runs.reproduction import reproduce, table
from spikeguard.runs.run import Run
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import CHECKSUM, sealed
from spikeguard.training.divergence import TrainingDiverged

pytestmark = pytest.mark.slow

TINY = [
    "data.name=digits",
    "data.augment=",
    "data.train_limit=40",
    "data.test_limit=8",
    "model.T=2",
    "model.width=2",
    "model.hidden=8",
    "train.epochs=1",
    "evaluate.suite=quick",
    "evaluate.eps=[0.1]",
    "evaluate.limit=8",
]
ONLY = "mnist-vanilla"


def score(accuracy, n=100):
    return Score(accuracy, *wilson(accuracy * n, n), n)


def test_the_interval_over_three_seeds_is_students():
    """50, 60, 70 %: mean 60, deviation 10, half-width 4.303 * 10 / sqrt(3) = 24.84."""
    found = over_seeds([score(0.5), score(0.6), score(0.7)])
    half = 0.4303 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half))
    assert str(found) == "60.0 [35.2, 84.8] (50.0, 60.0, 70.0)"
    assert found.sampling == wilson(60, 100)


def test_seeds_that_agree_leave_the_images_as_the_only_doubt():
    found = over_seeds([score(0.5), score(0.5)])
    assert (found.low, found.high) == (0.5, 0.5)
    assert found.sampling == wilson(50, 100)


def test_the_uncertainty_from_the_images_is_that_of_the_fewest():
    """Whatever the order of the seeds."""
    scores = [Score.from_share(0.5, n) for n in (100, 10_000)]
    assert over_seeds(scores).sampling == over_seeds(scores[::-1]).sampling == wilson(50, 100)


def test_one_seed_has_no_interval_over_seeds():
    found = over_seeds([score(0.25)])
    assert (found.low, found.high, str(found)) == (None, None, "25.0 (25.0)")


def test_an_interval_stays_among_the_accuracies():
    found = over_seeds([score(0.0), score(1.0)])
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Two finished tiny runs and their table."""
    path = tmp_path_factory.mktemp("mini")
    found = reproduce("mini", path, seeds=(0, 1), only=[ONLY], changes=TINY, jobs=1)
    assert [entry.recipe for entry in found.entries] == [f"mini/{ONLY}"]
    assert found.diverged == ()
    return path


def test_the_table_has_the_numbers_of_the_runs(out):
    card = json.loads((out / "table.json").read_text())
    (entry,) = card["entries"]
    runs = [Run.load(out / f"{ONLY}-s{seed}") for seed in (0, 1)]
    for attack in ("clean", "fgsm", "worst_case"):
        found = [run.evaluate("quick", eps=0.1) for run in runs]
        each = [(e.attacks | {"clean": e.clean, "worst_case": e.worst_case})[attack] for e in found]
        assert entry["scores"][attack]["seeds"] == [s.accuracy for s in each]
    assert (entry["samples"], entry["seeds"], entry["eps"]) == (8, [0, 1], 0.1)
    text = (out / "table.md").read_text()
    assert f"| mini/{ONLY} | 0.1 | 8 |" in text
    active = [run.evaluate("quick", eps=0.1).activity for run in runs]
    spikes, operations = (
        sum(each) / 2 for each in ([a.spikes.mean for a in active], [a.operations for a in active])
    )
    assert spikes > 0 and operations > spikes
    assert (entry["spikes"], entry["operations"]) == pytest.approx((spikes, operations))
    assert f" | {spikes:,.0f} | {operations:,.0f} | " in text


def test_a_result_without_activity_leaves_its_cells_empty(out, tmp_path):
    shutil.copytree(out, tmp_path / "old")
    for card in (tmp_path / "old").glob("*-s1/attacks/*.json"):
        content = {k: v for k, v in json.loads(card.read_text()).items() if k != "activity"}
        write_json(card, sealed({k: v for k, v in content.items() if k != CHECKSUM}))
    (entry,) = table("mini", tmp_path / "old", seeds=(0, 1), changes=TINY)
    assert (entry.spikes, entry.operations) == (None, None)
    assert " |  |  | " in (tmp_path / "old" / "table.md").read_text()


def test_finished_runs_are_not_repeated(out, monkeypatch):
    def never(*args, **options):
        raise AssertionError("run again")

    monkeypatch.setattr(reproduction, "_run", never)
    again = reproduce("mini", out, seeds=(0, 1), only=[ONLY], changes=TINY, jobs=1)
    assert len(again.entries) == 1


def test_an_interrupted_reproduction_continues(out, monkeypatch):
    """The attack of seed 1 is lost: only it is run again, with the same result."""
    (lost,) = (out / f"{ONLY}-s1" / "attacks").glob("*.json")
    before = json.loads(lost.read_text())
    lost.unlink()
    done, run = [], reproduction._run

    def spy(recipe, path, *rest):
        done.append(path.name)
        run(recipe, path, *rest)

    monkeypatch.setattr(reproduction, "_run", spy)
    assert reproduction.table("mini", out, seeds=(0, 1), changes=TINY) == []
    reproduce("mini", out, seeds=(0, 1), only=[ONLY], changes=TINY, jobs=1)
    assert done == [f"{ONLY}-s1"]
    assert json.loads(lost.read_text())["worst_case"] == before["worst_case"]


def test_another_recipe_in_the_folder_is_rejected(out):
    with pytest.raises(ValueError, match=r"started with another recipe: train.epochs was 1"):
        reproduce("mini", out, seeds=(0,), only=[ONLY], changes=[*TINY, "train.epochs=2"], jobs=1)


def test_a_diverged_training_is_reported_and_does_not_stop_the_others(tmp_path):
    """Planted in seed 0; seed 1 is trained and can be tabulated without it."""
    train, seen = reproduction.train_recipe, []

    def explode(recipe, path, **options):
        seen.append(recipe.seed)
        if recipe.seed == 0:
            raise TrainingDiverged("the loss is nan", epoch=1, step=1, term=None, layer=None)
        return train(recipe, path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduction, "train_recipe", explode)
        found = reproduce("mini", tmp_path, seeds=(0, 1), only=[ONLY], changes=TINY, jobs=1)
    assert seen == [0, 1]
    assert found.entries == ()
    assert found.diverged == (f"{tmp_path / ONLY}-s0: the loss is nan",)
    assert found.empty == (f"{tmp_path / ONLY}-s0: no result of quick at 0.1",)
    assert len(reproduction.table("mini", tmp_path, seeds=(1,), changes=TINY)) == 1


def test_two_processes_give_the_table_of_one(out, tmp_path):
    reproduce("mini", tmp_path, seeds=(0, 1), only=[ONLY], changes=TINY, jobs=2)
    tables = [json.loads((path / "table.json").read_text())["entries"] for path in (out, tmp_path)]
    one, two = ({**entries[0], "seconds": None} for entries in tables)
    assert one == two


def test_the_command_prints_the_table(out, capsys):
    words = ["reproduce", "mini", *TINY, "--only", ONLY, "--seeds", "0,1", "--out", str(out)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].startswith(f"mini/{ONLY}")
    assert str(out / "table.md") in shown


def test_a_noisy_network_is_in_the_table(tmp_path, capsys):
    """Its recipe has no evaluate.eot: four gradients are averaged, and the file is named so."""
    recipe = "cifar100-vgg11-nlif"
    words = ["reproduce", "tgo", *TINY, "model.name=cnn"]
    words += ["evaluate.attacks=[rfgsm variant=stog eot=1]"]
    words += ["--only", recipe, "--seeds", "0"]
    assert main([*words, "--jobs", "1", "--out", str(tmp_path)]) == 0
    assert {p.name for p in (tmp_path / f"{recipe}-s0" / "attacks").glob("*.json")} == {
        "quick-linf-0.1-eot4-first8-last.json",
        "rfgsm_variant=stog-linf-0.1-first8-last.json",
    }
    card = json.loads((tmp_path / "table.json").read_text())
    assert [(entry["recipe"], entry["suite"]) for entry in card["entries"]] == [
        (f"tgo/{recipe}", "quick"),
        (f"tgo/{recipe}", "rfgsm variant=stog eot=1"),
    ]
    assert [number["attack"] for number in card["printed"]][:2] == ["clean", "fgsm"]
    shown = capsys.readouterr().out
    assert "not at this size" in shown and "--attack 'fgsm eot=1'" in shown
    assert "## Beside the printed numbers" in (tmp_path / "table.md").read_text()


def test_an_empty_row_ends_the_command_with_a_line_and_a_code(out, monkeypatch, capsys):
    """Planted: the attack of seed 1 leaves no result."""
    words = ["reproduce", "mini", *TINY, "--only", ONLY, "--seeds", "0,1", "--out", str(out)]
    (card,) = (out / f"{ONLY}-s1" / "attacks").glob("*.json")
    away = card.rename(card.with_suffix(".away"))
    monkeypatch.setattr(
        reproduction, "run_in_processes", lambda run, work, *rest: [None] * len(work)
    )
    try:
        assert main(words) == 1
    finally:
        away.rename(card)
    assert f"empty row: {out / ONLY}-s1: no result of quick at 0.1" in capsys.readouterr().out
    assert main(words) == 0
    assert "empty row" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nowhere"], "'nowhere' is not a folder of recipes; folders: demo, "),
        (["mini", "--only", "imagenet"], "no recipe of 'mini' has 'imagenet' in its name"),
        (
            ["mini", "--only", "cifar10-at,imagenet"],
            "no recipe of 'mini' has 'imagenet' in its name",
        ),
        (["mini", "--jobs", "0"], "jobs counts processes, >= 1, got 0"),
        (["mini", "--seeds", "1,1"], "none twice, got [1, 1]"),
        (["mini", "--seeds", "a"], "--seeds: expected whole numbers, got 'a'"),
    ],
)
def test_wrong_use_is_rejected_in_one_line(tmp_path, capsys, words, part):
    assert main(["reproduce", *words, "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert part in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_several_texts_take_what_any_of_them_fits():
    from spikeguard.runs.reproduction import _named

    assert _named("mini", ["mnist-at", "snn-bp"]) == [
        *("mini/cifar10-snn-bp", "mini/mnist-at", "mini/mnist-at-tgo")
    ]
    assert len(_named("mini", [])) > 30
