"""``spikeguard certify``: the table, JSON, the section of the report, wrong words."""

import json
import shutil

import pytest

from spikeguard.certification import certify
from spikeguard.cli.entry import main
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import sealed

pytestmark = pytest.mark.slow

TINY = ["data.train_limit=60", "data.test_limit=12", "model.T=2", "evaluate.limit="]
TINY += ["model.width=2", "model.hidden=8", "train.epochs=1", "evaluate.checkpoint=last"]
FEW = ["--n0", "10", "--n", "60", "--limit", "6"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished tiny runs: direct and rate coding."""
    folder = tmp_path_factory.mktemp("runs")
    for name, encoder in (("direct", "direct"), ("rate", "poisson"), ("rsc", "rsc")):
        words = [*TINY, f"model.encoder={encoder}", f"title={name} coding"]
        assert main(["train", "demo/vanilla", *words, "--out", str(folder / name)]) == 0
    return {name: str(folder / name) for name in ("direct", "rate", "rsc")}


@pytest.fixture(autouse=True)
def short_attacks(monkeypatch):
    monkeypatch.setattr(certify, "ATTACK_STEPS", 3)
    monkeypatch.setattr(certify, "ATTACK_DRAWS", 2)


def test_the_bracket_is_printed_stored_and_shown_in_the_report(runs, capsys, tmp_path):
    run = runs["direct"]
    words = ["certify", run, "--sigma", "64/255", *FEW, "--attack", "0.1,0.3"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Gaussian noise, sigma 0.251; norm l2; 6 images" in out
    assert "certified: at least, %" in out and "not attacked" in out and "results in" in out
    assert main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["command"]) == ("spikeguard/1", "certify")
    assert (shown["norm"], shown["images"], shown["contradictions"]) == ("l2", 6, 0)
    curve = {point["radius"]: point for point in shown["curve"]}
    for radius in (0.0, 0.1, 0.3):
        point = curve[radius]
        assert point["certified"]["accuracy"] <= point["attacked"]["accuracy"]
    page = tmp_path / "page.html"
    assert main(["report", run, "--out", str(page), "--tables", str(tmp_path / "tables")]) == 0
    text = page.read_text()
    assert 'id="certified"' in text and "At radius 0.3 between" in text
    assert "not the bare network" in text
    assert len((tmp_path / "tables" / "certified-0.csv").read_text().splitlines()) > 3


def test_a_coding_with_noise_needs_no_sigma_and_without_an_attack_nothing_is_claimed(
    runs, capsys, tmp_path
):
    assert main(["certify", runs["rate"], *FEW]) == 0
    assert "rate coding, T = 2; norm l1; 6 images" in capsys.readouterr().out
    assert main(["certify", runs["rsc"], *FEW, "--attack", "0.05"]) == 0
    assert "in its RSC coding, T = 2; norm l2" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["report", runs["rate"], runs["rsc"], "--out", str(page)]) == 0
    text = page.read_text()
    assert "not attacked: an upper bound for this classifier is not known" in text
    assert 'id="certified-1"' in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the coding of this network (Direct) draws no noise to smooth over; write the"),
        (["--sigma", "0"], "sigma is a standard deviation > 0, got 0"),
        (["--sigma", "-0.1"], "sigma is a standard deviation > 0, got -0.1"),
        (["--sigma", "wide"], "--sigma: expected a number such as 0.1 or 8/255, got 'wide'"),
        (["--sigma", "0.1,0.2"], "--sigma: one number, got '0.1,0.2'"),
        (["--sigma", "0.1", "--n", "50"], "n is a number of draws from n0 (100)"),
        (["--sigma", "0.1", "--alpha", "0"], "alpha is a probability in (0, 1), got 0"),
        (["--sigma", "0.1", "--n0", "5", "--n", "5"], "write n = 10 or more"),
        (["--sigma", "0.1", "--limit", "0"], "--limit: a number of images >= 1, got 0"),
        (["--sigma", "0.1", "--limit", "999999"], "test images, got 999999; write at most that"),
        (["--sigma", "0.1", "--seed", "-1"], "seed is a whole number >= 0, got -1"),
        (["--sigma", "0.1", "--device", "cuda"], "--device cuda: torch sees no CUDA device"),
        (["--sigma", "0.1", "--attack", "0"], "--attack: radii > 0 in pixels of [0, 1], got 0"),
        (["--sigma", "0.1", "--attack", "9"], "--attack: eps is in pixel units, [0, 1], and l2 8"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_one_line_and_write_nothing(runs, capsys, tmp_path, words, message):
    run = tmp_path / "run"
    shutil.copytree(runs["direct"], run, ignore=shutil.ignore_patterns("certificates"))
    before = sorted(run.rglob("*"))
    assert main(["certify", str(run), *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1
    assert message in shown.err
    assert sorted(run.rglob("*")) == before


def test_an_unfinished_run_and_a_missing_one_are_rejected(runs, capsys, tmp_path):
    run = shutil.copytree(runs["direct"], tmp_path / "run")
    (run / "result.json").unlink()
    assert main(["certify", str(run), "--sigma", "0.1"]) == 2
    assert "its training is not finished; continue it with" in capsys.readouterr().err
    assert main(["certify", str(tmp_path / "none"), "--sigma", "0.1"]) == 2
    assert "no such run folder" in capsys.readouterr().err


def test_a_certificate_of_other_weights_is_not_reported(runs, capsys, tmp_path):
    run = shutil.copytree(runs["direct"], tmp_path / "run")
    shutil.rmtree(run / "certificates", ignore_errors=True)
    assert main(["certify", str(run), "--sigma", "0.1", *FEW]) == 0
    (file,) = (run / "certificates").glob("*.json")
    card = json.loads(file.read_text())
    card.pop("checksum")
    write_json(file, sealed({**card, "identity": {**card["identity"], "weights": "others"}}))
    capsys.readouterr()
    assert main(["report", str(run)]) == 2
    assert "is of other weights; move it away and certify again" in capsys.readouterr().err
