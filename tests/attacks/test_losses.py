"""DLR and the targeted losses: values by hand, invariances, rows with no ratio."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeguard.attacks import LOSSES, dlr, margin, targeted_dlr, targeted_margin
from spikeguard.rng import stream

quick = settings(max_examples=60, deadline=None)


def row(*logits, dtype=torch.float64):
    return torch.tensor([logits], dtype=dtype)


def label(*classes):
    return torch.tensor(classes)


def gradient(loss, logits, *classes):
    logits = logits.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(logits, *classes).sum(), logits)
    return grad


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (0, (2 - 5) / (5 - 1)),  # right: second minus own, over first minus third
        (1, (5 - 2) / (5 - 1)),  # ranks second
        (2, 5 - 1),  # ranks third: the ratio would be 1, so it is the margin
        (3, (5 - -4) / (5 - 1)),  # ranks last
    ],
)
def test_dlr_by_hand(y, expected):
    assert float(dlr(row(5, 2, 1, -4), label(y))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("y", "target", "expected"),
    [
        (0, 1, (2 - 5) / (5 - (1 - 4) / 2)),
        (0, 3, (-4 - 5) / (5 - (1 - 4) / 2)),
        (2, 0, (5 - 1) / (5 - (1 - 4) / 2)),  # the third rank is no special case here
    ],
)
def test_targeted_dlr_by_hand(y, target, expected):
    found = targeted_dlr(row(5, 2, 1, -4, -7), label(y), label(target))
    assert float(found) == pytest.approx(expected)


def test_targeted_margin_by_hand():
    logits = row(5, 2, 1).repeat(2, 1)
    assert targeted_margin(logits, label(0, 1), label(2, 0)).tolist() == [-4, 3]


def test_dlr_is_in_the_table_and_the_targeted_losses_are_not():
    assert LOSSES["dlr"] is dlr
    assert not {"targeted_dlr", "targeted_margin"} & set(LOSSES)


@st.composite
def logits(draw):
    """Return generic logits [6, K] without ties, labels, and targets other than the labels."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    classes = draw(st.integers(4, 10))
    z = torch.randn(6, classes, generator=generator, dtype=torch.float64)
    y = torch.randint(classes, (6,), generator=generator)
    target = (y + torch.randint(1, classes, (6,), generator=generator)) % classes
    return z, y, target


def ranked(z, y, place):
    return z.argsort(dim=1, descending=True)[:, place - 1] == y


@quick
@given(case=logits(), shift=st.floats(-50, 50), factor=st.floats(1e-3, 1e3))
def test_neither_shift_nor_scale_changes_the_ratios(case, shift, factor):
    z, y, target = case
    usual = ~ranked(z, y, 3)  # those rows use the margin, which scales
    torch.testing.assert_close(dlr(factor * (z + shift), y)[usual], dlr(z, y)[usual])
    found = targeted_dlr(factor * (z + shift), y, target)
    torch.testing.assert_close(found, targeted_dlr(z, y, target))


@quick
@given(case=logits())
def test_dlr_is_positive_exactly_where_the_model_is_wrong(case):
    z, y, _ = case
    found = dlr(z, y)
    assert torch.equal(found > 0, z.argmax(1) != y)
    assert (found[z.argmax(1) == y] >= -1).all()


@quick
@given(case=logits())
def test_dlr_follows_its_formula_written_with_sort(case):
    z, y, target = case
    ordered = z.sort(dim=1, descending=True).values
    own = z[torch.arange(6), y]
    other = torch.where(ordered[:, 0] == own, ordered[:, 1], ordered[:, 0])
    ratio = (other - own) / (ordered[:, 0] - ordered[:, 2])
    expected = torch.where(ranked(z, y, 3), other - own, ratio)
    torch.testing.assert_close(dlr(z, y), expected)
    spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
    ratio = (z[torch.arange(6), target] - own) / spread
    torch.testing.assert_close(targeted_dlr(z, y, target), ratio)


