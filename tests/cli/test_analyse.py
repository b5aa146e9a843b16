"""``spikeguard analyse``: runs and analyses in one line, tables, JSON, wrong words."""

import json

import pytest

from spikeguard.cli.entry import main

pytestmark = pytest.mark.slow

TINY = ["data.train_limit=60", "data.test_limit=12", "model.T=2", "evaluate.limit="]
TINY += ["model.width=2", "model.hidden=8", "train.epochs=1", "evaluate.checkpoint=last"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished tiny runs."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("vanilla", "tgo"):
        assert main(["train", f"demo/{name}", *TINY, "--out", str(folder / name)]) == 0
    return [str(folder / "vanilla"), str(folder / "tgo")]


def test_two_runs_stand_in_one_table_and_on_one_page(runs, capsys, tmp_path):
    assert main(["analyse", *runs, "zeros", "--limit", "5"]) == 0
    out, err = capsys.readouterr()
    assert "Zeros in the gradient, operation by operation (zeros)" in out
    rows = [line.split()[0] for line in out.splitlines() if line.startswith(("vanilla ", "tgo "))]
    assert rows == ["vanilla", "tgo"]
    assert "1 analysis, about 1 s" in err
    page = tmp_path / "page.html"
    assert main(["report", *runs, "--out", str(page), "--tables", str(tmp_path / "tables")]) == 0
    text = page.read_text()
    assert 'id="gradients"' in text and 'id="analysis-zeros-' in text
    assert len((tmp_path / "tables" / "zeros.csv").read_text().splitlines()) == 3


def test_what_does_not_apply_is_skipped_and_the_others_are_shown(runs, capsys):
    assert main(["analyse", *runs, "gates", "zeros", "--limit", "3"]) == 0
    out, err = capsys.readouterr()
    assert err.count("gates skipped: the network has no DLIF layer") == 2
    assert "(zeros)" in out and "(gates)" not in out and out.count("results in") == 2
    assert main(["analyse", runs[0], "gates"]) == 0
    out, err = capsys.readouterr()
    assert "gates skipped" in err and out == ""


def test_runs_of_other_radii_stand_in_one_table(runs, capsys, tmp_path):
    path = str(tmp_path / "other")
    assert main(["train", "demo/vanilla", *TINY, "evaluate.eps=0.05", "--out", path]) == 0
    capsys.readouterr()
    assert main(["analyse", runs[0], path, "gain", "--limit", "2"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "features." in line]
    assert {row.split()[0] for row in rows} == {"vanilla", "other"}


def test_without_a_name_all_run_and_only_their_results_are_printed(runs, capsys, monkeypatch):
    from spikeguard.analysis import ANALYSES

    for name in [each for each in ANALYSES if each not in ("zeros", "activity")]:
        monkeypatch.delitem(ANALYSES, name)
    assert main(["analyse", runs[0], "--limit", "4"]) == 0
    out = capsys.readouterr().out
    assert "(zeros)" in out and "(activity)" in out and "tables: name an analysis" in out
    assert "Network " not in out


def test_json_holds_axes_and_values(runs, capsys):
    assert main(["analyse", runs[0], "zeros limit=4", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["command"]) == ("spikeguard/1", "analyse")
    found = shown["results"][runs[0]]["zeros-limit=4"]
    assert found["samples"] == 4 and found["settings"]["limit"] == 4
    zeros = found["quantities"]["zeros"]
    assert zeros["axes"] == ["operation"] and zeros["unit"] == "share"
    assert len(zeros["values"]) == len(found["axes"]["operation"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one run folder"),
        (["zeros"], "name at least one run folder"),
        (["RUN", "zero"], "'zero' is neither a run folder nor an analysis. Did you mean 'zeros'"),
        (["RUN", "RUN"], "is named twice"),
        (["RUN", "zeros", "--limit", "0"], "--limit: a number of images >= 1, got 0"),
        (["RUN", "zeros", "--eps", "0.1,0.2"], "--eps: an analysis has one radius"),
        (["RUN", "zeros", "--eps", "-1"], "eps"),
        (["RUN", "zeros", "--eps", "0.1"], "--eps: zeros applies no attack; leave it out"),
        (["RUN", "zeros", "--attack", "fgsm"], "--attack: zeros applies no attack"),
        (["RUN", ""], "an empty value after"),
        (["RUN", "zeros", "--attack", "pgd9"], "unknown attack 'pgd9'"),
        (["RUN", "zeros", "--weights", "net.pt"], "--weights goes with --model"),
        (["RUN", "--model", "m:f"], "name at least one run folder"),
        (["no/such/run", "zeros"], "no such run folder"),
    ],
)
def test_wrong_words_get_one_line_and_exit_code_2(runs, capsys, words, message):
    assert main(["analyse", *[runs[0] if word == "RUN" else word for word in words]]) == 2
    out, err = capsys.readouterr()
    assert message in err and len(err.strip().splitlines()) == 1
    assert out == ""
