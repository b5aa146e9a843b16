"""Published numbers beside measured ones: only equal attacks are compared."""

import json
import shlex
from pathlib import Path

import pytest

from spikeguard.attacks.base import describe
from spikeguard.attacks.suites import suite as suite_of
from spikeguard.cli.entry import main
from spikeguard.config.attack_lines import build_attack
from spikeguard.config.protocols import protocol_of
from spikeguard.config.published import PAPERS, row, rows
from spikeguard.config.schema import load_recipe
from spikeguard.reporting.readers.collect import collect
from spikeguard.reporting.renderer import report
from spikeguard.reporting.sections.published_numbers import comparisons
from spikeguard.storage.atomic_files import write_json
from tests.toys.report_runs import plant_attacks, plant_run

ROW = "tgo/1/cifar10/wrn16-4/at+tgo"
PRINTED = {"clean": 88.16, "fgsm": 63.03, "rfgsm": 79.69, "pgd7": 42.52, "pgd10": 35.01}
PRINTED |= {"pgd20": 24.76, "pgd40": 20.11}  # read off Table 1 of the paper by hand
NAMES = ("fgsm", "rfgsm", "pgd7", "pgd10", "pgd20", "pgd40")
OURS = (50.0, 45.0, 30.0, 28.0, 22.0, 20.0, 18.0)  # and the worst case


def test_a_row_holds_what_the_table_prints():
    assert row(ROW).accuracies == PRINTED
    assert (row(ROW).key, row(ROW).short) == (ROW, "tgo, Table 1")
    assert row("stable-snn/1/cifar10/vgg11/at dlif rho=1.0").accuracies["apgd-dlr10"] == 39.68


def test_every_row_is_whole():
    assert len(rows()) == 129
    assert sum(len(each.accuracies) for each in rows().values()) == 692
    for key, each in rows().items():
        assert each.key == key
        assert each.paper in PAPERS
        assert all(0 <= accuracy <= 100 for accuracy in each.accuracies.values())
        assert set(each.notes) <= set(each.accuracies)


def test_an_unknown_row_gets_the_nearest_key():
    with pytest.raises(ValueError, match=r"no published row .*Did you mean 'tgo/1/cifar10/wrn16"):
        row("tgo/1/cifar10/wrn16_4/at+tgo")


@pytest.mark.parametrize(
    ("key", "attack", "part"),
    [
        ("tgo/2/cifar100/wrn16-4/rat+dlif", "pgd20", "14.16"),
        ("tgo/2/cifar100/vgg11/at", "pgd7", "below PGD-10"),
        ("tgo/4/cifar100/vgg11/mc+nlif", "fgsm", "Table 2 prints 17.20"),
        ("stable-snn/1/cifar100/vgg11/snn-rat", "pgd7", "10.38"),
        ("gradient-trail/3/cifar100/SEW-ResNet34/undefended, average pooling", "fgsm", "decrease"),
    ],
)
def test_numbers_known_to_be_inconsistent_carry_a_note(key, attack, part):
    assert part in row(key).notes[attack]


def test_copied_numbers_are_those_they_were_copied_from():
    """TGO's Table 2 copies stable-snn's WRN-16-4 row, but for the two numbers with a note."""
    copied = row("tgo/2/cifar100/wrn16-4/rat+dlif")
    origin = row("stable-snn/1/cifar100/wrn16-4/at+rat dlif rho=0.0").accuracies
    differing = {a for a, accuracy in copied.accuracies.items() if accuracy != origin[a]}
    assert differing == {"pgd20", "pgd40"}
    assert all(f"{origin[a]:g}" in copied.notes[a] for a in differing)


# --- ours beside theirs


def plant(path, published=ROW, **attacks):
    """Write a run whose recipe names a row, attacked at 8/255."""
    plant_run(path, "AT + TGO")
    recipe = json.loads((path / "recipe.yaml").read_text())
    write_json(path / "recipe.yaml", {**recipe, "published": [published]})
    return path


