"""Names of a state dict, matched to those of a model."""

from itertools import product

import pytest

from spikeguard.storage.weight_names import fitted

NAMES = ("features.0.weight", "features.0.bias", "net.weight")
PREFIXES = ("", "module.", "_orig_mod.", "model.", "net.", "module._orig_mod.model.", "model.net.")


@pytest.mark.parametrize(("theirs", "ours"), list(product(PREFIXES, PREFIXES)))
def test_wrappers_around_file_and_model_make_no_difference(theirs, ours):
    found = {f"{theirs}{name}": name for name in NAMES}
    wanted = [f"{ours}{name}" for name in NAMES]
    assert fitted(found, wanted) == dict(zip(wanted, NAMES, strict=True))


def test_a_compiled_part_is_found():
    found = {"features._orig_mod.0.weight": 1, "head.weight": 2}
    assert fitted(found, ["features.0.weight", "head.weight"]) == {
        "features.0.weight": 1,
        "head.weight": 2,
    }


def test_equal_names_are_left_as_they_are():
    found = {"model.a": 1, "model._orig_mod.a": 2}
    assert fitted(found, list(found)) == found


def test_names_that_would_become_one_are_left_as_they_are():
    found = {"_orig_mod.a": 1, "a": 2}
    assert fitted(found, ["a"]) == found


def test_names_that_fit_nothing_are_returned_without_the_prefix():
    assert fitted({"module.a": 1, "module.other": 2}, ["a", "b"]) == {"a": 1, "other": 2}
