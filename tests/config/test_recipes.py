"""Every shipped recipe is complete and can be built and trained; pieces by name; bad recipes."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeguard.cli.entry import main
from spikeguard.config import yaml_files as recipes
from spikeguard.config.builder import build
from spikeguard.config.errors import ConfigError
from spikeguard.config.protocols import size_differences
from spikeguard.config.published import rows
from spikeguard.config.schema import load_recipe
from spikeguard.rng import stream
from spikeguard.training.engine import Engine
from spikeguard.training.learner import Learner
from spikeguard.training.state import TrainState
from tests.toys.event_frames import dots

NAMES = recipes.recipe_names()
MODELS_OF_PAPERS = {"cnn", "operational_cnn", "operational_mlp", "sew_resnet", "spiking_resnet"}
MODELS_OF_PAPERS |= {"spiking_vgg11", "vgg11", "vgg5", "wrn16_4"}
DEFENCES_OF_PAPERS = {"at", "gaussian", "hire", "mixup", "mppd", "mse_rates", "rat", "sr", "stog"}
DEFENCES_OF_PAPERS |= {"tgo", "trades"}
NO_RECIPE = ("tgo/text A/",)  # the success of an attack, of the networks of Table 5
OWN_SIZES = (
    "events/",
    "mini/",
    "medium/",
)  # beside rows of larger networks, trained on more images
STOPPED_EARLY = ("cifar10-sew18", "cifar10-vgg11", "mnist-sew18", "mnist-vgg11")
NARROW = {
    "cnn": ["model.width=2", "model.hidden=8"],
    "operational_cnn": ["model.width=2", "model.hidden=8"],
    "operational_mlp": ["model.hidden=[8, 8]"],
}
NETWORKS = {  # as the tables call them: as recipes do
    "wrn16-4": ["wrn16_4"],
    "vgg11": ["vgg11", "spiking_vgg11"],
    "vgg5": ["vgg5"],
    "snn-rat wrn-16": ["wrn16_4"],
    "cnn": ["operational_cnn"],
    "mlp": ["operational_mlp"],
    "snn-rat vgg-11": ["vgg11"],
    "vanilla vgg-11": ["vgg11"],
    "hire-snn": ["vgg11"],
    "input discretization": ["vgg11"],
    **{f"sew-resnet{depth}": [f"sew_resnet{depth}"] for depth in (18, 34, 50)},
    **{f"spiking-resnet{depth}": [f"spiking_resnet{depth}"] for depth in (18, 34, 50)},
}
DIGITS = [
    "data.name=digits",
    "data.augment=",
    "data.train_limit=12",
    "data.test_limit=4",
    "data.val_fraction=0.3",
    "evaluate.limit=",
    "model.T=2",
    "train.batch_size=4",
]


@cache
def shipped(name):
    return load_recipe(name)


NAMING = [name for name in NAMES if shipped(name).published]
OF_PAPERS = [name for name in NAMING if not name.startswith(OWN_SIZES)]


def small(name, *changes):
    """Load a recipe at the size of a test: few narrow layers, digits, two time steps."""
    network = shipped(name).model["name"]
    data = [] if shipped(name).data.frames is None else [f"data.name={made()}", "data.frames="]
    data += [] if shipped(name).data.size is None else ["data.size="]
    narrow = NARROW.get(network, ["model.width=0.03"])
    return load_recipe(name, [*DIGITS, *data, *narrow, *changes])


@cache
def made():
    """Return the path of a file with event frames of two steps, of both polarities."""
    file = Path(tempfile.mkdtemp()) / "events.npz"
    data = dots(40)
    np.savez(file, x=data.images[:, :2].numpy(), y=data.labels.numpy())
    return file


def trained_part(name):
    return shipped(name).model_dump_json(include={"seed", "data", "model", "objective", "train"})


# --- what ships


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_has_a_title_and_can_be_saved(name, tmp_path):
    recipe = shipped(name)
    assert recipe.name == name
    assert recipe.title
    assert recipe.source
    recipe.save(tmp_path / "recipe.yaml")
    again = load_recipe(tmp_path / "recipe.yaml")
    assert again == recipe
    assert again.to_yaml() == recipe.to_yaml()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_ships_takes_two_steps(name):
    """With all its pieces; every trainable number of the network is finite and most have moved."""
    built = build(small(name))
    learner = Learner.create(built.model, built.data, built.objective, built.options, Engine())
    before = [p.detach().clone() for p in built.model.parameters()]
    at = TrainState()
    for batch in range(2):
        at.batch = batch
        learner.step(torch.arange(4) + 4 * batch, at, progress=0.5 * batch)
    after = list(built.model.parameters())
    assert all(p.isfinite().all() for p in after)
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    named = {each["name"] for each in shipped(name).objective}
    assert {piece.name for piece in built.objective.pieces} == named


def test_no_two_recipes_train_the_same():
    """Recipes that differ only in the data set are allowed if a table has a row for each."""
    parts = [trained_part(name) for name in NAMES]
    assert len(set(parts)) == len(parts)


def test_titles_tell_the_recipes_of_a_folder_apart():
    for folder in {name.split("/")[0] for name in NAMES}:
        titles = [shipped(name).title for name in recipes.recipe_names(f"{folder}/")]
        assert len(set(titles)) == len(titles)


def test_every_published_row_has_one_recipe_and_at_most_one_with_the_printed_weight():
    printed = [key for name in OF_PAPERS if "/printed/" in name for key in shipped(name).published]
    named = [key for n in OF_PAPERS if "/printed/" not in n for key in shipped(n).published]
    assert len(named) == len(set(named))
    assert len(printed) == len(set(printed))
    assert set(printed) == {key for key in named if key.startswith("tgo/") and _constrained(key)}
    assert set(rows()) - set(named) == {key for key in rows() if key.startswith(NO_RECIPE)}


@pytest.mark.parametrize("name", NAMING)
def test_a_recipe_agrees_with_the_row_it_names(name):
    """Data set, network, neuron and defence, as far as the row names them.

    A recipe of another size agrees in neuron and defence.
    """
    recipe = shipped(name)
    for key in recipe.published:
        paper, _, dataset, network, defence = key.split("/")
        if name in OF_PAPERS:
            assert recipe.data.name == dataset
            depth = recipe.model.get("depth", "")
            assert f"{recipe.model['name']}{depth}" in NETWORKS[network.lower()]
        pieces = {each["name"] for each in recipe.objective}
        words = set(defence.replace("+", " ").replace("(", " ").split())
        if paper in ("tgo", "stable-snn"):
            assert ("at" in pieces) == bool(words & {"at", "rat", "snn-rat"}), key
            assert ("rat" in pieces) == bool(words & {"rat", "snn-rat"}), key
            assert ("tgo" in pieces) == bool(words & {"tgo", "mc"}), key
            noisy = recipe.model["neuron"]["name"] == "noisy_lif"
            assert noisy == bool(words & {"tgo", "nlif"}), key
            assert (recipe.model["neuron"]["name"] == "dlif") == ("dlif" in words), key
            assert ("sr" in pieces, "stog" in pieces) == ("sr" in words, "stog" in words), key
            radius = [each["eps"] for each in recipe.objective if each["name"] == "at"]
            assert set(radius) <= {"2/255", "4/255"}, key  # those of the papers
            rho = [float(word[4:]) for word in words if word.startswith("rho=")]
            weight = [each["rho"] for each in recipe.objective if each["name"] == "mppd"]
            assert (weight or [0.0]) == (rho or [0.0]), key
        if paper == "gradient-trail" and "pooling" in words:
            assert recipe.model["pool"] == ("avg" if "average" in words else "max")


def test_the_thresholds_and_leaks_of_the_operational_space_are_those_of_its_grid():
    """tau = linspace(1.001, 5, 10)[8] = 4.5557: decay = 1 - 1/tau and the input is scaled."""
    neuron = load_recipe("operational-space/cifar10-mlp-accurate").model["neuron"]
    assert (neuron["decay"], neuron["input_scale"]) == pytest.approx((0.8, 0.2))  # tau = 5
    assert neuron["v_th"] == pytest.approx(0.01 + 5 * 2.99 / 9, abs=1e-3)  # printed as 1.6711
    for name in recipes.recipe_names("operational-space/"):
        neuron = shipped(name).model["neuron"]
        assert neuron["decay"] + neuron["input_scale"] == pytest.approx(1, abs=2e-6)


def _constrained(key):
    return bool({"tgo", "mc"} & set(key.rpartition("/")[2].replace("+", " ").split()))


def test_printed_recipes_differ_from_the_calibrated_ones_in_the_penalty_and_in_eot_only():
    """Eqs. 12 to 14 with the printed weights, the mean over layers, and epochs; Tables 1 and 2."""
    for name in recipes.recipe_names("tgo/printed/"):
        printed, calibrated = shipped(name), shipped(name.replace("/printed", ""))
        weight = 0.6 if "vgg11" in name else 0.4
        (piece,) = (each for each in printed.objective if each["name"] == "tgo")
        options = {"lambda_max": weight, "reduction": "mean_of_layers", "updates": "epoch"}
        assert piece == {"name": "tgo", **options}
        others = [each for each in printed.objective if each != piece]
        assert others == [each for each in calibrated.objective if each["name"] != "tgo"]
        assert printed.evaluate.eot == 1
        assert printed.evaluate.checkpoint == "last" and printed.data.val_fraction == 0
        for part in ("seed", "data", "model", "train"):
            assert getattr(printed, part) == getattr(calibrated, part)


def test_the_medium_recipes_train_on_every_image_for_25_epochs_and_attack_1000():
    names = recipes.recipe_names("medium/")
    assert len(names) == 11
    for name in names:
        recipe = shipped(name)
        assert recipe.data.name == "cifar10" and recipe.data.train_limit is None
        assert recipe.data.val_fraction == 0 and recipe.evaluate.checkpoint == "last"
        assert (recipe.model["name"], recipe.model["width"]) == ("vgg5", 0.25)
        assert recipe.train["epochs"] >= 25
        assert (recipe.evaluate.limit, recipe.evaluate.eot) == (1000, 1)
        assert recipe.evaluate.eps == (8 / 255,)


def test_without_validation_images_the_last_epoch_is_attacked():
    """Known by the recipe alone, before anything is read or written."""
    assert load_recipe("demo/at", ["data.val_fraction=0"]).data.val_fraction == 0
    with pytest.raises(ConfigError, match=r"write evaluate.checkpoint: last") as caught:
        load_recipe("demo/at", ["data.val_fraction=0", "evaluate.checkpoint=best"])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    with pytest.raises(ConfigError, match=r"write evaluate.tune: false"):
        load_recipe("demo/at", ["data.val_fraction=0", "evaluate.tune=true"])


def test_the_strong_recipes_train_at_the_radius_they_are_attacked_at():
    names = recipes.recipe_names("strong/")
    assert len(names) == 16
    for name in names:
        recipe = shipped(name)
        (piece,) = (each for each in recipe.objective if each["name"] in ("at", "trades"))
        assert piece["eps"] == "8/255"
        assert max(recipe.evaluate.eps) == 8 / 255


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("record/")])
def test_a_record_recipe_trains_at_full_size_against_what_is_tested(name):
    """8/255 in training and in the suite snn, at most 8 steps, every part of its name at work."""
    recipe = shipped(name)
    pieces = {piece["name"]: piece for piece in recipe.objective}
    network, defence, *parts = name.removeprefix("record/").split("-")
    assert pieces[defence]["eps"] in ("8/255", 8 / 255)
    assert recipe.evaluate.eps == (8 / 255,) and recipe.evaluate.suite == ("snn",)
    assert recipe.model["name"] == "wrn16_4" and recipe.data.train_limit is None
    assert recipe.model["T"] == (8 if "t8" in parts else 4)
    assert recipe.model.get("width", 1.0) == {"wrn16_4": 1.0, "wrn16_10": 2.5}[network]
    assert ("ema" in recipe.train, "swa" in recipe.train) == ("ema" in parts, "swa" in parts)
    assert ("label_smoothing" in pieces) == ("smooth" in parts)
    assert recipe.model["neuron"]["name"] == ("noisy_lif" if "noise" in parts else "lif")
    assert recipe.evaluate.checkpoint == "last" and recipe.train["precision"] == "bf16"


# --- several parents, pieces by name


@pytest.fixture
def write(tmp_path):
    def writer(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return writer


BASE = "data: {name: digits}\nmodel: {name: cnn, T: 4}\ntrain: {epochs: 1}\n"


def test_of_several_parents_the_later_one_overrides_the_earlier(write):
    write("base.yaml", BASE)
    write("a.yaml", "title: A\nmodel: {T: 2, width: 8}\n")
    write("b.yaml", "model: {T: 3}\ntrain: {lr: 0.5}\n")
    recipe = load_recipe(write("c.yaml", "extends: [base.yaml, a.yaml, b.yaml]\n"))
    assert recipe.model == {"name": "cnn", "T": 3, "width": 8}
    assert recipe.train == {"epochs": 1, "lr": 0.5}
    assert recipe.title == ""


def test_pieces_by_name_are_added_changed_and_removed(write):
    write("base.yaml", BASE + "objective: [{name: at, eps: 0.1, steps: 2}, tgo]\n")
    write("rat.yaml", "objective: {rat: {beta: 1e-3}}\n")
    text = "extends: [base.yaml, rat.yaml]\nobjective: {at: {steps: 3}, tgo: null, sr: {lamb: 1}}\n"
    assert load_recipe(write("c.yaml", text)).objective == (
        {"name": "at", "eps": 0.1, "steps": 3},
        {"name": "rat", "beta": 1e-3},
        {"name": "sr", "lamb": 1},
    )


def test_a_list_of_pieces_replaces_them_all(write):
    write("base.yaml", BASE + "objective: {at: {eps: 0.1}, tgo: {}}\n")
    recipe = load_recipe(write("c.yaml", "extends: base.yaml\nobjective: [gaussian]\n"))
    assert recipe.objective == ({"name": "gaussian"},)


def test_a_list_may_stand_over_pieces_by_name_of_a_later_parent(write):
    write("base.yaml", BASE + "objective: []\n")
    write("part.yaml", "objective: {tgo: {delta: 1.0}}\n")
    recipe = load_recipe(write("c.yaml", "extends: [base.yaml, part.yaml]\n"))
    assert recipe.objective == ({"name": "tgo", "delta": 1.0},)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("extends: [base.yaml, 3]\n", "extends in recipe c: names or paths, got 3"),
        ("extends: {a: b}\n", "names or paths, got {'a': 'b'}"),
        ("extends: [base.yaml, base.yml]\n", "base.yml: no such file"),
        ("extends: base.yaml\nobjective: {at: 3}\n", "objective.at: the options of a piece"),
        ("extends: base.yaml\nreadings: [the mean: not the sum]\n", "readings.0"),
        ("extends: base.yaml\npublished: [tgo/1/cifar10/wrn16-4/att]\n", "no published row"),
        ("extends: base.yaml\npublished: [tgo/1/cifar10/wrn16-4/att]\n", "Did you mean"),
    ],
)
def test_unreadable_text_is_rejected_in_one_line(write, text, part):
    write("base.yaml", BASE)
    with pytest.raises(ConfigError) as caught:
        load_recipe(write("c.yaml", text))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_readings_of_the_extended_recipe_are_kept_and_come_first(write):
    write("one.yaml", BASE + "readings: [a, b]\n")
    write("two.yaml", "extends: one.yaml\nreadings: [b, c]\n")
    write("other.yaml", "extends: one.yaml\nreadings: the mean\n")
    recipe = load_recipe(write("c.yaml", "extends: [two.yaml, other.yaml]\nreadings: [e]\n"))
    assert recipe.readings == ("a", "b", "c", "the mean", "e")
    assert load_recipe(write("none.yaml", "extends: two.yaml\nreadings:\n")).readings == ()
    assert load_recipe(write("c.yaml", recipe.to_yaml())) == recipe


def test_a_recipe_of_a_table_says_what_its_paper_leaves_open():
    silent = [name for name in NAMES if shipped(name).published and not shipped(name).readings]
    assert silent == []


@pytest.mark.parametrize("name", OF_PAPERS)
def test_a_recipe_of_a_table_says_what_happens_to_the_validation_images(name):
    """All images are trained on where the paper has no split, and the last epoch is attacked."""
    recipe, said = shipped(name), " ".join(shipped(name).readings)
    if recipe.data.val_fraction:
        assert name in ("operational-space/" + each for each in STOPPED_EARLY)
        assert "a tenth of the training images is held out" in said
        assert recipe.train["patience"] == 5 and recipe.evaluate.checkpoint == "best"
    else:
        assert "all training images are trained on" in said.replace("All", "all")
        assert recipe.evaluate.checkpoint == "last"


def test_readings_of_the_papers_training_attacks_say_what_is_trained():
    """Steps are "k=2" in TGO's text; the random step of stable-snn is projected here."""
    assert any("step size k=2" in each for each in shipped("tgo/cifar10-wrn16_4-at").readings)
    name = "stable-snn/cifar10-vgg5-at-lif"
    (said,) = [each for each in shipped(name).readings if "RFGSM" in each]
    assert "here it is projected to 4/255" in said
    built = build(load_recipe(name, [*DIGITS, "model.width=0.05", "evaluate.limit="]))
    (at,) = [piece for piece in built.objective.pieces if piece.name == "at"]
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.arange(4)
    moved = at.perturb(built.model, x, y, generator=stream(0, "at")) - x
    assert float(moved.abs().max()) <= 4 / 255 + 1e-7


