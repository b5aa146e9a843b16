"""Regions on the lines of an analysis: known ends, lengths and counts."""

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.analysis import Regions
from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.regions import LINES
from spikeguard.attacks import FGSM, L2, Linf
from spikeguard.neurons import IF, Rectangular
from tests.toys.known_gradients import Neurons, random_thresholds


def two_pixels(surrogate=None):
    """One neuron that fires at a first pixel >= 0.5; the second pixel does nothing."""
    neuron = IF(v_th=1.0) if surrogate is None else IF(v_th=1.0, surrogate=surrogate)
    return Neurons(neuron, 1, torch.ones(1), torch.full((1,), 0.5))


X = torch.tensor([[0.45, 0.5], [0.55, 0.5], [0.2, 0.5]]).view(3, 1, 1, 2)
Y = torch.tensor([1, 0, 1])


def test_the_gradient_leads_across_the_threshold_where_it_is_in_reach():
    """Label 1 wants no spike: an attack raises the pixel. Images 0 and 1 cross, 2 does not."""
    found = Regions(FGSM(Linf(0.1)))(two_pixels(), (X, Y))
    assert found["at_least"][:, 0].tolist() == [2, 2, 1]
    assert found["converged"].all()
    assert found["length"][:, 0] == pytest.approx([0.1] * 3, rel=1e-5)  # the other has no gradient
    assert found["length"][:, 1] == pytest.approx([0.1 * 2**0.5] * 3, rel=1e-5)
    # towards the next image: 0.1 to image 1; image 2 is further than the random line is long
    assert found["length"][:, 2] == pytest.approx([0.1, 0.1 * 2**0.5, 0.1 * 2**0.5], rel=1e-5)
    assert found["at_least"][:, 2].tolist() == [2, 2, 1]
    np.testing.assert_array_equal(found["by_layer"][..., 0], found["regions"])


def test_the_table_has_the_length_of_each_kind_of_line():
    """Of two pixels one has a gradient; the next images are at 0.1, and twice too far."""
    found = Regions(FGSM(Linf(0.1)))(two_pixels(), (X, Y))
    table = Regions.table({"a": found})
    assert table.head[-1] == "Lengths"
    assert table.rows[0][-1] == "0.1, 0.141, 0.128"
    flat = Regions(FGSM(L2(0.1)))(two_pixels(Rectangular(1e-6)), (X, Y))
    assert Regions.table({"a": flat}).rows[0][-1].startswith("0, 0.1, ")


def test_an_image_without_a_gradient_has_no_line_along_it():
    found = Regions(FGSM(L2(0.1)))(two_pixels(Rectangular(1e-6)), (X, Y))
    assert np.isnan(found["regions"][:, 0]).all()
    assert not np.isnan(found["regions"][:, 1:]).any()
    (row,) = Regions.table({"a": found}).rows
    assert row[1] == "–"
    assert row[4] == "0 of 6"


def test_lines_that_have_not_converged_are_counted():
    many = random_thresholds(5000)
    found = Regions(FGSM(Linf(0.3)), points=128)(many, (X, Y))
    assert not (found["converged"] == 1).any()
    (row,) = Regions.table({"many": found}).rows
    drawn = int((found["length"] > 0).sum())
    assert row[4] == f"{drawn} of {drawn}" and drawn >= 6
    assert row[2] == "> 129"
    healthy = Regions(FGSM(Linf(0.1)), points=128)(two_pixels(), (X, Y))
    assert Regions.table({"few": healthy}).rows[0][4] == "0 of 9"


def test_the_result_does_not_depend_on_the_batch_size_at_all():
    found = [Regions(FGSM(Linf(0.2)))(random_thresholds(50), (X, Y), batch_size=b) for b in (1, 64)]
    for name in found[0].quantities:
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_charts_show_every_line():
    found = Regions(FGSM(Linf(0.1)))(two_pixels(), (X, Y))
    lines, layers = Regions.plots({"a": found, "b": found})
    assert list(lines.marks[0].x) == list(LINES)
    assert [mark.network for mark in layers.marks] == ["a", "b"]


def test_mistakes_are_rejected():
    with pytest.raises(NotApplicable, match="Sequential has none"):
        Regions(FGSM(Linf(0.1)))(nn.Sequential(nn.Flatten()), (X, Y))
    with pytest.raises(NotApplicable, match="all lines have length 0 at eps 0"):
        Regions(FGSM(Linf(0.0)))(two_pixels(), (X, Y))
    with pytest.raises(ValueError, match="points must be >= 128"):
        Regions(FGSM(Linf(0.1)), points=64)
    with pytest.raises(ValueError, match="tolerance must be > 0"):
        Regions(FGSM(Linf(0.1)), tolerance=0)
