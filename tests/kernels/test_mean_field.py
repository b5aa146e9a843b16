"""The mean-field recurrence against closed forms and finite differences."""

import math

import pytest
import torch

from spikeguard.kernels.mean_field import mean_field
from spikeguard.rng import stream


def normal_cdf(z):
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def current(*shape):
    return 2 * torch.rand(*shape, generator=stream(0, "I"), dtype=torch.float64)


def test_one_neuron_one_step_is_the_normal_distribution():
    I = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)  # noqa: E741
    p = mean_field(I, decay=0.5, sigma=0.4, v_th=1.0)
    z = (0.7 - 1.0) / 0.4
    assert p.item() == pytest.approx(normal_cdf(z), abs=1e-12)
    (slope,) = torch.autograd.grad(p.sum(), I)
    assert slope.item() == pytest.approx(math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / 0.4)


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_two_steps_worked_by_hand(reset):
    p = mean_field(torch.tensor([0.7, 0.9]), decay=0.5, sigma=0.4, reset=reset)
    first = normal_cdf((0.7 - 1) / 0.4)
    u = 0.7 * (1 - first) if reset == "hard" else 0.7 - first
    second = normal_cdf((0.5 * u + 0.9 - 1) / 0.4)
    torch.testing.assert_close(p, torch.tensor([first, second]))


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_the_gradient_is_that_of_finite_differences(reset):
    def run(I, decay):  # noqa: E741
        return mean_field(I, decay=decay, sigma=0.5, v_th=0.8, reset=reset)

    I, decay = current(5, 3).requires_grad_(), torch.tensor(0.7, dtype=torch.float64)  # noqa: E741
    assert torch.autograd.gradcheck(run, (I, decay.requires_grad_()))


def test_a_repeated_step_equals_its_copies():
    I, options = current(1, 2, 3), {"decay": 0.5, "sigma": 0.5}  # noqa: E741
    assert torch.equal(mean_field(I, T=4, **options), mean_field(I.expand(4, 2, 3), **options))


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_without_noise_in_the_limit_it_is_the_spiking_recurrence(reset):
    from spikeguard.kernels.dispatch import integrate_and_fire
    from spikeguard.neurons import Triangular

    I, options = current(6, 50), {"decay": 0.5, "reset": reset}  # noqa: E741
    spikes, v = integrate_and_fire(I, surrogate=Triangular(), **options)
    far = ((v - 1).abs() > 1e-3).all(0)  # neurons that are never near the threshold
    assert far.sum() > 30
    p = mean_field(I, sigma=1e-6, **options)
    torch.testing.assert_close(p[:, far], spikes[:, far])


def test_no_noise_is_rejected():
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        mean_field(torch.zeros(1, 1), decay=0.5, sigma=0.0)
