"""Errors of a model are told from those of its caller by where they were raised."""

import pytest
import torch
from torch import nn

from spikeguard.system.model_errors import is_model_error


class Raises(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(this, x):  # noqa: N805
        raise this.error


@pytest.mark.parametrize(
    ("error", "inside", "outside"),
    [
        (KeyError("a"), True, False),
        (AssertionError(), True, False),
        (RuntimeError("shapes differ"), True, True),
        (MemoryError(), False, False),
        (torch.OutOfMemoryError("no room"), False, False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), False, False),
    ],
)
def test_the_place_decides_what_the_type_does_not(error, inside, outside):
    assert is_model_error(error) == outside
    with pytest.raises(type(error)) as caught:
        nn.Sequential(nn.Identity(), Raises(error))(torch.zeros(1))
    assert is_model_error(caught.value) == inside
