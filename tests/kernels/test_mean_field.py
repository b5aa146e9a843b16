"""The mean-field recurrence against closed forms and finite differences."""

import math

import pytest
import torch
from torch import nn

from spikeguard.kernels import use_kernel, why_not
from spikeguard.kernels.mean_field import mean_field
from spikeguard.rng import stream


@pytest.fixture(params=["reference", "cpu"], autouse=True)
def kernel(request):
    """Every known answer holds for the definition and for the compiled pass."""
    if reason := why_not(request.param):
        pytest.skip(f"kernel {request.param} is not available here: {reason}")
    with use_kernel(request.param):
        yield request.param


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


def by_both(x, weights, **options):
    """Return probabilities and input gradient by the definition and by the compiled pass."""
    for name in ("reference", "cpu"):
        leaf = x.detach().requires_grad_()
        with use_kernel(name):
            p = mean_field(leaf, **options)
        yield p.detach(), torch.autograd.grad((p * weights).sum(), leaf)[0]


@pytest.mark.parametrize("kernel", ["cpu"], indirect=True)
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("steps", "last"), [(5, False), (1, True), (5, True)])
def test_the_compiled_pass_computes_the_definition(kernel, reset, dtype, steps, last):
    """With batch normalisation in the pass, a repeated step, and both memory layouts."""
    norm = nn.BatchNorm2d(6, dtype=dtype).eval()
    norm.running_mean.uniform_(-0.5, 0.5, generator=stream(0, "mean"))
    norm.running_var.uniform_(0.5, 2, generator=stream(0, "var"))
    x = 3 * current(steps, 2, 6, 8, 10).to(dtype)
    if last:
        x = x.flatten(0, 1).to(memory_format=torch.channels_last).view(x.shape)
    weights = torch.randn(5, 2, 6, 8, 10, generator=stream(0, "w"), dtype=dtype)
    options = {"decay": 0.6, "sigma": 0.4, "v_th": 1.2, "reset": reset, "T": 5, "norm": norm}
    (p, slope), (found, fast) = by_both(x, weights, **options)
    exact = dtype == torch.float64
    torch.testing.assert_close(found, p, rtol=0, atol=1e-14 if exact else 1e-6)
    torch.testing.assert_close(fast, slope, rtol=0, atol=1e-13 if exact else 1e-5)


def test_probabilities_are_pooled_in_the_same_pass(kernel):
    x = current(4, 2, 8, 6, 6).float().flatten(0, 1).to(memory_format=torch.channels_last)
    x = x.view(4, 2, 8, 6, 6).requires_grad_()
    options = {"decay": 0.5, "sigma": 0.5}
    if kernel != "cpu":
        with pytest.raises(ValueError, match="only the CPU kernel pools"):
            mean_field(x, window=(2, 2), **options)
        return
    pooled = nn.functional.avg_pool2d(mean_field(x, **options).flatten(0, 1), 2).view(4, 2, 8, 3, 3)
    found = mean_field(x, window=(2, 2), **options)
    torch.testing.assert_close(found, pooled)
    weights = torch.randn(found.shape, generator=stream(0, "w"))
    slopes = [torch.autograd.grad((each * weights).sum(), x)[0] for each in (found, pooled)]
    torch.testing.assert_close(*slopes)


def test_the_tails_of_the_probability_are_those_of_erfc():
    """Between -5 and 5 standard deviations, over all branches of the polynomial."""
    z = torch.linspace(-5, 5, 4001).view(1, -1)
    p = mean_field(z + 1, decay=0.5, sigma=1.0, v_th=1.0)[0]
    wanted = [0.5 * math.erfc(-value / math.sqrt(2)) for value in (z + 1 - 1)[0].tolist()]
    torch.testing.assert_close(p, torch.tensor(wanted), rtol=2e-5, atol=1e-7)


def test_statistics_of_a_training_normalisation_are_not_updated(kernel):
    norm = nn.BatchNorm2d(3)
    before = norm.running_mean.clone()
    x = current(2, 4, 3, 5, 5).float()
    p = mean_field(x, decay=0.5, sigma=0.5, norm=norm)
    assert torch.equal(norm.running_mean, before)
    alone = nn.functional.batch_norm(x.flatten(0, 1), None, None, norm.weight, norm.bias, True)
    torch.testing.assert_close(p, mean_field(alone.view(x.shape), decay=0.5, sigma=0.5))


def test_no_noise_is_rejected():
    with pytest.raises(ValueError, match="sigma must be positive, got 0"):
        mean_field(torch.zeros(1, 1), decay=0.5, sigma=0.0)


@pytest.mark.parametrize(
    ("shape", "T", "message"),
    [((2, 3), 4, "current has 1 or T = 4 steps, got 2"), ((0, 3), None, "with T >= 1")],
)
def test_steps_that_do_not_fit_are_rejected(shape, T, message):
    with pytest.raises(ValueError, match=f"mean_field: .*{message}"):
        mean_field(torch.zeros(shape), decay=0.5, sigma=0.5, T=T)


def test_a_current_of_integers_and_a_decay_of_another_shape_are_rejected():
    with pytest.raises(ValueError, match="mean_field: current must be floating point"):
        mean_field(torch.zeros(2, 3, dtype=torch.int64), decay=0.5, sigma=0.5)
    with pytest.raises(ValueError, match="mean_field: decay must be a scalar"):
        mean_field(torch.zeros(2, 3), decay=torch.zeros(2, 5), sigma=0.5)


def test_a_normalisation_with_a_hook_is_called():
    norm = nn.BatchNorm2d(3).eval()
    norm.register_forward_hook(lambda module, x, y: y + 5)
    x = current(2, 4, 3, 5, 5).float()
    plain = norm(x.flatten(0, 1)).view(x.shape)
    options = {"decay": 0.5, "sigma": 0.5}
    torch.testing.assert_close(mean_field(x, norm=norm, **options), mean_field(plain, **options))
