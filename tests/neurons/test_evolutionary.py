"""FEEL-SNN: the low-pass filter against a manual transform; leaks for every neuron and step."""

import math
from itertools import pairwise

import pytest
import torch

from spikeguard.attacks import PGD, Linf
from spikeguard.encoders import ENCODERS
from spikeguard.encoders.frequency import FrequencyEncoding
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.models import CNN, MLP
from spikeguard.neurons import LIF, NEURONS, EvolutionaryLIF, record
from spikeguard.rng import stream
from spikeguard.training.options import TrainOptions


def images(*shape):
    return torch.rand(shape, generator=stream(0, "images"))


def low_pass_by_hand(x, r):
    """The definition: sum over |m|, |n| <= r of the Fourier coefficients, one pixel at a time."""
    size = x.shape[-1]
    k = torch.arange(size, dtype=torch.float64)
    signed = torch.where(k > size / 2, k - size, k)  # of the frequency k and its twin k - size
    turn = torch.exp(-2j * math.pi * torch.outer(k, k) / size)
    keep = (signed.abs() <= r).to(torch.complex128)
    spectrum = turn @ x.to(torch.complex128) @ turn.T * torch.outer(keep, keep)
    return (turn.conj() @ spectrum @ turn.conj().T / size**2).real


# ------------------------------------------------------------------------------ the encoder


def test_the_published_half_widths():
    encoder = FrequencyEncoding()
    assert encoder.half_widths(8, 32) == (16, 14, 12, 10, 8, 6, 4, 2)
    assert encoder.half_widths(4, 32) == (16, 14, 12, 10)
    assert encoder.half_widths(4, 64) == (32, 30, 28, 26)


@pytest.mark.parametrize("size", [4, 8, 28, 32, 64])
@pytest.mark.parametrize("T", [1, 2, 4, 8, 10, 20])
def test_elsewhere_the_filter_starts_open_and_never_shuts(T, size):
    widths = FrequencyEncoding().half_widths(T, size)
    assert len(widths) == T and widths[0] == size // 2 and widths[-1] >= 1
    assert all(0 <= a - b <= 2 for a, b in pairwise(widths))


@pytest.mark.parametrize("size", [5, 8])
@pytest.mark.parametrize("r", [0, 1, 2, 3])
def test_a_step_is_the_low_pass_of_the_definition(size, r):
    x = images(2, 3, size, size).double()
    found = FrequencyEncoding([r], absolute=False)(x, 1)[0]
    if r >= size // 2:
        assert torch.equal(found, x)
    torch.testing.assert_close(found, low_pass_by_hand(x, r), rtol=0, atol=1e-12)
    torch.testing.assert_close(FrequencyEncoding([r])(x, 1)[0], found.abs())


def test_waves_pass_or_stop_by_their_frequency():
    """A cosine of 2 cycles per side plus one of 3: at r = 2 only the first remains."""
    at = torch.arange(16) / 16
    slow, fast = (0.2 * torch.cos(2 * math.pi * k * at) for k in (2, 3))
    x = (0.5 + slow[:, None] + fast).expand(1, 1, 16, 16)
    code = FrequencyEncoding([8, 3, 2, 1])(x, 4)
    torch.testing.assert_close(code[0], x)
    torch.testing.assert_close(code[1], x)
    torch.testing.assert_close(code[2, 0, 0], (0.5 + slow)[:, None].expand(16, 16))
    torch.testing.assert_close(code[3, 0, 0], torch.full((16, 16), 0.5))


def test_worked_by_hand():
    """A 4 x 4 image with one pixel lit; r = 0 leaves its mean, r = 1 the product of two kernels.

    Kernel of |k| <= 1 at distance 0, 1, 2: (1 + 2 cos(pi d / 2)) / 4 = 3/4, 1/4, -1/4.
    """
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = 1.0
    assert torch.allclose(FrequencyEncoding([0])(x, 1), torch.full((4, 4), 1 / 16))
    kernel = torch.tensor([0.75, 0.25, -0.25, 0.25])
    signed = FrequencyEncoding([1], absolute=False)(x, 1)[0, 0, 0]
    torch.testing.assert_close(signed, torch.outer(kernel, kernel))


