"""Shared by all tests: one torch thread, the global seed, and a tiny network with data."""

import os

import pytest
import torch

from spikeguard.models import CNN
from spikeguard.rng import stream

torch.set_num_threads(1)
pytest.register_assert_rewrite("tests.toys")


def pytest_collection_modifyitems(items):
    if not os.environ.get("SPIKEGUARD_LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: set SPIKEGUARD_LONG=1"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Layers of torch draw their weights from the global generator: the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def snn():
    """Spiking CNN for 8x8 grey images and three classes, in eval mode, with BN statistics set."""
    model = CNN(1, 3, T=3, width=4, hidden=6, image_size=8, generator=stream(0, "snn"))
    model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics")))
    return model.eval()


@pytest.fixture
def x():
    return torch.rand(5, 1, 8, 8, generator=stream(0, "x"))


@pytest.fixture
def y():
    return torch.tensor([0, 1, 2, 1, 0])


@pytest.fixture
def untouched_global_generator():
    """The test fails if it leaves torch's global generator in another state."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)
