"""Recipes that are no recipes: bombs, tags, odd scalars; each is one line about one place."""

import pytest
import yaml

from spikeguard.config import yaml_files
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import load_recipe
from spikeguard.config.yaml_loader import MAX_ALIASES, MAX_DEPTH, MAX_NODES, load_yaml


def laughs(width, levels):
    """Lists of aliases: ``width`` to the power of ``levels`` values in a few hundred bytes."""
    lines = ["x0: &a0 [1, 1, 1]"]
    lines += [f"x{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "aliases": (laughs(9, 30), "more than 5000 values"),
    "few aliases": (laughs(5, 11), "more than 5000 values"),
    "many aliases": (f"a: &a 1\nb: [{', '.join(['*a'] * 51)}]", "line 2: more than 50 aliases"),
    "itself": ("a: &a\n  b: *a", "line 2: alias [*]a is inside what it repeats"),
    "list in itself": ("a: &a [*a]", "alias [*]a is inside what it repeats"),
    "deep lists": ("a: " + "[" * 5000 + "]" * 5000, "more than 20 levels"),
    "deep mappings": ("{a: " * 5000 + "1" + "}" * 5000, "more than 20 levels"),
    "wide": (f"a: [{'1, ' * 20_000}1]", "more than 5000 values"),
    "large": ("#" * 70_000, "more than 64 KiB"),
    "large in bytes": ("#" + "\u00e9" * 40_000, "more than 64 KiB"),
    "digits": ("seed: " + "9" * 5000, "a number of 5000 characters"),
    "binary": ("a: !!binary aGVsbG8=", "tag !!binary is not allowed"),
    "set": ("a: !!set {b, c}", "tag !!set is not allowed"),
    "timestamp": ("a: !!timestamp 2001-12-14", "tag !!timestamp is not allowed"),
    "pairs": ("a: !!pairs [b: 1]", "tag !!pairs is not allowed"),
    "merge": ("a: {!!merge <<: {b: 1}}", "tag !!merge is not allowed"),
    "python": ("a: !!python/object/apply:os.system [x]", "is not allowed"),
    "int": ("a: !!int abc", "this is no !!int"),
    "bool": ("a: !!bool abc", "this is no !!bool"),
    "list": ("a: !!seq abc", "sequence"),
    "mapping": ("a: !!map [1]", "this is no !!map"),
    "surrogate": ('a: "\\ud800"', "this is no !!str"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_one_line(case):
    text, message = HOSTILE[case]
    with pytest.raises(ConfigError, match=f"^recipe x: .*{message}") as caught:
        yaml_files.parse(text, "recipe x")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    # as the value of a change on the command line
    with pytest.raises(ConfigError, match=message):
        yaml_files.override({}, [f"model.T={text}"])


def test_what_is_within_the_limits_is_read():
    deep = "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1)
    assert str(load_yaml(deep)) == deep
    assert load_yaml(f"[{', '.join(['1'] * (MAX_NODES - 1))}]") == [1] * (MAX_NODES - 1)
    aliases = f"a: &a [1]\nb: [{', '.join(['*a'] * MAX_ALIASES)}]"
    assert load_yaml(aliases)["b"] == [[1]] * MAX_ALIASES
    assert load_yaml("a: !!str 5\nb: !!int 5") == {"a": "5", "b": 5}
    text = "# " + "x" * 60_000 + "\na: 1"
    assert load_yaml(text) == {"a": 1}


def test_every_recipe_that_ships_is_far_from_the_limits():
    for name in yaml_files.recipe_names():
        text = (yaml_files._PACKAGED / f"{name}.yaml").read_text(encoding="utf-8")
        nodes = sum(isinstance(e, yaml.NodeEvent) for e in yaml.parse(text))
        assert nodes < MAX_NODES / 10
        assert len(text) < 16_000


@pytest.mark.parametrize(("levels", "fits"), [(32, True), (33, False)])
def test_extends_is_linear_and_limited(levels, fits, tmp_path, monkeypatch):
    """Each file extends the next one twice: without a memo 2 ** 32 files would be read."""
    for i in range(levels):
        (tmp_path / f"r{i}.yaml").write_text(f"extends: [r{i + 1}.yaml, r{i + 1}.yaml]\n")
    (tmp_path / f"r{levels}.yaml").write_text("seed: 7\n")
    read, found = [], yaml_files.parse
    monkeypatch.setattr(yaml_files, "parse", lambda *a: read.append(1) or found(*a))
    if fits:
        assert yaml_files.read(tmp_path / "r0.yaml") == {"name": "r0", "seed": 7}
        assert len(read) == levels + 1
    else:
        with pytest.raises(ConfigError, match="recipe r0: more than 32 levels of extends"):
            yaml_files.read(tmp_path / "r0.yaml")


def test_a_recipe_that_extends_too_many_is_rejected(tmp_path):
    (tmp_path / "r.yaml").write_text(f"extends: [{', '.join(['demo/vanilla'] * 33)}]")
    with pytest.raises(ConfigError, match="extends in recipe r: more than 32 entries"):
        yaml_files.read(tmp_path / "r.yaml")


def test_a_key_of_many_steps_is_rejected():
    with pytest.raises(ConfigError, match="a key of 5001 steps"):
        yaml_files.override({}, ["a" + ".a" * 5000 + "=1"])


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a\x1bb", ""])
def test_a_name_that_cannot_be_a_folder_is_rejected(name, tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(yaml_files.dump({"extends": "demo/vanilla", "name": name}))
    with pytest.raises(ConfigError, match="should be a name that can serve as a folder"):
        load_recipe(file)


def test_an_empty_name_is_that_of_the_file():
    assert load_recipe("demo/vanilla", ["name="]).name == "demo/vanilla"