def attacked(path, names=NAMES, ours=OURS, suite="papers", eps=8 / 255, n=500, eot=1, **card):
    """Plant the result of a suite with the suite's settings."""
    file = plant_attacks(path, eps, 90.0, ours, names=names, n=n)
    found = json.loads(file.read_text())
    built = {
        name: describe(attack)
        for name, attack in suite_of(suite, eps=eps, eot=eot, norm="linf").items()
    }
    for name in names:
        found["attacks"][name]["settings"] = built[name]
    write_json(file, {**found, "suite": suite, "eot": eot, **card})
    file.rename(file.with_name(f"{suite}-eot{eot}-{file.name}"))


def pairs(path):
    (found,) = comparisons(collect([path]))
    return {pair.attack: pair for pair in found.pairs}


def ours(path):
    (found,) = comparisons(collect([path]))
    return {
        pair.attack: None if pair.ours is None else round(100 * pair.ours.accuracy, 6)
        for pair in found.pairs
    }


def test_equal_attacks_stand_side_by_side(tmp_path):
    path = plant(tmp_path / "run")
    attacked(path)
    (found,) = comparisons(collect([path]))
    assert [pair.theirs for pair in found.pairs] == [f"{value:g}" for value in PRINTED.values()]
    expected = dict(zip(NAMES, OURS[:-1], strict=True)) | {"rfgsm": None}
    assert list(ours(path).values()) == [90.0, *expected.values()]
    assert found.hint == ""


def test_no_text_calls_an_rfgsm_above_fgsm_impossible():
    """That it is not is shown in tests/attacks/searches/test_pgd.py."""
    page = Path(__file__).parents[2] / "docs" / "attacks" / "rfgsm.md"
    said = [PAPERS["tgo"].protocol, *PAPERS["tgo"].undefined.values()]
    assert not any("cannot be" in text for text in said)
    assert "far above the FGSM accuracy does not tell the variant" in page.read_text("utf-8")


def test_an_attack_that_the_paper_does_not_define_stands_beside_nothing(tmp_path):
    """TGO's R+FGSM: the measured variants are named instead."""
    path = plant(tmp_path / "run")
    attacked(path)
    (found,) = comparisons(collect([path]))
    (pair,) = [each for each in found.pairs if each.attack == "R+FGSM"]
    assert (pair.ours, pair.command) == (None, "")
    assert "defines its R+FGSM only as" in pair.note
    assert "measured variants: tramer 45.0 %" in pair.note


@pytest.mark.parametrize(
    "planted",
    [
        {"cascade": True},
        {"precision": "bf16"},
        {"names": [f"pgd20/width{w}" for w in ("0.5", "1", "2", "4")], "suite": "compare"},
        {"eps": 4 / 255},
    ],
)
def test_another_attack_is_never_the_counterpart(tmp_path, planted):
    """A cascade, a search in bfloat16, another surrogate, another radius."""
    path = plant(tmp_path / "run")
    names = planted.get("names", NAMES)
    attacked(path, ours=(*OURS[: len(names)], 1.0), **planted)
    found = ours(path)
    assert set(found) == {"Clean", "FGSM", "R+FGSM", "PGD-7", "PGD-10", "PGD-20", "PGD-40"}
    assert [value for attack, value in found.items() if attack != "Clean"] == [None] * 6
    assert found["Clean"] == 90.0  # which is of no attack


def test_an_attack_of_the_same_name_with_another_step_is_not_the_same(tmp_path):
    """PGD-10 of the suite "quick" has a step of 2.5 eps / 10; the papers' is 0.01."""
    path = plant(tmp_path / "run")
    attacked(path, names=("pgd10",), ours=(5.0, 5.0), suite="quick", n=800)
    pair = pairs(path)["PGD-10"]
    assert pair.ours is None
    assert pair.note == "our run has step_size default, not 0.01"
    attacked(path)
    assert ours(path)["PGD-10"] == 28.0


