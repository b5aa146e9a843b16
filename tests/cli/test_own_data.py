"""Data of one's own on the command line and in recipes, from the first file to the report."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import spikeguard as sg
from spikeguard.cli.entry import main
from spikeguard.data.images import ImageSet

pytestmark = pytest.mark.slow

MODULE = """
import numpy as np
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def arrays():
    with np.load("my.npz") as file:
        return file["x"], file["y"].astype("int32")


def one_hot():
    x, y = arrays()
    return x, np.eye(10)[y]


def to_255():
    x, y = arrays()
    return x.astype("float32"), y


def drawn():
    x, y = arrays()
    return np.random.default_rng().permutation(x), y


def leaves():
    raise SystemExit(0)


def moves():
    import os

    found = arrays()
    os.chdir("/")
    return found


def nothing():
    pass


def needs(path):
    return arrays()


constant = 3
"""
SMALL = ["model.T=2", "model.width=2", "model.hidden=8", "train.epochs=1", "evaluate.limit="]
MODEL = ["--model", "my_nets:net", "--T", "1", "--suite", "baseline", "--eps", "0.1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Digits as a user's files: all in my.npz, with parts in full.npz, a pair, and a module."""
    monkeypatch.chdir(tmp_path)
    x, y = sg.data.load("digits").test.batch(slice(120))
    pixels, labels = (255 * x).byte().numpy(), y.numpy()
    np.savez("my.npz", x=pixels[:40], y=labels[:40])
    names = [f"number {i}" for i in range(10)]
    parts = {"x": pixels[:40], "y": labels[:40], "x_train": pixels[40:], "y_train": labels[40:]}
    np.savez("full.npz", **parts, classes=names)
    Path("dark").mkdir()
    np.save("dark/night.npy", (pixels[:40] // 2).transpose(0, 2, 3, 1))
    np.save("dark/labels.npy", labels[:40])
    Path("my_nets.py").write_text(MODULE, encoding="utf-8")
    yield tmp_path
    sys.modules.pop("my_nets", None)


@pytest.fixture
def run(folder, capsys):
    """A run trained on full.npz."""
    assert main(["train", "demo/vanilla", "--data", "full.npz", *SMALL, "--out", "run"]) == 0
    capsys.readouterr()
    return Path("run")


def rejected(capsys, *words):
    """Return the one line of a command that fails."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1, shown.err
    return shown.err.strip()


@pytest.mark.parametrize("data", ["my.npz", "./my.npz", "my_nets:arrays", "full.npz"])
def test_a_network_is_attacked_on_every_form(folder, capsys, data):
    """The accuracy is that of the network on the 40 images, in float32."""
    assert main(["attack", *MODEL, "--data", data, "--out", "out"]) == 0
    with np.load("my.npz") as file:
        x, y = torch.from_numpy(file["x"]).float() / 255, torch.from_numpy(file["y"])
    sys.path.insert(0, str(folder))
    from my_nets import net

    sys.path.pop(0)
    right = int((net()(x).argmax(1) == y).sum())
    card = json.loads(Path("out/model.json").read_text(encoding="utf-8"))
    assert card["count"] == 40 and card["images"] == sg.data.from_arrays(_pixels(), y).digest
    result = next(Path("out/attacks").glob("*.json")).read_text(encoding="utf-8")
    assert json.loads(result)["clean"]["accuracy"] == right / 40


def _pixels():
    with np.load("my.npz") as file:
        return file["x"]


def test_a_pair_of_npy_files_is_attacked(folder):
    assert main(["attack", *MODEL, "--data", "dark/night.npy", "--out", "out"]) == 0
    assert json.loads(Path("out/model.json").read_text(encoding="utf-8"))["shape"] == [1, 8, 8]


def test_processes_load_the_same_images_or_say_so(folder, capsys):
    words = ["attack", *MODEL, "--out", "out", "--jobs", "2"]
    assert main([*words, "--data", "my_nets:arrays"]) == 0
    words[-3] = "other"
    line = rejected_last(capsys, *words, "--data", "my_nets:drawn")
    assert "--jobs: my_nets:drawn gives other images at every call; fix its seed." in line


def rejected_last(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_file_of_another_path_is_the_same_data_set(folder, capsys):
    words = ["attack", *MODEL, "--out", "again", "--data"]
    assert main([*words, "my.npz"]) == main([*words, str(folder / "my.npz")]) == 0
    assert main([*words, "./my.npz"]) == 0


def test_changed_images_are_another_data_set(folder, capsys):
    words = ["attack", *MODEL, "--data", "my.npz", "--out", "out"]
    assert main(words) == 0
    np.savez("my.npz", x=255 - _pixels(), y=np.zeros(40, int))
    line = rejected(capsys, *words)
    assert "out holds results of another model: images was" in line


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("no.npz", "--data: no.npz: no such file or folder, in the current folder or in data"),
        ("digit", "--data: unknown data set 'digit'. Did you mean 'digits'?"),
        ("my_nets:one_hot", "of one-hot labels write y.argmax(1)"),
        ("my_nets:to_255", "float pixels up to 255: divide by 255"),
        ("my_nets:leaves", "--data: my_nets:leaves raises SystemExit: 0"),
        ("my_nets:nothing", "--data: my_nets:nothing returns None; let it return the images"),
        ("my_nets:needs", "--data: my_nets:needs is not a data set; write an instance of"),
        ("my_nets:constant", "--data: my_nets:constant is not a data set"),
        ("my_nets:array", "--data: my_nets has no 'array'. Did you mean 'arrays'?"),
        ("my_net:arrays", "--data: no module named 'my_net'; it is looked for in the current"),
        ("dark", "--data: dark: holds arrays; name one file of it, such as dark/night.npy"),
    ],
)
def test_refusals_are_one_line_and_nothing_is_written(folder, capsys, data, message):
    assert message in rejected(capsys, "attack", *MODEL, "--data", data, "--out", "out")
    assert not Path("out").exists()


def test_a_function_that_changes_the_folder_sends_no_results_elsewhere(folder):
    assert main(["attack", *MODEL, "--data", "my_nets:moves", "--out", "out"]) == 0
    assert (folder / "out" / "model.json").is_file()


def test_a_run_is_trained_attacked_and_reported_with_its_class_names(run):
    assert main(["attack", "run", "--suite", "baseline", "--eps", "0.1"]) == 0
    assert main(["report", "run"]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "number 0, number 1, number 2" in page and "full.npz" in page
    recipe = sg.load_recipe(run / "recipe.yaml")
    assert recipe.data.name == "full.npz"


def test_a_run_whose_file_has_changed_is_rejected(run, capsys):
    with np.load("full.npz") as file:
        arrays = dict(file)
    np.savez("full.npz", **{**arrays, "y": (arrays["y"] + 1) % 10})
    line = rejected(capsys, "attack", "run", "--suite", "baseline", "--eps", "0.1")
    assert "run: full.npz has other test images than at the training; restore them" in line
    np.savez("full.npz", **arrays)
    assert main(["attack", "run", "--suite", "baseline", "--eps", "0.1"]) == 0


def test_results_on_other_images_are_kept_apart(run, capsys):
    """The accuracy on the dark images is that of the run's network on them."""
    words = ["attack", "run", "--data", "dark/night.npy", "--suite", "baseline", "--eps", "0.1"]
    assert main(words) == 0
    assert not (run / "attacks").exists()
    found = next((run / "on/night/attacks").glob("*.json"))
    loaded = sg.Run.load(run)
    images, labels = np.load("dark/night.npy"), np.load("dark/labels.npy")
    wanted = sg.evaluate(loaded.model, sg.data.from_arrays(images, labels), {}, check=False)
    stored = json.loads(found.read_text(encoding="utf-8"))["clean"]["accuracy"]
    assert stored == wanted.clean.accuracy
    assert main(["report", "run/on/night", "--out", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "spikeguard attack run --data dark/night.npy --out run/on/night" in page
    assert "number 0, number 1" in page
    np.save("dark/night.npy", images // 2)
    assert "run/on/night holds results of another model: images was" in rejected(capsys, *words)


def test_images_that_do_not_fit_a_run_are_rejected(run, capsys):
    words = ["attack", "run", "--suite", "baseline", "--eps", "0.1", "--data"]
    np.savez("large.npz", x=np.zeros((4, 9, 9), "uint8"), y=[0, 1, 2, 3])
    assert "images [1, 9, 9], the run was trained on [1, 8, 8]" in rejected(
        capsys, *words, "large.npz"
    )
    np.savez("more.npz", x=_pixels(), y=[12] * 40)
    assert "has labels up to 12, the run has 10 classes" in rejected(capsys, *words, "more.npz")
    np.savez("names.npz", x=_pixels(), y=[0] * 40, classes=["cat"])
    assert "has a class 'cat', the run has number 0, number 1" in rejected(
        capsys, *words, "names.npz"
    )
    line = rejected(capsys, *words, "my.npz", "--limit", "41")
    assert "there are 40 test images, got 41; write at most that" in line
    assert not (run / "on").exists()
    assert "--out goes with --model or --data" in rejected(capsys, *words[:-1], "--out", "x")


def test_class_names_in_another_order_are_matched(run):
    from spikeguard.runs.other_data import run_on_data

    names = [f"number {i}" for i in range(10)]
    with np.load("my.npz") as file:
        np.savez("turned.npz", x=file["x"], y=9 - file["y"], classes=names[::-1])
    found = run_on_data(sg.Run.load(run), "turned.npz", out=None).data.test
    with np.load("my.npz") as file:
        assert found.labels.tolist() == file["y"].tolist()


def test_a_recipe_names_a_function_only_with_a_plugin(folder, capsys):
    Path("mine.yaml").write_text("extends: demo/vanilla\ndata: my_nets:arrays\n", encoding="utf-8")
    words = ["train", "mine.yaml", *SMALL, "--out", "run"]
    assert "imported only if you allow it; add --plugin my_nets" in rejected(capsys, *words)
    assert main([*words, "--plugin", "my_nets"]) == 0
    line = rejected(capsys, "attack", "run", "--suite", "baseline", "--eps", "0.1")
    assert "add --plugin my_nets" in line
    words = ["attack", "run", "--suite", "baseline", "--eps", "0.1", "--plugin", "my_nets"]
    assert main(words) == 0


def test_naming_a_function_on_the_command_line_is_consent(folder, capsys):
    words = ["train", "demo/vanilla", "--data", "my_nets:arrays", *SMALL, "--out", "run"]
    assert main(words) == 0
    assert "spikeguard attack run --plugin my_nets" in capsys.readouterr().out


def test_a_recipe_with_a_path_keeps_the_recipes_other_settings(folder):
    changes = ["data.augment=[flip]", "data.name=my.npz", "evaluate.limit="]
    loaded = sg.load_recipe("demo/vanilla", changes)
    assert (loaded.data.name, loaded.data.augment) == ("my.npz", ("flip",))
    short = sg.load_recipe("demo/vanilla", ["data=my.npz"])
    assert short.data.name == "my.npz"
    data = sg.build(loaded).data
    assert isinstance(data.test, ImageSet) and len(data.test) == 8
