"""TGO's tables and settings as its text prints them, against our suites and printed rows.

Skipped where the text of the paper is not there; $SPIKEGUARD_PAPERS names its folder.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from spikeguard.attacks.attack_lines import parse_line
from spikeguard.attacks.base import describe
from spikeguard.attacks.listed_suites import LISTED
from spikeguard.attacks.threat import Linf
from spikeguard.config.published import rows

ROOT = Path(__file__).parents[2]
TEXT = Path(os.environ.get("SPIKEGUARD_PAPERS", ROOT.parent / "shared" / "papers")) / "tgo.txt"
STRATEGIES = {"BPTT": [], "AT": ["at"], "RAT": ["rat"]}
NETWORKS = {"VGG-11": "vgg11", "WRN-16": "wrn16-4"}
THIRD = {"AT": "at", "SR+AT": "at+sr", "TGO+AT(EoT)": "at+tgo (eot 3)"}

pytestmark = pytest.mark.skipif(not TEXT.is_file(), reason=f"no text of the paper: {TEXT}")


@pytest.fixture(scope="module")
def text():
    return TEXT.read_text(encoding="utf-8")


def table(text, number):
    """Return the lines of a table, its caption first."""
    found = re.search(rf"^Table {number}:.*?(?=\n\n)", text, re.M | re.S)
    return found[0].splitlines()


def comparison(text, number, dataset):
    """Return Table 1 or 2 as {key: accuracies}; a cell has its number twice: "93.3293.32"."""
    _, _, head, *lines = table(text, number)
    columns = [name.lower() for name in head.split()]
    found, network, strategy = {}, "", ""
    for line in lines:
        *words, _ = line.split(maxsplit=len(line.split()) - len(columns))
        cells = line.split()[-len(columns) :]
        network = NETWORKS.get(words[0], network)
        words = words[1:] if words[0] in NETWORKS else words
        strategy = words[0] if len(words) > 1 and words[0] in STRATEGIES else strategy
        method = next(w for w in words[words[0] in STRATEGIES :] if w).removesuffix("(Ours)")
        extra = [] if method in ("Vanilla", "AT", "RAT") else [method.lower()]
        name = "+".join([*STRATEGIES[strategy], *extra]) or "vanilla"
        numbers = {
            column: float(cell[: len(cell) // 2])
            for column, cell in zip(columns, cells, strict=True)
            if cell != "-"
        }
        found[f"tgo/{number}/{dataset}/{network}/{name}"] = numbers
    return found


def third(text):
    """Return Table 3 as {key: accuracies}."""
    found, attack = {}, ""
    for line in table(text, 3)[1:]:
        words = line.split()
        if words[-1] == "Attack":
            attack = {"MTPGD": "mtpgd", "APGD": "apgd-ce"}[words[0]]
        elif words[0] == "Model":
            steps = words[1:]
        else:
            key = f"tgo/3/cifar100/wrn16-4/{THIRD[words[0]]}"
            numbers = map(float, words[-len(steps) :])
            found.setdefault(key, {}).update(
                {f"{attack}{n}": number for n, number in zip(steps, numbers, strict=True)}
            )
    return found


@pytest.mark.parametrize(("number", "dataset"), [(1, "cifar10"), (2, "cifar100")])
def test_the_rows_of_the_comparisons_are_those_of_the_text(text, number, dataset):
    found = comparison(text, number, dataset)
    ours = {k: dict(r.accuracies) for k, r in rows().items() if k.startswith(f"tgo/{number}/")}
    assert ours == found and len(found) == {1: 6, 2: 21}[number]


def test_the_rows_of_table_3_are_those_of_the_text(text):
    found = third(text)
    assert {k: dict(r.accuracies) for k, r in rows().items() if k.startswith("tgo/3/")} == found
    assert len(found) == 3 and all(len(each) == 8 for each in found.values())


def stated(text):
    """Return the settings that the text states for the attacks of Tables 1 and 3."""
    one = re.search(r"intensity of (\d+)/255 and a step size of (0\.\d+)", text)
    three = re.search(r"\(momentum=(0\.\d+), [^=]*=(\d+)/255\)", text)
    return {
        "eps": {int(one[1]) / 255, int(three[2]) / 255},
        "step_size": float(one[2]),
        "momentum": float(three[1]),
        "eot": int(re.search(r"EoT repeats N=(\d)", text)[1]),
        "loss": re.search(r"APGD uses (\w+) loss", text)[1],
        "columns": table(text, 1)[2].lower().split()[1:],
        "steps": [int(word) for word in table(text, 3)[2].split()[1:]],
    }


def problems(text, first, last):
    """Return in what two suites differ from the settings that the text states."""
    said, found = stated(text), []
    (eps,) = said["eps"]
    built = {
        name: describe(parse_line(line).build(Linf(eps), suite.eot))
        for suite in (first, last)
        for name, line in suite.attacks.items()
    }
    wanted = {"fgsm": {"kind": "FGSM"}, "rfgsm": {"kind": "RFGSM"}}
    for name in said["columns"][2:]:
        steps = int(name.removeprefix("pgd"))
        wanted[name] = {"kind": "PGD", "steps": steps, "step_size": said["step_size"]}
    for steps in said["steps"]:
        wanted[f"mtpgd{steps}"] = {
            "kind": "MTPGD",
            "steps": steps,
            "step_size": said["step_size"],
            "momentum": said["momentum"],
        }
        loss = {"CE": "cross_entropy"}[said["loss"]]
        wanted[f"apgd-ce{steps}"] = {"kind": "APGD", "steps": steps, "loss": loss}
    if list(first.attacks) != said["columns"] or set(last.attacks) != set(wanted) - {
        *first.attacks
    }:
        found.append("attacks")
    if (first.eot, last.eot) != (1, said["eot"]):
        found.append("eot")
    for name, settings in wanted.items():
        for key, value in settings.items():
            has = built.get(name, {}).get(key)
            has = has.get("name", has) if isinstance(has, dict) else has
            if has != (pytest.approx(value) if isinstance(value, float) else value):
                found.append(f"{name}: {key} {has}, not {value}")
    return found


def test_the_suites_have_the_settings_that_the_text_states(text):
    """The step of MTPGD is not stated; here it is that of the other attacks."""
    assert problems(text, LISTED["tgo-table1"], LISTED["tgo-table3"]) == []


@pytest.mark.parametrize(
    ("suite", "name", "line", "problem"),
    [
        ("tgo-table1", "pgd10", "pgd steps=10 step_size=0.02@8/255", "pgd10: step_size 0.02"),
        ("tgo-table1", "pgd20", "pgd steps=21 step_size=0.01@8/255", "pgd20: steps 21, not 20"),
        ("tgo-table3", "mtpgd7", "mtpgd steps=7 step_size=0.01@8/255", "mtpgd7: momentum"),
        ("tgo-table3", "apgd-ce40", "apgd steps=40 loss=dlr", "apgd-ce40: loss"),
    ],
)
def test_a_planted_setting_is_noticed(text, suite, name, line, problem):
    suites = {each: LISTED[each] for each in ("tgo-table1", "tgo-table3")}
    suites[suite] = replace(suites[suite], attacks={**suites[suite].attacks, name: line})
    (found,) = problems(text, suites["tgo-table1"], suites["tgo-table3"])
    assert found.startswith(problem)


def test_planted_eot_is_noticed(text):
    first, last = LISTED["tgo-table1"], LISTED["tgo-table3"]
    assert problems(text, first, replace(last, eot=4)) == ["eot"]
