"""R_adv, loss rise and Theorem 1's ratio against closed forms of linear networks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.analysis import Jacobian, Measurement
from spikeguard.attacks import FGSM, L2, Counts, Edits, Flips, Linf, Retiming
from spikeguard.rng import stream
from tests.toys.event_frames import dots, untrained
from tests.toys.known_gradients import two_logits

EPS = 0.1


W = torch.tensor([3.0, -1, 0.5, 2, 0, -0.25, 1, 4])
# away from the ends of the pixel range
DATA = 0.3 + 0.4 * torch.rand(6, 1, 2, 4, generator=stream(0, "x")), torch.zeros(6).long()


def test_linf_on_a_linear_network_has_closed_forms():
    """FGSM finds the maximum: |w x - w x_adv| = eps |w|_1, a margin lower by that."""
    model, data = two_logits(W), DATA
    found = Jacobian(FGSM(Linf(EPS)), draws=2000)(model, data, batch_size=4)
    drop = EPS * float(W.abs().sum())
    assert found["norm"] == pytest.approx([float(W.norm())] * 6, rel=1e-5)
    assert found["converged"].all()
    assert found["r_adv"] == pytest.approx([drop**2] * 6, rel=1e-4)
    assert found["bound"] == pytest.approx([EPS**2 * float(W.square().sum())] * 6, rel=1e-5)
    assert found["bound_of_norm"] == pytest.approx(8 * found["bound"])
    margin = data[0].flatten(1) @ W
    rise = torch.log1p(torch.exp(-(margin - drop))) - torch.log1p(torch.exp(-margin))
    np.testing.assert_allclose(found["loss_rise"], rise.numpy(), rtol=1e-4)
    ratio = 3 * float(W.abs().sum()) ** 2 / float(W.square().sum())
    assert found["ratio_gradient"] == pytest.approx([ratio] * 6, rel=1e-5)
    assert found["ratio_bound"].tolist() == [21.0] * 6  # seven of eight weights are not 0
    # a mean of 2,000 squares of a sum of uniforms: relative deviation below sqrt(2 / 2000)
    assert found["ratio"] == pytest.approx([ratio] * 6, rel=4 * math.sqrt(2 / 2000))


def test_in_l2_the_printed_bound_is_reached_and_in_linf_it_is_exceeded():
    model, data = two_logits(W), DATA
    l2 = Jacobian(FGSM(L2(EPS)), draws=2)(model, data)
    assert l2["r_adv"] == pytest.approx(l2["bound"], rel=1e-3)
    assert l2["bound_of_norm"] == pytest.approx(l2["bound"])
    assert np.isnan(l2["ratio_gradient"]).all()  # Theorem 1 is about Linf
    linf = Jacobian(FGSM(Linf(EPS)), draws=2)(model, data)
    assert (linf["r_adv"] > linf["bound"]).all()
    assert (linf["r_adv"] <= linf["bound_of_norm"]).all()


@pytest.mark.parametrize("threat", [Edits(5), Flips(5), Counts(5), Retiming(1)])
def test_a_budget_of_events_is_no_radius(threat):
    """5 edits of 0 and 1 have a squared L2 norm of 5 at most, not of 25: no bound is stated."""
    model = untrained()
    found = Jacobian(FGSM(threat), draws=2)(model, dots(4))
    assert (found["norm"] > 0).all()
    assert np.isnan(found["bound"]).all() and np.isnan(found["bound_of_norm"]).all()
    (row,) = Jacobian.table({"a": found}).rows
    assert row[5:7] == ("–", "–")
    assert [plot.name for plot in Jacobian.plots({"a": found})] == ["norms"]


def test_a_float64_network_gets_images_in_its_own_type():
    """It does not cast its input; |J| of a linear layer is the spectral norm of its weight."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False)).double()
    found = Jacobian(FGSM(Linf(EPS)), draws=2)(model, DATA)
    known = float(torch.linalg.matrix_norm(model[1].weight.detach(), 2))
    assert found["norm"] == pytest.approx([known] * 6, rel=1e-6)


def test_a_network_that_nothing_changes_has_no_ratio():
    model, data = two_logits(torch.zeros(8)), DATA
    found = Jacobian(FGSM(Linf(EPS)), draws=2)(model, data)
    for name in ("norm", "r_adv", "bound", "loss_rise", "ratio_bound"):
        assert not found[name].any()
    assert np.isnan(found["ratio"]).all() and np.isnan(found["ratio_gradient"]).all()
    assert Jacobian.plots({"still": found})
    assert Jacobian.table({"still": found}).rows[0][-1] == "6"


def test_the_numbers_are_shown_with_their_intervals():
    model, data = two_logits(W), DATA
    found = Jacobian(FGSM(Linf(EPS)), draws=8)(model, data)
    assert Jacobian.result({"a": found, "b": found}) == (
        "Mean spectral norm of the Jacobian: 5.6 (a), 5.6 (b)"
    )
    (row,) = Jacobian.table({"a": found}).rows
    assert row[:4] == ("a", "5.6", "5.6", "0") and row[6] == "6; 0"
    fewer = Measurement.of(
        found.analysis, found.settings, 6, found.axes,
        **{
            name: (~found[name] if name == "converged" else found[name], q.axes, q.unit, q.about)
            for name, q in found.quantities.items()
        },
    )  # fmt: skip
    assert Jacobian.table({"a": fewer}).rows[0][3] == "6"


def test_mistakes_are_rejected():
    for wrong in ({"draws": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match=r"jacobian: .* must be >= 1, got 0"):
            Jacobian(FGSM(Linf(EPS)), **wrong)