def test_the_gradient_is_the_filters_own():
    """Filtering is linear and symmetric, so the gradient of <w, F x> is F w."""
    x, w = images(1, 1, 8, 8).double().requires_grad_(), images(2, 1, 1, 8, 8).double()
    encoder = FrequencyEncoding([4, 2], absolute=False)
    (grad,) = torch.autograd.grad((w * encoder(x, 2)).sum(), x)
    torch.testing.assert_close(grad, w[0] + low_pass_by_hand(w[1], 2))
    assert torch.autograd.gradcheck(lambda x: FrequencyEncoding([1, 2])(x, 2), (x,))


def test_black_pixels_keep_their_gradient():
    """The absolute value has no slope at 0; the step with the unfiltered image does not use it."""
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    (grad,) = torch.autograd.grad(FrequencyEncoding()(x, 1).sum(), x)
    assert (grad == 1).all()


def test_low_precision_is_filtered_in_float32():
    x = images(2, 1, 8, 8)
    half = FrequencyEncoding()(x.bfloat16(), 4)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), FrequencyEncoding()(x, 4), rtol=0, atol=0.02)


def test_rectangles_are_filtered_by_the_same_square():
    x = images(1, 2, 4, 10)
    assert FrequencyEncoding()(x, 4).shape == (4, 1, 2, 4, 10)
    turned = FrequencyEncoding()(x.transpose(2, 3), 4).transpose(3, 4)
    torch.testing.assert_close(FrequencyEncoding()(x, 4), turned)


def test_inside_a_network_attacks_go_through_the_filter():
    model = CNN(1, 3, T=4, width=4, hidden=6, image_size=8, encoder=FrequencyEncoding()).eval()
    x, y = images(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    attack = PGD(Linf(0.2), steps=2)
    adversarial = attack(model, x, y, generator=stream(0, "attack"))
    assert attack.threat.contains(adversarial, x) and (adversarial != x).any()


def test_the_encoders_settings_are_checked():
    assert ENCODERS["frequency"] is FrequencyEncoding
    with pytest.raises(ValueError, match=r"filters images \[B, C, H, W\], got \[2, 9\]"):
        FrequencyEncoding()(torch.zeros(2, 9), 4)
    with pytest.raises(ValueError, match="2 widths for T = 4 steps"):
        FrequencyEncoding([4, 2])(torch.zeros(1, 1, 8, 8), 4)
    for wrong in ([], [3, -1]):
        with pytest.raises(ValueError, match="widths are whole numbers >= 0"):
            FrequencyEncoding(wrong)


# ------------------------------------------------------------------------------- the neuron


def test_leaks_of_one_value_are_a_lif_neuron():
    x = images(5, 3, 4, 2, 2) * 1.5
    assert torch.equal(EvolutionaryLIF(5, (4, 2, 2), decay=0.7)(x), LIF(0.7)(x))


def test_neuron_worked_by_hand():
    """I = 0.4: leaks 1 and 0.5 give v = 0.4, 0.8, 0.8; leaks 0 and 2 give 0.4, 0.4, 1.2."""
    neuron = EvolutionaryLIF(3, (2,))
    neuron.leak.data = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.5, 2.0]])
    with record(neuron) as trace:
        spikes = neuron(torch.full((3, 1, 2), 0.4))
    expected = torch.tensor([[0.4, 0.4], [0.8, 0.4], [0.8, 1.2]])
    torch.testing.assert_close(trace[""].v[:, 0], expected)
    assert spikes[:, 0].tolist() == [[0, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("kernel", [k for k in KERNELS if why_not(k) is None])
@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 1, 1), (1, 4, 4), ()])
def test_every_kernel_differentiates_the_leaks_as_the_reference_does(kernel, shape):
    def slopes(name):
        neuron = EvolutionaryLIF(5, shape).double()
        spread = torch.rand(neuron.leak.shape, generator=stream(0, "leak")).double()
        neuron.leak.data = 0.4 + 0.6 * spread
        x = (images(5, 2, 3, 4, 4) * 1.5 - 0.2).double().requires_grad_()
        with use_kernel(name):
            spikes = neuron(x)
            weights = torch.linspace(-1, 1, spikes.numel()).view(spikes.shape).double()
            return spikes.detach(), *torch.autograd.grad((weights * spikes).sum(), (x, neuron.leak))

    expected, found = slopes("reference"), slopes(kernel)
    assert torch.equal(found[0], expected[0]) and 0 < expected[0].mean() < 1
    torch.testing.assert_close(found[1:], expected[1:])
    assert (found[2][0] == 0).all()  # nothing leaks before the first step
    assert (found[2][1:] != 0).any()


