"""The test for values that are not finite."""

from __future__ import annotations

import math

import pytest
import torch

from spikeguard.training.divergence import all_finite


@pytest.mark.parametrize("values", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf]])
def test_a_value_that_is_not_finite_is_found(values: list[float]) -> None:
    tensors = [torch.ones(3), torch.tensor([1.0, *values, 2.0])]
    assert not all_finite(tensors)


@pytest.mark.parametrize("values", [[3e38, 3e38], [-3e38, -3e38, 1.0]])
def test_finite_values_pass_although_their_sum_overflows(values: list[float]) -> None:
    assert not math.isfinite(torch.tensor(values).sum())
    assert all_finite([torch.tensor(values)])


def test_empty_and_integer_tensors_pass() -> None:
    assert all_finite([])
    assert all_finite([torch.empty(0), torch.tensor([1, 2])])
