"""LiveMemory: sizes of tensors that are known beforehand."""

import torch

from spikeguard.training.live_memory import LiveMemory


def test_memory_counts_once_until_its_last_tensor_is_gone():
    with LiveMemory() as memory:
        a = torch.zeros(1000)
        assert memory.live == 4000
        b = a + 1
        c = b[10:].view(-1)
        del b
        assert memory.live == 8000  # the view holds all of it
        del c
        assert memory.live == 4000
        a.add_(1)
        assert memory.live == 4000
    assert memory.peaks == [8000]


def test_what_was_there_before_does_not_count():
    before = torch.zeros(1000)
    with LiveMemory() as memory:
        kept = before.view(10, 100).add_(1)
    assert memory.live == 0 and kept.shape == (10, 100)


def test_the_backward_pass_is_seen():
    """exp keeps its output for the backward pass, which frees it and makes the gradient."""
    w = torch.zeros(1000, requires_grad=True)
    with LiveMemory() as memory:
        y = (2 * w).exp().sum()
        assert memory.live == 4000 + 4
        y.backward()
        assert memory.live == 4000 + 4  # the gradient, and y
        del y
        assert memory.live == 4000


def test_every_matrix_product_begins_a_point_of_the_curve():
    with LiveMemory() as memory:
        x = torch.zeros(10, 10)
        for _ in range(3):
            x = x @ x
    assert len(memory.peaks) == 4
    assert memory.peaks == [400, 800, 800, 800]
