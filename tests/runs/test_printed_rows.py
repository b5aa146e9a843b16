"""Printed numbers in the table of a reproduction: difference, interval, size, and the command."""

import json

import pytest

from spikeguard.attacks.base import describe
from spikeguard.attacks.suites import suite as suite_of
from spikeguard.config.published import row
from spikeguard.config.schema import load_recipe
from spikeguard.evaluation.statistics import wilson
from spikeguard.runs.printed_rows import (
    about,
    difference_text,
    printed_markdown,
    printed_numbers,
    size_lines,
)
from spikeguard.storage.atomic_files import write_json
from tests.toys.report_runs import plant_attacks, plant_run

NAME = "tgo/cifar10-wrn16_4-at-tgo"
ROW = "tgo/1/cifar10/wrn16-4/at+tgo"
NAMES = ("fgsm", "pgd10")


def planted(path, fgsm, *, n=10_000, eot=1, changes=()):
    """A run of the paper's recipe with an FGSM accuracy in per cent; PGD-10 has the other 20."""
    plant_run(path, "AT + TGO")
    recipe = load_recipe(NAME, changes)
    recipe.save(path / "recipe.yaml")
    file = plant_attacks(path, 8 / 255, 88.0, (fgsm, 20.0, 20.0), names=NAMES, n=n)
    card = json.loads(file.read_text())
    built = suite_of("papers", eps=8 / 255, eot=eot)
    for name in NAMES:
        card["attacks"][name]["settings"] = describe(built[name])
    write_json(file, {**card, "stochastic": True, "eot": eot, "suite": "papers"})
    return recipe, path


def found(*runs):
    return {number.attack: number for number in printed_numbers(NAME, runs)}


def test_the_difference_of_one_run_has_the_interval_of_both_counts(tmp_path):
    """Newcombe's method 10, from Wilson's intervals of 60 % and 63.03 % of 10,000 images."""
    numbers = found(planted(tmp_path / "run", 60.0))
    assert set(numbers) == set(row(ROW).accuracies)
    fgsm = numbers["fgsm"]
    assert (fgsm.printed, fgsm.ours.mean) == (pytest.approx(0.6303), 0.6)
    low, high = wilson(6000, 10_000)
    printed_low, printed_high = wilson(6303, 10_000)
    below = ((0.6 - low) ** 2 + (printed_high - 0.6303) ** 2) ** 0.5
    above = ((high - 0.6) ** 2 + (0.6303 - printed_low) ** 2) ** 0.5
    assert fgsm.difference.value == pytest.approx(-0.0303)
    assert fgsm.difference.low == pytest.approx(-0.0303 - below)
    assert fgsm.difference.high == pytest.approx(-0.0303 + above)
    assert difference_text(fgsm) == "-3.0 [-4.4, -1.7]"
    assert (fgsm.size, fgsm.note, fgsm.command) == ((), "", "")


def test_seeds_that_differ_widen_the_interval(tmp_path):
    """50 and 70 %: Student's interval of two seeds is the whole of [0, 1]."""
    runs = [planted(tmp_path / f"s{seed}", fgsm) for seed, fgsm in enumerate((50.0, 70.0))]
    fgsm = found(*runs)["fgsm"]
    assert fgsm.ours.seeds == (0.5, 0.7)
    assert fgsm.difference.value == pytest.approx(0.6 - 0.6303)
    assert fgsm.difference.low < 0.6 - 0.6303 - 0.6 + 0.001
    alike = [planted(tmp_path / f"a{seed}", 60.0) for seed in (0, 1)]
    assert found(*alike)["fgsm"].difference.low > -0.05  # the images are still a doubt


def test_a_number_of_another_protocol_has_no_difference_but_a_command(tmp_path):
    numbers = found(planted(tmp_path / "run", 60.0, eot=4))
    fgsm = numbers["fgsm"]
    assert (fgsm.ours, fgsm.difference, difference_text(fgsm)) == (None, None, "")
    assert fgsm.note == "our run has EoT 4, not 1"
    line = "--attack 'fgsm eot=1' --norm linf --eps 8/255"
    assert fgsm.command == f"spikeguard attack {tmp_path / 'run'} {line}"
    assert f"| FGSM | 63.03 | not run: `{fgsm.command}` |  | " in "\n".join(
        printed_markdown(list(numbers.values()))
    )


def test_one_seed_without_the_number_is_enough_to_leave_it_out(tmp_path):
    runs = [planted(tmp_path / "s0", 60.0), planted(tmp_path / "s1", 60.0, eot=4)]
    fgsm = found(*runs)["fgsm"]
    assert fgsm.ours is None
    assert str(tmp_path / "s1") in fgsm.command


def test_a_run_of_another_size_is_marked(tmp_path):
    run = planted(tmp_path / "run", 60.0, n=500, changes=["train.epochs=25", "model.width=0.25"])
    numbers = found(run)
    fgsm = numbers["fgsm"]
    assert fgsm.size == ("500 test images, not 10,000", "width 0.25, not 1", "epochs 25, not 300")
    assert about(fgsm) == "not at this size"
    (line,) = size_lines(list(numbers.values()))
    assert line.startswith(f"{NAME} is not of the size of {ROW}: ") and "epochs 25" in line
    whole = found(planted(tmp_path / "whole", 60.0))
    assert about(whole["fgsm"]) == "" and size_lines(list(whole.values())) == []


def test_the_note_of_a_doubtful_number_stands_beside_it(tmp_path):
    recipe, path = planted(tmp_path / "run", 60.0)
    doubtful = recipe.model_copy(update={"published": ("tgo/2/cifar100/vgg11/at",)})
    numbers = {n.attack: n for n in printed_numbers(NAME, [(doubtful, path)])}
    assert "printed below PGD-10" in about(numbers["pgd7"])


def test_recipes_that_reproduce_no_row_have_no_such_table(tmp_path):
    recipe, path = planted(tmp_path / "run", 60.0)
    plain = recipe.model_copy(update={"published": ()})
    assert list(printed_numbers(NAME, [(plain, path)])) == []
    assert printed_markdown([]) == []