def test_the_gradient_of_a_leak_is_eq_13():
    """One neuron, T = 2, one path: dL/d leak[1] = h(v[1] - v_th) u[0] (the reset's path aside)."""
    neuron = EvolutionaryLIF(2, (1,), detach_reset=True)
    spikes = neuron(torch.tensor([0.6, 0.3]).view(2, 1, 1))
    (grad,) = torch.autograd.grad(spikes[1].sum(), neuron.leak)
    slope = 1 - abs(0.9 - 1)  # the triangle at v[1] = 0.6 + 0.3
    torch.testing.assert_close(grad, torch.tensor([[0.0], [slope * 0.6]]))


@pytest.mark.slow
@pytest.mark.parametrize("decays", [True, False])
def test_a_network_has_a_leak_for_every_neuron_and_step(decays):
    model = CNN(
        1,
        3,
        T=2,
        width=2,
        hidden=4,
        image_size=8,
        neuron=EvolutionaryLIF(2, weight_decay=decays, v_th=0.3),
    )
    leaks = {name: p for name, p in model.named_parameters() if name.endswith(".leak")}
    shapes = [tuple(p.shape) for p in leaks.values()]
    assert shapes == [(2, 2, 8, 8), (2, 4, 4, 4), (2, 8, 2, 2), (2, 4)]
    assert all((p == 1).all() for p in leaks.values())
    groups = TrainOptions(weight_decay=5e-4).build_optimizer(model).param_groups
    assert [group["weight_decay"] for group in groups] == ([5e-4] if decays else [5e-4, 0.0])
    assert decays or set(groups[1]["params"]) == set(leaks.values())
    logits = model(images(16, 1, 8, 8))
    logits.square().sum().backward()
    assert all(p.grad.isfinite().all() and (p.grad[1] != 0).any() for p in leaks.values())


def test_other_steps_and_sizes_are_rejected_in_one_line():
    neuron = EvolutionaryLIF(3, (4, 8, 8))
    cases = {
        r"leaks for T = 3 steps, got a current of 5; pass T=5\.$": torch.zeros(5, 2, 4, 8, 8),
        r"built for neurons \(4, 8, 8\), got a current of \(4, 6, 6\); build": torch.zeros(
            3, 2, 4, 6, 6
        ),
        r"built for neurons \(4, 8, 8\), got a current of \(256,\)": torch.zeros(3, 2, 256),
    }
    for message, current in cases.items():
        with pytest.raises(ValueError, match=message) as caught:
            neuron(current)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"EvolutionaryLIF: has no shape yet.*pass shape=\(7,\)"):
        EvolutionaryLIF(3)(torch.zeros(3, 2, 7))
    with pytest.raises(ValueError, match="leaks for T = 3 steps, got a current of 4"):
        MLP(6, 3, T=4, hidden=(5,), neuron=EvolutionaryLIF(3))
    with pytest.raises(ValueError, match="T must be >= 1, got 0"):
        NEURONS["evolutionary_lif"](0)
