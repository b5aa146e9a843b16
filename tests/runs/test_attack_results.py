"""Stored attacks are read back only for the weights, images and settings they were made with."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import EvaluateSection
from spikeguard.data import ImageSet, Splits
from spikeguard.evaluation import identity as identities
from spikeguard.evaluation.result_files import PARTS
from spikeguard.rng import stream
from spikeguard.runs.attack_results import evaluate_once
from spikeguard.storage.digests import CHECKSUM, FILES, IDENTITY, UNVERIFIED, sealed
from tests.toys.small_evaluations import spiking

EPS = 0.1
PLAN = EvaluateSection(limit=8)


def images(seed=0):
    x = torch.rand(12, 1, 8, 8, generator=stream(seed, "x"))
    return ImageSet(x, torch.arange(12) % 3, 3, "random", peak=1.0)


def splits(test):
    return Splits(test, test, test, (0.0,), (1.0,))


def attacked(folder, model=None, test=None, **options):
    """Attack, or read the stored attack back."""
    data = splits(images() if test is None else test)
    given = {"eps": EPS, "plan": PLAN, "seed": 0, "folder": folder, "check": False, **options}
    return evaluate_once(spiking() if model is None else model, data, "quick", **given)


@pytest.fixture
def stored(tmp_path):
    attacked(tmp_path)
    (card,) = tmp_path.glob("*.json")
    return card


def changed(model=None):
    model = spiking() if model is None else model
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    return model


def test_the_healthy_result_is_read_back(stored):
    before = {file: file.read_bytes() for file in stored.parent.iterdir()}
    assert attacked(stored.parent).samples == 8
    assert {file: file.read_bytes() for file in stored.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"model": changed()}, "is of other weights; move it away"),
        ({"test": images(seed=1)}, "is of other images or labels; move it away"),
        (
            {"test": replace(images(), labels=(torch.arange(12) + 1) % 3)},
            "is of other images or labels; move it away",
        ),
        ({"seed": 1}, "made with other attack settings; move it away"),
    ],
    ids=["weights", "images", "labels", "seed"],
)
def test_a_result_of_something_else_is_refused(stored, options, part):
    with pytest.raises(ConfigError, match=f"{stored.name} .*{part}"):
        attacked(stored.parent, **options)


def test_images_that_were_not_attacked_do_not_matter(stored):
    test = images()
    pixels = test.images.clone()
    pixels[8:] = 0
    assert attacked(stored.parent, test=replace(test, images=pixels)).samples == 8


def test_another_network_with_the_same_weights_is_refused(stored):
    """T is not among the weights."""
    model = spiking()
    model.T = 3
    with pytest.raises(ConfigError, match="is of another network with the same weights"):
        attacked(stored.parent, model=model)


def test_another_version_of_the_code_is_said_and_accepted(stored, monkeypatch):
    monkeypatch.setattr(identities, "code_version", lambda: "9.9")
    said = []
    assert attacked(stored.parent, announce=said.append).samples == 8
    assert len(said) == 1 and said[0].endswith("this is 9.9")


@pytest.mark.parametrize("name", ["clean", "worst_case"])
def test_an_edited_number_is_found(stored, name):
    card = json.loads(stored.read_text())
    card[name]["accuracy"] += 0.125
    stored.write_text(json.dumps(card))
    with pytest.raises(ValueError, match=f"{stored.name}: damaged, its checksum is another one"):
        attacked(stored.parent)


@pytest.mark.parametrize("older", [False, True])
def test_a_number_that_is_not_that_of_the_outcomes_is_found_without_a_checksum(stored, older):
    """Of a result of an older version, and of one with a forged checksum."""
    card = json.loads(stored.read_text())
    card["worst_case"]["accuracy"] += 0.125
    for name in (CHECKSUM, FILES, IDENTITY):
        if older or name == CHECKSUM:
            card.pop(name)
    stored.write_text(json.dumps(card if older else sealed(card)))
    with pytest.raises(ValueError, match=r"it says [\d.]+ % of 8 for worst_case, the outcomes"):
        attacked(stored.parent)


@pytest.mark.parametrize("suffix", [".npz", ".worst.npz"])
def test_arrays_of_another_attack_are_found(stored, suffix, tmp_path):
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.evaluation.result_files import load_worst

    stem = stored.with_suffix("")
    file = stem.with_name(stem.name + suffix)
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    np.savez(file, **{name: np.zeros_like(array) for name, array in arrays.items()})
    with pytest.raises(ValueError, match=rf"{suffix}: damaged, its SHA-256"):
        Evaluation.load(stem) if suffix == ".npz" else load_worst(stem)


def test_a_result_of_an_older_version_is_read_and_marked(stored):
    card = json.loads(stored.read_text())
    later = (CHECKSUM, FILES, IDENTITY)
    stored.write_text(json.dumps({k: v for k, v in card.items() if k not in later}))
    said = []
    assert attacked(stored.parent, announce=said.append).identity is None
    assert said == [f"{stored}{UNVERIFIED}"]


@pytest.fixture
def unfinished(tmp_path):
    """The folder of an evaluation that was stopped after its first batch."""
    plan = PLAN.changed(batch_size=4)

    def stop(done, total, what):
        if list(tmp_path.rglob("00000000.npz")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attacked(tmp_path, plan=plan, progress=stop)
    (folder,) = tmp_path.rglob(PARTS)
    return tmp_path, folder, {"plan": plan}


def test_an_unfinished_evaluation_continues_for_the_same_weights_only(unfinished):
    folder, _, plan = unfinished
    with pytest.raises(ValueError, match="unfinished evaluation with other weights; finish"):
        attacked(folder, model=changed(), **plan)
    assert attacked(folder, **plan).samples == 8


@pytest.mark.parametrize("weights", [None, "changed"])
def test_parts_without_their_identity_are_refused(unfinished, weights):
    folder, parts, plan = unfinished
    (parts / "identity.json").unlink()
    with pytest.raises(ValueError, match=r"unknown model, its identity.json is missing; remove"):
        attacked(folder, model=weights and changed(), **plan)


def test_a_result_with_a_seed_of_its_own_is_read_back(tmp_path):
    plan = PLAN.changed(seed=5)
    first = attacked(tmp_path, plan=plan)
    (card,) = tmp_path.glob("*.json")
    before = card.read_bytes()
    assert attacked(tmp_path, plan=plan).worst_case == first.worst_case
    assert card.read_bytes() == before


def test_an_attack_that_does_not_fit_the_model_is_no_result(tmp_path):
    """The gradient of the mean field needs noise."""
    data = splits(images())
    given = {"eps": EPS, "plan": PLAN, "seed": 0, "folder": tmp_path, "check": False}
    with pytest.raises(ConfigError, match="pgd steps=2 gradient=mean-field does not fit this"):
        evaluate_once(spiking(), data, "pgd steps=2 gradient=mean-field", **given)
    assert not list(tmp_path.iterdir())


def test_an_address_in_the_text_of_a_network_is_no_other_network(unfinished):
    """As in another process, where the same function is at another address."""
    folder, _, plan = unfinished

    class Described(type(spiking())):
        def extra_repr(self):
            return f"<function f at {hex(id(self))}>"

    stop = {"progress": _stop_at(folder / "own")}
    for made in range(2):
        model = spiking()
        model.__class__ = Described
        if made == 0:
            with pytest.raises(KeyboardInterrupt):
                attacked(folder / "own", model=model, **plan, **stop)
            first = model  # keeps its address
        else:
            assert attacked(folder / "own", model=model, **plan).samples == 8
    assert first is not model


def _stop_at(folder):
    def stop(done, total, what):
        if list(folder.rglob("00000000.npz")):
            raise KeyboardInterrupt

    return stop
