"""Contract of every analysis; the tests run on each entry of ANALYSES.

An analysis declares the tests that it cannot pass: ``exempt_from`` may hold "same_bits" (it
measures time) and "images" (it reads parameters alone: no images, no passes). One that does not
apply to the network raises ``NotApplicable``.
"""

import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from spikeguard.analysis import ANALYSES, Measurement
from spikeguard.analysis.base import SECTIONS, NotApplicable, Passes
from spikeguard.neurons import DLIF, NEURONS
from tests.toys.analyses import built, images, measured, network
from tests.toys.examples import example

every_analysis = pytest.mark.parametrize("name", list(ANALYSES))


def exempt(name):
    return getattr(ANALYSES[name], "exempt_from", frozenset())


def assert_same(a, b, exactly=True):
    assert a.quantities.keys() == b.quantities.keys()
    for key in a.quantities:
        left, right = a[key], b[key]
        if exactly or left.dtype.kind not in "fc":
            np.testing.assert_array_equal(left, right, err_msg=key)
        else:
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5, err_msg=key)


@every_analysis
def test_it_says_what_it_is(name):
    kind = ANALYSES[name]
    assert (kind.name, kind.section in SECTIONS) == (name, True)
    assert kind.title and kind.source and kind.about
    assert inspect.getdoc(kind).partition("\n")[0].endswith(".")


@every_analysis
def test_same_seed_same_bits_and_another_batch_size_changes_nothing(name):
    if "same_bits" in exempt(name):
        pytest.skip(f"{name} measures time")
    whole = measured(name, seed=3)
    assert_same(whole, measured(name, seed=3))
    assert_same(whole, measured(name, seed=3, batch_size=2), exactly=False)


@every_analysis
def test_it_leaves_the_model_unchanged(name):
    for model in (network(), network(DLIF(T=3))):
        state = {key: value.clone() for key, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        grads = [p.requires_grad for p in model.parameters()]
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        try:
            measured(name, model)
        except NotApplicable:
            continue
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        assert [module.training for module in model.modules()] == modes
        assert [p.requires_grad for p in model.parameters()] == grads
        assert all(p.grad is None for p in model.parameters())
        again = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
        assert again == hooks
        return
    pytest.fail("it applies to neither network")


@every_analysis
@pytest.mark.parametrize("neuron", NEURONS)
def test_it_measures_every_neuron_or_does_not_apply(name, neuron):
    """Also those whose leak factor or gates are trained."""
    if "same_bits" in exempt(name):
        pytest.skip(f"{name} measures time, of any neuron in the same way")
    few = {"points": 3} if name == "weight-landscape" else {}
    try:
        found = replace(built(name), **few)(network(example(NEURONS[neuron], T=3)), images())
    except NotApplicable:
        pytest.skip(f"{name} does not apply to {neuron}")
    assert found.analysis == name


@every_analysis
def test_every_number_has_axes_and_words_and_comes_back_from_its_file(name, tmp_path):
    found = measured(name)
    assert found.analysis == name
    assert found.samples == 0 if "images" in exempt(name) else 1 <= found.samples <= 6
    assert all(quantity.about for quantity in found.quantities.values())
    found.save(tmp_path / "x.npz", identity={"weights": "w"})
    again = Measurement.load(tmp_path / "x.npz")
    assert_same(found, again)
    assert again.identity == {"weights": "w"}
    assert (tmp_path / "x.csv").read_text().startswith("quantity,unit,")


@every_analysis
@pytest.mark.parametrize("labels", [["one"], ["one", "two"]], ids=["one", "two"])
def test_it_is_shown_for_one_network_and_for_two(name, labels):
    found = measured(name)
    shown = dict.fromkeys(labels, found)
    kind = ANALYSES[name]
    result, table, plots = kind.result(shown), kind.table(shown), kind.plots(shown)
    assert result and "\n" not in result and not result.endswith(".")
    assert all(len(row) == len(table.head) for row in table.rows)
    names = [plot.name for plot in plots]
    assert len(set(names)) == len(names)
    assert all(plot.title and plot.summary and plot.marks for plot in plots)
    drawn = {mark.network for plot in plots for mark in plot.marks if hasattr(mark, "network")}
    assert drawn <= {"", *labels}
    assert {plot.network for plot in plots} <= {"", *labels}


@every_analysis
def test_its_table_names_the_number_of_images_of_each_network(name):
    found = measured(name)
    few, table = replace(found, samples=found.samples - 2), ANALYSES[name].table
    if re.search(rf"\b{found.samples} [^.;]*\bimages\b", table({"one": found}).caption):
        caption = table({"one": found, "two": few}).caption
        assert re.search(rf"\btwo\b[^.;]*\b{few.samples}\b", caption)


@every_analysis
def test_its_cost_is_known_and_grows_with_the_images(name):
    analysis = built(name)
    few, many = (analysis.passes(n, 4) for n in (10, 100))
    if "images" in exempt(name):
        assert few == many == Passes()
        return
    assert 0 < few.forward + few.gradients <= many.forward + many.gradients < float("inf")


@every_analysis
def test_it_rejects_a_limit_below_one(name):
    if "limit" not in inspect.signature(ANALYSES[name]).parameters:
        pytest.skip(f"{name} has no limit")
    with pytest.raises(ValueError, match="limit"):
        replace(built(name), limit=0)(network(), images())