@pytest.mark.parametrize("name", [name for name in NAMING if name.startswith(OWN_SIZES)])
def test_a_recipe_of_another_size_says_what_differs_from_each_row(name):
    """Nothing is held out in medium/, a tenth in mini/; images, epochs and width are smaller."""
    recipe, said = shipped(name), " ".join(shipped(name).readings)
    medium = name.startswith("medium/")
    assert ("all 50,000 are trained on" if medium else "a tenth is held out") in said
    for key in recipe.published:
        differing = " ".join(size_differences(recipe, rows()[key], None))
        assert ("network" if name.startswith("events/") else "width") in differing, key
        assert "epochs" in differing, key
        assert ("training images" in differing) != medium, key
        other = "cifar100" in key or name.startswith("events/")
        assert ("data" in differing) == other, key


def test_every_small_recipe_of_a_printed_defence_names_its_row():
    """Defences that no table has: AT at the tested radius, TRADES, other encoders, SR with RAT."""
    silent = {n for n in NAMES if n.startswith(OWN_SIZES) and not shipped(n).published}
    words = ("at8", "trades8", "mnist", "feel", "mpd-sgr", "quantised", "rat-sr", "rat-dlif")
    words += ("rte", "rsc", "smoothed", "rate")
    words += ("at-dlif", "gaussian")  # the tables train DLIF and noise at 4/255 and with DLIF
    assert silent == {n for n in silent if any(word in n for word in words)}
    assert len([n for n in NAMING if n.startswith(OWN_SIZES)]) > 30


