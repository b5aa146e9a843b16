"""Recipes: merging, overriding, checking, building, and saving what was built."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeguard.config import yaml_files as recipes
from spikeguard.config.builder import build, build_objective
from spikeguard.config.errors import ConfigError, ConfigPath
from spikeguard.config.instantiate import call_checked, instantiate, parse_number
from spikeguard.config.schema import EvaluateSection, eps_text, load_recipe
from spikeguard.encoders import ENCODERS
from spikeguard.models import MODELS
from spikeguard.neurons import DLIF, NEURONS, SURROGATES, Triangular
from spikeguard.rng import stream
from spikeguard.training.options import TrainOptions

SMALL = """
name: small
data: {name: digits, train_limit: 60, test_limit: 20}
model: {name: cnn, T: 2, width: 4, hidden: 8}
train: {epochs: 1}
"""
SHAPE = {
    "num_classes": 10,
    "in_channels": 1,
    "image_size": 8,
    "in_features": 64,
    "in_shape": (1, 8, 8),
    "mean": (0.3,),
    "std": (0.37,),
}


@pytest.fixture
def write(tmp_path):
    def write(name, text=SMALL):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return path

    return write


def rejected(action, *parts):
    """Run ``action``, expect one line of ConfigError that holds all ``parts``, and return it."""
    with pytest.raises(ConfigError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


# --- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), (" 1 / 4 ", 0.25), ("5e-4", 5e-4), ("1e-3/2", 5e-4), ("-1/2", -0.5)],
)
def test_a_fraction_is_a_number(text, value):
    assert parse_number(text) == value


@pytest.mark.parametrize("value", ["1/0", "a/b", "8//255", "adam", True, None, 3, [1]])
def test_text_that_is_no_number_is_left_unchanged(value):
    assert parse_number(value) is value


@pytest.mark.parametrize(
    ("eps", "text"), [(8 / 255, "8/255"), (0.1, "0.1"), (0.2, "0.2"), (0.0, "0.0")]
)
def test_radii_are_written_shortly_and_read_back_exactly(eps, text):
    assert eps_text(eps) == text
    assert parse_number(text) == eps


# --- YAML


def test_scalars_are_those_of_yaml_1_2():
    text = "a: 1e-3\nb: on\nc: 8/255\nd: 2024-01-01\ne: ~\nf: true\ng: 1:30\nh: 7"
    assert recipes.parse(text, "x") == {
        "a": 1e-3,
        "b": "on",
        "c": "8/255",
        "d": "2024-01-01",
        "e": None,
        "f": True,
        "g": "1:30",
        "h": 7,
    }


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"]))
    | st.sampled_from(
        ["1e-3", "8/255", "on", "null", "010", "true", "~", "1.", "-.5", "", "=", "<<"]
    ),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text("abc", min_size=1), values))
def test_a_dumped_recipe_is_read_back(raw):
    assert recipes.parse(recipes.dump(raw), "x") == raw


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: 1\na: 2", "line 2: key 'a' is given twice"),
        ("model: {T: 1, T: 2}", "key 'T' is given twice"),
        ("- 1", "mapping of sections, got list"),
        ("", "mapping of sections, got NoneType"),
        ("a: [1", "line"),
        ("? [1]\n: 2", "a key is a word"),
        (
            "a: !!python/object/apply:os.system [true]",
            "tag !!python/object/apply:os.system is not allowed",
        ),
    ],
)
def test_a_broken_file_is_rejected_in_one_line(write, text, part):
    path = write("broken.yaml", text)
    rejected(lambda: load_recipe(path), "recipe broken", part)


def test_a_file_that_is_no_text_is_rejected(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    rejected(lambda: load_recipe(tmp_path / "x.yaml"), "recipe x", "UTF-8")


# --- extends


def test_a_child_is_laid_over_its_parent(write):
    write("base.yaml", SMALL + "title: The base\nobjective: [{name: at, eps: 0.1}, {name: tgo}]\n")
    child = write(
        "sub/child.yaml",
        "extends: ../base.yaml\nmodel: {T: 3}\ndata: {train_limit: null}\nobjective: [tgo]\n",
    )
    recipe = load_recipe(child)
    assert recipe.model == {"name": "cnn", "T": 3, "width": 4, "hidden": 8}
    assert recipe.data.train_limit is None  # null goes back to the default
    assert recipe.data.test_limit == 20
    assert recipe.objective == ({"name": "tgo"},)  # lists are replaced
    assert (recipe.name, recipe.title) == ("child", "")  # not inherited


def test_a_child_may_extend_a_recipe_that_ships_with_spikeguard(write):
    recipe = load_recipe(write("mine.yaml", "extends: demo/tgo\nmodel: {T: 9}\n"))
    assert recipe.model["T"] == 9
    assert recipe.model["width"] == load_recipe("demo/tgo").model["width"]


def test_an_entry_that_changes_its_name_starts_over_and_the_model_does_not():
    below = {"model": {"name": "cnn", "T": 4, "neuron": {"name": "noisy_lif", "sigma": 0.2}}}
    above = {"model": {"name": "mlp", "neuron": {"name": "lif"}}}
    assert recipes.merge(below, above) == {
        "model": {"name": "mlp", "T": 4, "neuron": {"name": "lif"}}
    }
    kept = recipes.merge(below, {"model": {"neuron": {"decay": 0.9}}})
    assert kept["model"]["neuron"] == {"name": "noisy_lif", "sigma": 0.2, "decay": 0.9}


def test_merging_changes_neither_side():
    below, above = {"a": {"b": [1]}}, {"a": {"c": [2]}}
    merged = recipes.merge(below, above)
    merged["a"]["b"].append(3)
    merged["a"]["c"].append(3)
    assert (below, above) == ({"a": {"b": [1]}}, {"a": {"c": [2]}})


def test_a_cycle_is_rejected(write):
    write("a.yaml", "extends: b.yaml\n")
    path = write("b.yaml", "extends: a.yaml\n")
    rejected(lambda: load_recipe(path), "extends itself", "b -> a -> b")


def test_a_missing_parent_is_rejected(write):
    rejected(
        lambda: load_recipe(write("a.yaml", "extends: none.yaml\n")), "none.yaml", "no such file"
    )


# --- overrides


def test_a_piece_is_changed_by_its_name_or_its_place():
    by_name, by_place = (
        load_recipe("demo/at-tgo", [f"objective.{place}.lambda_max=7"]) for place in ("tgo", "1")
    )
    assert by_name == by_place
    assert by_name.objective[0] == load_recipe("demo/at-tgo").objective[0]
    assert by_name.objective[1]["lambda_max"] == 7


def test_overrides_reach_every_section():
    first = "seed=3 model.T=8 model.neuron.decay=0.9 objective.0.eps=8/255 train.lr=5e-4"
    second = "evaluate.eps=2/255 evaluate.suite=[quick,papers] data.train_limit=60"
    recipe = load_recipe("demo/at", [*first.split(), *second.split()])
    assert (recipe.seed, recipe.model["T"], recipe.train["lr"]) == (3, 8, 5e-4)
    assert recipe.model["neuron"]["decay"] == 0.9
    assert recipe.evaluate.eps == (2 / 255,)
    assert recipe.evaluate.suite == ("quick", "papers")
    assert recipe.data.train_limit == 60
    assert build_objective(recipe).pieces[0].eps == 8 / 255


def test_a_neuron_may_be_written_as_its_name_alone():
    recipe = load_recipe("demo/tgo", ["model.neuron=plif", "model.neuron.decay=0.7"])
    assert recipe.model["neuron"] == {"name": "plif", "decay": 0.7}


def test_an_empty_value_goes_back_to_the_default():
    assert load_recipe("demo/tgo", ["evaluate.limit="]).evaluate.limit is None
    assert "lr" not in load_recipe("demo/tgo", ["train.lr="]).train


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("model.T", ["write key=value"]),
        ("=3", ["write key=value"]),
        ("model.T=[1", ["model.T", "no YAML value"]),
        ("modle.T=8", ["unknown key 'modle'", "Did you mean 'model'?"]),
        (
            "data.trian_limit=8",
            ["data in", "unknown key 'trian_limit'", "Did you mean 'train_limit'?"],
        ),
        ("evaluate.esp=0.1", ["evaluate in", "Did you mean 'eps'?"]),
        (
            "evaluate.eps=-8/255",
            ["evaluate.eps.0 in recipe demo/at-tgo", "greater than or equal to 0"],
        ),
        ("evaluate.eps=[]", ["evaluate.eps", "at least 1 item"]),
        ("evaluate.eps=big", ["evaluate.eps.0", "valid number, got 'big'"]),
        ("evaluate.norm=l7", ["evaluate.norm", "'linf', 'l2' or 'l1'", "got 'l7'"]),
        ("data.train_limit=true", ["data.train_limit", "valid integer, got True"]),
        ("data.train_limit=many", ["data.train_limit", "valid integer, got 'many'"]),
        ("data=7", ["data in", "got 7"]),
        ("seed=-1", ["seed", "got -1"]),
        ("objective.5.eps=1", ["objective.5", "there are at, tgo, also numbered from 0"]),
        ("objective.rat.beta=1", ["objective.rat", "there are at, tgo, also numbered from 0"]),
        ("model.T.x=1", ["model.T is the value", "it has no keys"]),
        ("name=../up", ["name", "folder"]),
        ("name=/up", ["name", "folder"]),
    ],
)
def test_a_wrong_override_is_rejected_where_it_is_wrong(change, parts):
    rejected(lambda: load_recipe("demo/at-tgo", [change]), *parts)


def test_overriding_leaves_the_given_mapping_alone():
    raw = {"a": {"b": [{"c": 1}]}}
    assert recipes.override(raw, ["a.b.0.c=2"]) == {"a": {"b": [{"c": 2}]}}
    assert raw == {"a": {"b": [{"c": 1}]}}


def test_an_unknown_recipe_gets_the_nearest_name():
    rejected(lambda: load_recipe("demo/vanila"), "Did you mean 'demo/vanilla'?")
    rejected(lambda: load_recipe("nowhere/x.yaml"), "nowhere/x.yaml: no such file")


# --- entries


def test_an_entry_gets_the_given_values_and_passes_them_to_inner_entries():
    spec = {"name": "dlif", "gate": "leak", "surrogate": {"name": "triangular", "width": "1/2"}}
    neuron = instantiate(NEURONS, spec, "neuron", T=5, num_classes=10)
    assert isinstance(neuron, DLIF)
    assert (len(neuron.a), neuron.gate, neuron.surrogate) == (5, "leak", Triangular(0.5))


def test_the_models_time_steps_reach_its_neurons():
    for steps, spec in ((3, {"T": 3}), (4, {})):  # 4 is CNN's default
        spec = {"name": "cnn", "width": 2, "hidden": 4, "neuron": "dlif", **spec}
        model = instantiate(MODELS, spec, "model", **SHAPE, generator=stream(0, "init"))
        assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
        assert {len(n.a) for n in model.modules() if isinstance(n, DLIF)} == {steps}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (
            "liff",
            [
                "model.neuron in recipe r: unknown name 'liff'. Did you mean 'lif'?",
                f"Known: {', '.join(sorted(NEURONS))}.",
            ],
        ),
        ({"decay": 0.5}, ["a mapping with 'name'"]),
        (3, ["a mapping with 'name'"]),
        ({"name": "lif", "dacay": 0.5}, ["unknown key of LIF 'dacay'. Did you mean 'decay'?"]),
        (
            {"name": "lif", "decay": "half"},
            ["model.neuron.decay in recipe r: should be a valid number"],
        ),
        ({"name": "lif", "decay": True}, ["model.neuron.decay", "valid number, got True"]),
        ({"name": "lif", "detach_reset": 1}, ["model.neuron.detach_reset", "valid boolean, got 1"]),
        ({"name": "lif", "decay": 2}, ["LIF: decay is a leak factor in (0, 1], got 2", "from_tau"]),
        ({"name": "lif", "reset": "sotf"}, ["'hard' or 'soft', got 'sotf'"]),
        ({"name": "noisy_lif", "sigma": -1}, ["NoisyLIF: sigma is a standard deviation >= 0"]),
        (
            {"name": "noisy_lif", "noise_in": ["train", "tset"]},
            ["model.neuron.noise_in.1", "got 'tset'"],
        ),
        ({"name": "dlif", "T": 3}, ["model.neuron.T", "leave it out"]),
        ({"name": "lif", "surrogate": "triangle"}, ["model.neuron.surrogate", "'triangular'?"]),
        (
            {"name": "lif", "surrogate": {"name": "triangular", "width": 0}},
            ["model.neuron.surrogate in recipe r: Triangular"],
        ),
    ],
)
def test_a_wrong_entry_is_rejected_with_its_place(spec, parts):
    where = ConfigPath("model", "recipe r") / "neuron"
    rejected(lambda: instantiate(NEURONS, spec, where, T=4), *parts)


def test_a_missing_option_is_named():
    rejected(lambda: instantiate(NEURONS, "dlif", ConfigPath("n")), "n: DLIF needs 'T'")


def test_options_that_recipes_cannot_hold_are_rejected():
    spec = {"name": "cnn", "generator": 3}
    rejected(lambda: instantiate(MODELS, spec, "model"), "model.generator", "cannot be written")


def test_a_word_may_look_like_a_number_to_yaml():
    """``precision: 16`` is read as an int, but TrainOptions wants the word."""
    options = call_checked(
        TrainOptions, {"precision": 32, "lr": "1/8", "epochs": 3}, ConfigPath("train"), seed=5
    )
    assert options == TrainOptions(precision="32", lr=0.125, epochs=3, seed=5)
    rejected(
        lambda: call_checked(TrainOptions, {"precision": 8}, ConfigPath("train")),
        "train.precision",
        "got 8",
    )
    rejected(
        lambda: call_checked(TrainOptions, {"epochs": 1.5}, ConfigPath("train")),
        "train.epochs",
        "integer",
    )


def test_a_bug_in_a_constructor_is_not_dressed_up_as_a_mistake():
    def broken(x: int = 1):
        return None + x

    with pytest.raises(TypeError):
        call_checked(broken, {}, ConfigPath("here"))


@pytest.mark.parametrize("registry", [NEURONS, SURROGATES, ENCODERS, MODELS])
def test_every_entry_of_a_registry_can_be_built_by_name_alone(registry):
    for name in registry:
        instantiate(registry, name, name, **SHAPE, **({"T": 2} if registry is not MODELS else {}))


# --- recipes


def test_building_is_repeatable_and_follows_the_seed(write):
    path = write("small.yaml")
    first, again = (build(load_recipe(path)).model.state_dict() for _ in range(2))
    other = build(load_recipe(path, ["seed=1"])).model.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    assert build(load_recipe(path, ["seed=1"])).options.seed == 1


def test_the_model_normalises_with_the_statistics_of_its_data(write):
    built = build(load_recipe(write("small.yaml")))
    assert built.model.mean.flatten().tolist() == pytest.approx(list(built.data.mean))
    assert (len(built.data.test), len(built.data.train) + len(built.data.val)) == (20, 60)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("data.name=digit", ["data in recipe small", "Did you mean 'digits'?"]),
        ("data.val_fraction=2", ["data in recipe small"]),
        ("data.augment=[flop]", ["data in recipe small", "Did you mean 'flip'?"]),
        ("model.name=cnnn", ["model in recipe small", "Did you mean 'cnn'?"]),
        ("model.num_classes=3", ["model.num_classes", "leave it out"]),
        ("model.T=0", ["model in recipe small", "T must be >= 1"]),
        ("model.encoder=phse", ["model.encoder in recipe small", "Did you mean 'phase'?"]),
        ("train.lrr=1", ["train in recipe small", "Did you mean 'lr'?"]),
        ("train.lr=0", ["train in recipe small", "lr must be positive"]),
        ("train.seed=0", ["train.seed in recipe small", "leave it out"]),
        ("objective=[att]", ["objective.0 in recipe small", "Did you mean 'at'?"]),
        ("objective=[at]", ["objective.0 in recipe small: AT needs 'eps'"]),
        ("objective=[{name: at, eps: -1}]", ["objective.0 in recipe small: AT: eps"]),
        ("objective=[tgo, tgo]", ["objective in recipe small", "twice"]),
        ("objective=[{name: at, eps: 0.1}, gaussian]", ["objective in recipe small", "once"]),
    ],
)
def test_a_recipe_that_cannot_be_built_says_where(write, change, parts):
    recipe = load_recipe(write("small.yaml"), [change])
    rejected(lambda: build(recipe), *parts)


def test_the_training_part_is_free_of_titles_and_attacks(write):
    path = write("small.yaml")
    plain = load_recipe(path)
    other = load_recipe(path, ["title=Other", "name=other", "evaluate.limit=3"])
    assert plain.training_part() == other.training_part()
    assert plain.training_part() != load_recipe(path, ["train.epochs=2"]).training_part()


def test_an_evaluation_plan_is_changed_with_the_same_checks():
    plan = EvaluateSection()
    assert plan.changed(limit=3, eot=None) == EvaluateSection(limit=3)
    rejected(lambda: plan.changed(eps=[-0.1]), "eps.0", "greater than or equal to 0, got -0.1")
    rejected(lambda: plan.changed(limit=0), "limit", "got 0")


def test_recipes_are_frozen():
    recipe = load_recipe("demo/at")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        ConfigPath("a").path = "b"


def test_reading_recipes_needs_no_torch():
    code = (
        "import sys; from spikeguard.config import load_recipe\n"
        "load_recipe('demo/tgo', ['model.T=8'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
