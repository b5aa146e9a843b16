"""Spectral norms: exact on linear networks, flagged where the iteration has not converged."""

import doctest

import pytest
import torch

from spikeguard.analysis import jacobians, spectral_norm, spectral_norms
from spikeguard.models import CNN
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import SampleStreams, stream
from tests.toys.known_gradients import linear_network


def random_matrices(*shape):
    return torch.randn(*shape, generator=stream(0, "matrix"))


def test_example_in_the_docstring():
    assert doctest.testmod(spectral_norm).failed == 0


@pytest.mark.parametrize("classes", [2, 5, 12])
def test_the_jacobian_of_a_linear_network_is_its_weight_and_the_norm_its_singular_value(classes):
    weight = random_matrices(classes, 9)
    x = torch.rand(4, 1, 3, 3, generator=stream(0, "x"))
    found = jacobians(
        linear_network(weight), x, torch.tensor([0, 1, 1, 0]), SampleStreams(0, range(4))
    )
    torch.testing.assert_close(found, weight.expand(4, -1, -1))
    norms = spectral_norms(found)
    expected = torch.linalg.svdvals(weight.double())[0]
    torch.testing.assert_close(norms.norm, expected.expand(4), rtol=1e-5, atol=0)
    assert norms.converged.all()


def test_diagonal_rank_one_and_zero_matrices():
    diagonal = torch.diag(torch.tensor([0.5, -7.0, 3.0]))
    u, v = torch.tensor([1.0, 2, 2]), torch.tensor([4.0, 0, 3])
    norms = spectral_norms(torch.stack([diagonal, torch.outer(u, v), torch.zeros(3, 3)]))
    assert norms.norm.tolist() == pytest.approx([7, 15, 0], rel=1e-6)  # |u| |v| = 3 * 5
    assert norms.converged.all()
    assert norms.residual[1:].tolist() == pytest.approx([0, 0], abs=1e-7)


@pytest.mark.parametrize("scale", [1e-18, 1e12])
def test_the_scale_changes_nothing(scale):
    matrices = random_matrices(3, 4, 6)
    one, other = spectral_norms(matrices), spectral_norms(matrices * scale)
    torch.testing.assert_close(other.norm / scale, one.norm, rtol=1e-5, atol=0)
    assert other.converged.all()


def test_random_matrices_have_their_largest_singular_value_alone_and_in_a_batch():
    matrices = random_matrices(50, 10, 64)
    norms = spectral_norms(matrices)
    expected = torch.linalg.svdvals(matrices.double())[:, 0]
    assert norms.converged.all()
    torch.testing.assert_close(norms.norm, expected, rtol=1e-3, atol=0)
    alone = torch.cat([spectral_norms(each[None]).norm for each in matrices])
    torch.testing.assert_close(alone, norms.norm, rtol=1e-9, atol=0)


def test_an_iteration_that_has_not_converged_says_so():
    """Singular values 1 and 0.99: one step is too few, 500 are enough; a gap needs fewer."""
    close, apart = torch.diag(torch.tensor([1, 0.99])), torch.diag(torch.tensor([1, 0.01]))
    both = torch.stack([close, apart])
    assert spectral_norms(both, steps=3).converged.tolist() == [False, True]
    found = spectral_norms(both)
    assert found.converged.tolist() == [True, True]
    assert found.norm.tolist() == pytest.approx([1, 1], rel=1e-3)
    early = spectral_norms(both, steps=3)
    assert early.residual[0] > 1e-3
    assert early.norm[0] < 1  # a Rayleigh quotient bounds the norm from below


def test_the_rows_of_a_spiking_network_are_the_gradients_of_its_logits_under_one_noise():
    neuron = NoisyLIF(0.5, 0.3)
    model = CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=neuron, generator=stream(0, "w"))
    x, y = torch.rand(5, 1, 8, 8, generator=stream(1, "x")), torch.arange(5) % 3
    found = jacobians(model, x, y, SampleStreams(3, range(5)))
    assert found.shape == (5, 3, 64) and found.abs().sum() > 0
    alone = jacobians(model, x[4:], y[4:], SampleStreams(3, [4]))
    torch.testing.assert_close(alone[0], found[4], rtol=1e-4, atol=1e-7)
    other = jacobians(model, x, y, SampleStreams(4, range(5)))
    assert not torch.equal(other, found)
    assert model.training and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"tolerance": 0}, {"residual": float("nan")}])
def test_mistakes_are_rejected(wrong):
    with pytest.raises(ValueError, match="spectral_norms: steps >= 1"):
        spectral_norms(torch.eye(2)[None], **wrong)
    with pytest.raises(ValueError, match="not finite"):
        spectral_norms(torch.full((1, 2, 2), torch.inf))