def test_published_rows_are_not_inherited(write):
    recipe = load_recipe(write("c.yaml", "extends: tgo/cifar10-wrn16_4-at\n"))
    assert load_recipe("tgo/cifar10-wrn16_4-at").published
    assert recipe.published == ()


def test_parts_are_hidden_and_cannot_be_trained(capsys):
    assert not [name for name in NAMES if name.rpartition("/")[2].startswith("_")]
    assert recipes.recipe_names("strong/") == [n for n in NAMES if n.startswith("strong/")]
    assert main(["train", "tgo/_at"]) == 2
    assert "unknown recipe 'tgo/_at'" in capsys.readouterr().err


def test_reading_a_recipe_twice_gives_it_twice_and_unchanged():
    first = recipes.read("tgo/cifar10-wrn16_4-at-tgo")
    first["model"]["T"] = 99
    first["objective"].clear()
    assert recipes.read("tgo/cifar10-wrn16_4-at-tgo")["model"]["T"] == 4
    assert recipes.read("tgo/cifar10-wrn16_4-at-tgo")["objective"]


# --- combinations that cannot work

IMPOSSIBLE = {
    "two perturbations": ("mini/mnist-at", ["objective=[{name: at, eps: 0.1}, gaussian]"], "once"),
    "trades and at": ("mini/mnist-at", ["objective=[{name: at, eps: 0.1}, trades]"], "once"),
    "rat with weight decay": (
        "mini/mnist-at",
        ["objective=[rat]", "train.weight_decay=1e-4"],
        "train.weight_decay: 0",
    ),
    "mppd unperturbed": (
        "mini/mnist-vanilla",
        ["objective=[mppd]"],
        "add a piece that perturbs",
    ),
    "mixup unperturbed": (
        "mini/mnist-vanilla",
        ["objective=[mixup]"],
        "add a piece that perturbs",
    ),
    "mixup and trades": ("mini/mnist-vanilla", ["objective=[mixup, trades]"], "one share"),
    "a layer that is not there": (
        "mini/mnist-at",
        ["objective=[{name: at, eps: 0.1}, {name: mppd, layer: nowhere}]"],
        "no spiking layer 'nowhere'",
    ),
    "an evolutionary leak of another T": (
        "mini/mnist-vanilla",
        ["model.neuron={name: evolutionary_lif, T: 3}"],
        "model.neuron.T",
    ),
    "gates of another T": ("mini/mnist-vanilla", ["model.neuron={name: dlif, T: 3}"], "leave it"),
    "a margin no surrogate gives": (
        "mini/mnist-vanilla",
        ["objective=[tgo]", "model.neuron={name: lif, surrogate: straight_through}"],
        "pass delta",
    ),
    "a width no surrogate has": (
        "mini/mnist-vanilla",
        [
            "objective=[{name: mpd_sgr, eta: 0.1}]",
            "model.neuron={name: if, surrogate: straight_through}",
        ],
        "pass width",
    ),
    "a gate prior without gates": ("mini/mnist-vanilla", ["objective=[stog]"], "stog"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_pieces_that_cannot_be_combined_are_rejected_before_training(case, tmp_path, capsys):
    """By the library and by the command line: one line, exit code 2, nothing written."""
    name, changes, part = IMPOSSIBLE[case]
    with pytest.raises(ConfigError) as caught:
        build(small(name, *changes))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    words = [*DIGITS, "model.width=2", *changes]
    assert main(["train", name, *words, "--out", str(tmp_path / "run")]) == 2
    assert part in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_network_and_neuron_and_defence_of_the_papers_is_in_a_recipe():
    used = [shipped(name) for name in NAMES]
    assert {r.model["name"] for r in used} >= MODELS_OF_PAPERS
    pieces = {each["name"] for r in used for each in r.objective}
    assert pieces >= DEFENCES_OF_PAPERS


def test_another_name_of_a_recipe_is_read_as_that_recipe_and_not_a_recipe_of_its_own():
    """So 'reproduce tgo' trains it once."""
    assert recipes.other_names() == {"tgo/cifar10-vgg11": "tgo/cifar10-vgg11-tgo"}
    assert load_recipe("tgo/cifar10-vgg11") == load_recipe("tgo/cifar10-vgg11-tgo")
    assert load_recipe("tgo/cifar10-vgg11").name == "tgo/cifar10-vgg11-tgo"
    assert "tgo/cifar10-vgg11" not in recipes.recipe_names("tgo/")


def test_a_file_of_the_user_that_only_extends_a_recipe_has_its_own_name(tmp_path):
    (tmp_path / "own.yaml").write_text("extends: demo/vanilla\n")
    assert load_recipe(tmp_path / "own.yaml").name == "own"