def test_averaged_gradients_are_not_the_single_gradient_of_the_paper(tmp_path):
    """Table 1 of TGO has one gradient a step: the run with EoT 1 stands beside it, not that with 4.

    For a network without noise the average changes nothing.
    """
    path = plant(tmp_path / "run")
    attacked(path, eot=4, stochastic=True, ours=[100 * x for x in (0.6,) * 7], n=800)
    pair = pairs(path)["PGD-10"]
    assert (pair.ours, pair.note) == (None, "our run has EoT 4, not 1")
    assert "--attack 'pgd steps=10 step_size=0.01@8/255 eot=1'" in pair.command
    attacked(path, eot=1, stochastic=True)
    assert ours(path)["PGD-10"] == 28.0
    plain = plant(tmp_path / "plain")
    attacked(plain, eot=4)
    assert ours(plain)["PGD-10"] == 28.0


def test_the_command_of_a_missing_number_makes_the_number_that_is_missing(tmp_path):
    """What the command would run is what the protocol asks for."""
    path = plant(tmp_path / "run")
    for attack, pair in pairs(path).items():
        if attack in ("Clean", "R+FGSM"):
            continue
        words = shlex.split(pair.command)
        line, eps = words[words.index("--attack") + 1], words[words.index("--eps") + 1]
        built = build_attack(line, eps=float(eps.split("/")[0]) / 255, norm="linf")
        wanted = protocol_of(row(ROW), attack.lower().replace("-", ""))
        (made,) = built.values()
        assert describe(made) == wanted.settings


def test_the_page_and_the_command_line_show_both(tmp_path, capsys):
    path = plant(tmp_path / "run", "tgo/2/cifar100/vgg11/at")
    attacked(path)
    page = report([path], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Beside published numbers" in page
    assert "printed below PGD-10" in page
    assert main(["report", str(path)]) == 0
    shown = capsys.readouterr().out
    (line,) = [each for each in shown.splitlines() if each.startswith("PGD-7 ")]
    assert line.split()[1:4] == ["8.3", "30.0", "%"]
    assert "its R+FGSM is not defined" in shown
    assert "the first 500 test images" in shown


def test_a_run_without_rows_has_no_such_section(tmp_path):
    path = plant_run(tmp_path / "run", "Plain")
    page = report([path], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Beside published numbers" not in page


def test_what_was_not_run_comes_with_its_command(tmp_path):
    path = plant(tmp_path / "run")
    (found,) = comparisons(collect([path]))
    assert found.hint.count("--attack") == 5
    assert "--eps 8/255" in found.hint
    page = report([path], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "step_size=0.01@8/255 eot=1" in page


def test_a_run_that_left_the_recipe_says_so(tmp_path):
    """Width and seed changed: the width is a difference, the seed is not."""
    path = plant(tmp_path / "run")
    notes = {}
    for changes in ([], ["seed=3"], ["train.epochs=15"], ["seed=3", "model.T=2"]):
        load_recipe("tgo/cifar10-wrn16_4-at-tgo", changes).save(path / "recipe.yaml")
        (found,) = comparisons(collect([path]))
        notes[tuple(changes)] = [note for note in found.notes if "does not follow" in note]
    assert notes[()] == notes[("seed=3",)] == []
    assert "train.epochs was 300 and is now 15" in notes[("train.epochs=15",)][0]
    assert "model.T was 4 and is now 2" in notes["seed=3", "model.T=2"][0]


def test_a_run_of_another_size_says_so(tmp_path):
    """The planted network is a small CNN on digits; the paper's own recipe is of its size."""
    path = plant(tmp_path / "run")
    notes = comparisons(collect([path]))[0].notes
    (note,) = [note for note in notes if "Not at this size: data digits, not cifar10" in note]
    assert "network cnn, not wrn16_4" in note and "epochs 15, not 300" in note
    load_recipe("tgo/cifar10-wrn16_4-at-tgo").save(path / "recipe.yaml")
    notes = comparisons(collect([path]))[0].notes
    assert not any("Not at this size" in note for note in notes)


def test_choices_that_the_paper_leaves_open_are_shown_beside_its_numbers(tmp_path):
    path = plant(tmp_path / "run")
    recipe = load_recipe("tgo/cifar10-wrn16_4-at-tgo")
    recipe.save(path / "recipe.yaml")
    (found,) = comparisons(collect([path]))
    assert recipe.readings and set(recipe.readings) <= set(found.notes)
