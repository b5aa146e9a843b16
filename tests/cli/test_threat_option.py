"""``spikeguard attack --threat``: read, checked and run on a network for event frames."""

import json

import numpy as np
import pytest

from spikeguard.cli.entry import main
from spikeguard.cli.threat_option import parsed_threats, threat_text
from spikeguard.config.errors import ConfigError
from tests.toys.moving_events import moving_bars

RECIPE = """
title: Bars
source: SpikeGuard's own
seed: 0
data: {name: DATA}
model: {name: cnn, T: 5, width: 4, hidden: 8, neuron: {name: lif, decay: 0.5, v_th: 0.5}}
objective: []
train: {epochs: 1, batch_size: 32, optimizer: adam, lr: 5e-3}
evaluate: {eps: [4], norm: edits, suite: [events-papers], limit: 4}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    parts = {}
    for name, n, seed in (("train", 64, 0), ("test", 8, 1)):
        x, y = moving_bars(n, seed)
        parts |= {f"x_{name}": x.numpy().astype("uint8"), f"y_{name}": y.numpy()}
    np.savez(folder / "bars.npz", **parts)
    recipe = folder / "bars.yaml"
    recipe.write_text(RECIPE.replace("DATA", str(folder / "bars.npz")), encoding="utf-8")
    assert main(["train", str(recipe), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_each_line_is_a_result_that_names_its_threat_set(run, capsys):
    lines = ["--threat", "flips budget=3", "--threat", "retiming max_shift=1 total=4"]
    options = ["--attack", "pgd steps=2", *lines, "--limit", "4"]
    assert main(["attack", str(run), *options]) == 0
    said = capsys.readouterr().out
    assert "pgd steps=2, flips budget=3" in said
    assert "retiming max_shift=1 total=4" in said
    names = sorted(each.name for each in (run / "attacks").glob("pgd*.json"))
    assert names == [
        "pgd_steps=2-flips-3.0-first4.json",
        "pgd_steps=2-retiming_total=4-1.0-first4.json",
    ]
    card = json.loads((run / "attacks" / names[1]).read_text(encoding="utf-8"))
    assert card["threat"] == {"norm": "retiming total=4", "eps": 1.0}
    assert main(["attack", str(run), *options, "--rescore"]) == 0
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "--threat" in page


def test_the_recipe_names_a_threat_set_on_events(run, capsys):
    assert main(["attack", str(run), "--attack", "raw-events steps=2", "--limit", "4"]) == 0
    said = capsys.readouterr().out
    assert "edits budget=4" in said and "soft" in said and "hard" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--threat", "flip budget=3"], "Did you mean 'flips'?"),
        (["--threat", "flips budget=0"], "a radius of 0 allows no change"),
        (["--threat", "flips budget=3", "--eps", "3"], "leave --eps out"),
        (["--threat", "flips budget=3", "--norm", "l2"], "leave --norm out"),
        (["--threat", "flips budget=3", "--threat", "flips budget=3"], "given twice"),
        (["--threat", "counts budget=3"], 'use "flips budget=...".'),
        (["--suite", "standard", "--threat", "flips budget=3"], "defined for"),
        (["--attack", "apgd", "--threat", "flips budget=3"], "defined for images"),
        (["--attack", "sda", "--norm", "linf", "--eps", "0.1"], "defined for flips"),
        (["--threat", "linf eps=0.5 peak=4"], "peak is above the values"),
    ],
)
def test_a_threat_set_that_does_not_fit_is_refused_in_one_line(run, options, says, capsys):
    before = sorted((run / "attacks").glob("*")) if (run / "attacks").exists() else []
    assert main(["attack", str(run), *options]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and "\n" not in error
    after = sorted((run / "attacks").glob("*")) if (run / "attacks").exists() else []
    assert after == before


def test_lines_are_read_in_order():
    lines = ["flips budget=3", "linf eps=8/255"]
    assert parsed_threats(lines, None, None) == [("flips", 3.0), ("linf", 8 / 255)]
    assert parsed_threats(None, ["3"], "l2") == []
    assert [threat_text(*each) for each in parsed_threats(lines, None, None)] == [
        "flips budget=3",
        "linf eps 8/255",
    ]
    with pytest.raises(ConfigError, match="--threat 'flips'"):
        parsed_threats(["flips"], None, None)
