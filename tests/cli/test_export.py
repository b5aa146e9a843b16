"""``spikeguard export``, and the attack on a NIR file, on a network that trains in a second."""

import json
import shutil

import pytest

from spikeguard.cli.entry import main
from spikeguard.export.importer import load_nir
from spikeguard.export.nir_file import facts_of, read_nir
from spikeguard.runs.run import Run

pytest.importorskip("nir", reason="nir is not installed: pip install 'spikeguard[nir]'")
pytestmark = pytest.mark.slow

TINY = ["data.train_limit=60", "data.test_limit=12", "model.T=2", "model.width=2"]
TINY += ["model.hidden=8", "train.epochs=2", "evaluate.suite=quick", "evaluate.eps=0.1"]
TINY += ["evaluate.limit=8", "evaluate.checkpoint=best"]
ATTACK = ["--suite", "quick", "--eps", "0.1", "--limit", "8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    for name in ("vanilla", "tgo"):
        assert main(["train", f"demo/{name}", *TINY, "--out", str(path / name)]) == 0
    return path


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def result(words, capsys):
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def metadata(path):
    return facts_of(read_nir(path))


def rejected(words, capsys):
    capsys.readouterr()
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    return line


def test_a_file_and_its_quantised_twin(here, capsys):
    found = result(["export", "runs/vanilla", "--to", "nir"], capsys)
    assert found["file"] == "runs/vanilla/export/vanilla.nir"
    assert (found["mapping"]["differ"], found["read_back"]["differ"]) == (0, 0)
    assert (found["images"], found["stated"]["T"], found["stated"]["weights"]) == (12, 2, "float32")
    words = ["--weights", "4", "--per", "channel", "--threshold-grid", "0.3", "--limit", "5"]
    assert main(["export", "runs/vanilla", "--to", "nir", *words]) == 0
    shown = capsys.readouterr().out
    assert "weights: 4 bits per channel\nthresholds: multiples of 0.3\nnoise: none" in shown
    assert "0 of " in shown and "accuracy on 5 test images" in shown
    assert (here / "runs/vanilla/export/vanilla-w4-channel-grid0.3.nir").is_file()


def test_the_checkpoint_is_chosen(here, capsys):
    for name in ("best", "last"):
        words = ["export", "runs/vanilla", "--to", "nir", "--checkpoint", name, "--out", name]
        assert main(words) == 0
    first, last = (load_nir(name).state_dict() for name in ("best", "last"))
    same = all(bool((first[key] == last[key]).all()) for key in first)
    place = here / "runs/vanilla/checkpoints"
    stored = [(place / n / "model.safetensors").read_bytes() for n in ("best", "last")]
    assert same == (stored[0] == stored[1])


def test_a_checkpoint_other_than_the_recipes_has_a_file_of_its_own(here, capsys):
    words = ["export", "runs/vanilla", "--to", "nir"]
    stated = {
        found["file"]: (found["stated"]["checkpoint"], metadata(found["file"])["checkpoint"])
        for found in (result(words, capsys), result([*words, "--checkpoint", "last"], capsys))
    }
    assert stated == {
        "runs/vanilla/export/vanilla.nir": ("best", "best"),
        "runs/vanilla/export/vanilla-last.nir": ("last", "last"),
    }
    found = result([*words, "--checkpoint", "last", "--weights", "8"], capsys)
    assert found["file"] == "runs/vanilla/export/vanilla-last-w8-tensor.nir"


def test_the_file_is_attacked_and_gets_the_inputs_of_the_run(here, capsys):
    assert main(["export", "runs/vanilla", "--to", "nir"]) == 0
    (own,) = result(["attack", "runs/vanilla", *ATTACK], capsys)["results"]
    words = ["attack", "--model", "nir:runs/vanilla/export/vanilla.nir", "--data", "digits"]
    words += [*ATTACK, "--no-check"]
    found = result([*words, "--transfer", "runs/vanilla"], capsys)
    assert found["folder"] == "runs/nir.vanilla/attacks"
    moved, attacked = found["results"]
    assert moved["transfer"] == "runs/vanilla"
    assert moved["reported"] == moved["accuracy"] == own["worst_case"]["accuracy"]
    for name, score in own["attacks"].items():
        assert attacked["attacks"][name]["accuracy"] == score["accuracy"]
    card = json.loads((here / "runs/nir.vanilla/model.json").read_text())
    assert card["model"] == "nir:runs/vanilla/export/vanilla.nir"
    (alone,) = result([*words, "--transfer", "runs/vanilla", "--rescore"], capsys)["results"]
    assert alone == moved
    assert main(["report", "runs/nir.vanilla", "--out", "report.html"]) == 0


def test_noise_off_is_asked_for(here, capsys):
    words = ["export", "runs/tgo", "--to", "nir"]
    assert "NoisyLIF adds noise (sigma 0.632)" in rejected(words, capsys)
    assert not (here / "runs/tgo/export").exists()
    found = result([*words, "--noise", "off"], capsys)
    assert found["stated"]["noise"] == "off; trained with sigma 0.632"
    model = Run.load("runs/tgo").model
    assert model.stochastic


def test_onnx(here, capsys):
    pytest.importorskip("onnxruntime", reason="onnx is not installed")
    found = result(["export", "runs/vanilla", "--to", "onnx", "--out", "net.onnx"], capsys)
    assert (found["file"], found["images"]) == ("net.onnx", 12)
    assert found["logits"] < 1e-4
    import onnx

    stated = {each.key: each.value for each in onnx.load("net.onnx").metadata_props}
    assert stated["checkpoint"] == found["stated"]["checkpoint"] == "best"
    assert "draws random numbers" in rejected(["export", "runs/tgo", "--to", "onnx"], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "onnx", "--weights", "8"], "--weights: an ONNX file has full precision"),
        (["--to", "onnx", "--threshold-grid", "1"], "--threshold-grid: an ONNX file"),
        (["--to", "nir", "--per", "channel"], "--per channel goes with --weights"),
        (["--to", "nir", "--weights", "1"], "--weights: bits of a weight, 2 to 8, got 1"),
        (["--to", "nir", "--threshold-grid", "-1"], "--threshold-grid: a step > 0, got -1"),
        (["--to", "nir", "--limit", "1"], "--limit: at least 2 test images, got 1"),
        (["--to", "nir", "--noise", "off"], "--noise off: the network has no noisy neurons"),
        (["--to", "nir", "--out", "runs"], "--out: runs is a folder; name a file"),
        (["--to", "chip"], "--to"),
        ([], "--to"),
    ],
)
def test_wrong_options_leave_no_file(here, capsys, words, message):
    before = sorted(here.rglob("*"))
    assert message in rejected(["export", "runs/vanilla", *words], capsys)
    assert sorted(here.rglob("*")) == before


def test_a_run_that_is_none(here, capsys):
    assert "no such run folder" in rejected(["export", "runs/none", "--to", "nir"], capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nir:none.nir", "--data", "digits"], "none.nir: no such file"),
        (
            ["--model", "nir:net.nir", "--data", "digits", "--T", "9"],
            "the file states T = 2, got 9",
        ),
        (
            ["--model", "nir:net.nir", "--data", "digits", "--readout", "sum"],
            "--readout: a NIR file has its own",
        ),
        (
            ["--model", "nir:net.nir", "--data", "digits", "--transfer", "runs/vanilla"],
            "--transfer: runs/vanilla has no result of quick at linf eps 0.1; make it with",
        ),
        (
            ["--model", "nir:net.nir", "--data", "digits", "--transfer", "none"],
            "none: no such run folder",
        ),
    ],
)
def test_wrong_models_and_sources(here, capsys, words, message):
    assert main(["export", "runs/vanilla", "--to", "nir", "--out", "net.nir"]) == 0
    shutil.rmtree("runs/vanilla/attacks", ignore_errors=True)
    assert message in rejected(["attack", *words, *ATTACK, "--no-check"], capsys)
    assert not (here / "runs/nir.net").exists()