@quick
@given(case=logits())
def test_gradients_are_those_of_finite_differences(case):
    z, y, target = case
    for loss, classes in ((dlr, (y,)), (targeted_dlr, (y, target)), (targeted_margin, (y, target))):
        grad, h = gradient(loss, z, *classes), 1e-7
        for k in range(z.shape[1]):
            step = torch.zeros_like(z)
            step[:, k] = h
            slope = (loss(z + step, *classes) - loss(z - step, *classes)) / (2 * h)
            smooth = (z.sort(dim=1).values.diff(dim=1) > 1e-3).all(1)
            torch.testing.assert_close(grad[smooth, k], slope[smooth], rtol=1e-3, atol=1e-4)


TIES = [
    (0.5, 0.5, 0.5, 0.25),  # three at the top
    (0.5, 0.5, 0.5, 0.5),
    (0.0, 0.0, 0.0, 0.0),  # a silent network
    (1.0, 0.5, 0.5, 0.5),
    (1.0, 1.0, 0.0, 0.0),
    (1000.0, 1000.0, 999.9999, 0.0),  # a tie but for rounding
]


@pytest.mark.parametrize("y", range(4))
@pytest.mark.parametrize("values", TIES)
def test_ties_give_the_margin_and_no_huge_gradient(values, y):
    z, own = row(*values, dtype=torch.float32), label(y)
    ordered = z.sort(descending=True).values[0]
    for loss, classes, plain, spread in (
        (dlr, (own,), margin(z, own), ordered[0] - ordered[2]),
        (
            targeted_dlr,
            (own, (own + 1) % 4),
            targeted_margin(z, own, (own + 1) % 4),
            ordered[0] - (ordered[2] + ordered[3]) / 2,
        ),
    ):
        found, grad = loss(z, *classes), gradient(loss, z, *classes)
        assert found.isfinite().all() and grad.isfinite().all()
        assert grad.abs().max() <= 16
        assert grad.abs().max() > 0, "the row is lost to the attack"
        if spread <= 1e-3 * ordered[0]:
            torch.testing.assert_close(found, plain)


def test_counts_of_spikes_never_give_an_infinite_gradient():
    """Rates of T = 4 steps: nearly every row ties somewhere."""
    z = torch.randint(0, 5, (4000, 10), generator=stream(0, "z")) / 4
    y = torch.randint(0, 10, (4000,), generator=stream(0, "y"))
    for loss, classes in ((dlr, (y,)), (targeted_dlr, (y, (y + 3) % 10))):
        grad = gradient(loss, z, *classes)
        assert grad.isfinite().all()
        assert grad.abs().max() < 100
        assert (grad.abs().sum(1) > 0).all()


def test_the_third_rank_has_a_gradient():
    """The plain ratio is constantly 1 there, with gradient 0."""
    grad = gradient(dlr, row(3, 2, 1, 0), label(2))
    torch.testing.assert_close(grad, row(1, 0, -1, 0))
    tied = gradient(dlr, row(3, 1, 1, 1), label(2))  # third with others: the same
    torch.testing.assert_close(tied, row(1, 0, -1, 0))


def test_a_degenerate_row_does_not_touch_its_neighbours():
    z = torch.cat([row(0, 0, 0, 0), row(5, 2, 1, -4)])
    alone = gradient(dlr, row(5, 2, 1, -4), label(0))
    torch.testing.assert_close(gradient(dlr, z, label(1, 0))[1:], alone)


@pytest.mark.parametrize("classes", [2, 3])
def test_with_too_few_classes_the_losses_are_margins(classes):
    z = torch.randn(8, classes, generator=stream(0, "few"))
    y = torch.arange(8) % classes
    target = (y + 1) % classes
    torch.testing.assert_close(targeted_dlr(z, y, target), targeted_margin(z, y, target))
    if classes == 2:
        torch.testing.assert_close(dlr(z, y), margin(z, y))


def test_half_precision_is_computed_in_float32():
    z = row(5, 2, 1, -4, dtype=torch.bfloat16)
    assert dlr(z, label(0)).dtype == torch.float32
    assert targeted_dlr(z, label(0), label(1)).dtype == torch.float32
