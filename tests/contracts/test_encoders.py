"""Contract of every encoder, and the closed form of each."""

import math

import pytest
import torch

from spikeguard.encoders import ENCODERS
from spikeguard.encoders.coding import Direct, Phase, Poisson
from spikeguard.rng import SampleStreams, randomness, stream


def images(*shape):
    return torch.rand(shape, generator=stream(0, "images"))


def fitting(name, *shape, T=6):
    """Inputs of a shape that the encoder accepts: images, or T frames of event data."""
    if name == "event_frames":
        return images(shape[0], T, 2, 4, 4).round()
    return images(shape[0], 1, 4, 4) if name == "frequency" else images(*shape)


def step_shape(name, x):
    """The shape of the current of one step."""
    return x[:, 0].shape if name == "event_frames" else x.shape


def encode(encoder, x, T, seed=0):
    with randomness(encoder, SampleStreams(seed, range(len(x)))):
        return encoder(x, T)


# -------------------------------------------------------------------------- the contract


@pytest.mark.parametrize("shape", [(3,), (3, 5), (2, 1, 4, 4), (0, 4)])
@pytest.mark.parametrize("name", ENCODERS)
def test_the_drive_is_time_first(name, shape):
    x = fitting(name, *shape).double()
    drive = encode(ENCODERS[name](), x, 6)
    assert drive.shape == (6, *step_shape(name, x)) and drive.dtype == x.dtype


@pytest.mark.parametrize("T", [1, 5])
@pytest.mark.parametrize("name", [n for n in ENCODERS if n not in ("frequency", "event_frames")])
def test_every_step_passes_its_gradient_to_the_pixel_unchanged(name, T):
    """Straight-through where coding is random or rounds: the sum over steps has slope T exactly."""
    x, weight = images(3, 4).requires_grad_(), torch.arange(1.0, T + 1).view(-1, 1, 1)
    drive = encode(ENCODERS[name](), x, T)
    (grad,) = torch.autograd.grad((weight * drive).sum(), x)
    assert torch.equal(grad, torch.full((3, 4), weight.sum().item()))


@pytest.mark.parametrize("name", ENCODERS)
def test_same_source_same_code_and_no_global_generator(name, untouched_global_generator):
    encoder, x = ENCODERS[name](), fitting(name, 4, 9)
    code = encode(encoder, x, 6)
    assert torch.equal(encode(encoder, x, 6), code)
    stochastic = getattr(encoder, "stochastic", False)
    assert torch.equal(encode(encoder, x, 6, seed=1), code) != stochastic
    assert torch.equal(encoder(x, 6), encoder(x, 6)) != stochastic  # unbound: fresh at every call
    for i in range(4):
        with randomness(encoder, SampleStreams(0, [i])):
            assert torch.equal(encoder(x[i : i + 1], 6), code[:, i : i + 1])
    with randomness(encoder, stream(0, "g")):
        first = encoder(x, 6)
    with randomness(encoder, stream(0, "g")):
        assert torch.equal(encoder(x, 6), first)


@pytest.mark.parametrize("name", ENCODERS)
def test_constant_means_that_all_steps_are_equal_and_normalised_that_any_number_is_taken(name):
    encoder = ENCODERS[name]()
    code = encode(encoder, fitting(name, 4, 50), 6)
    assert (code == code[0]).all() == encoder.constant
    if encoder.normalised:
        beyond = torch.tensor([[-2.0, 3.5]])
        assert torch.equal(encode(encoder, beyond, 2), beyond.expand(2, 1, 2))
    elif name not in ("quantised", "frequency", "rsc"):
        assert ((code == 0) | (code == 1)).all()


# -------------------------------------------------------------------------------- Direct


def test_direct_shows_the_image_at_every_step_without_copying_it():
    x = images(2, 3)
    drive = Direct()(x, 5)
    assert torch.equal(drive, torch.stack([x] * 5)) and drive.data_ptr() == x.data_ptr()


# ------------------------------------------------------------------------------- Poisson


def test_poisson_fires_with_the_probability_of_the_pixel():
    """Over n steps the count is binomial(n, x): within 5 standard errors, at 0 and 1 exactly."""
    n, x = 20_000, torch.tensor([[0.0, 0.02, 0.3, 0.5, 0.9, 1.0]])
    rate = encode(Poisson(), x, n).mean(0)
    assert ((rate - x).abs() <= 5 * (x * (1 - x) / n).sqrt()).all()


def test_poisson_steps_and_pixels_are_independent():
    """At x = 1/2 neighbours in time and in space agree half of the time."""
    spikes = encode(Poisson(), torch.full((1, 300), 0.5), 300)
    for a, b in ((spikes[1:], spikes[:-1]), (spikes[:, :, 1:], spikes[:, :, :-1])):
        assert abs((a == b).float().mean() - 0.5) < 5 * math.sqrt(0.25 / a.numel())


# --------------------------------------------------------------------------------- Phase

BYTES = torch.arange(256)


def test_phase_sends_the_bits_of_the_stored_byte():
    """All 256 of them, reassembled by hand from the most significant bit down."""
    code = Phase()((BYTES / 255).view(1, -1), 8)[:, 0]
    place = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1.0]).view(-1, 1)
    assert torch.equal((code * place).sum(0), BYTES.float())


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 16])
def test_one_weighted_period_sums_to_the_level_over_two_to_the_bits(bits):
    """The sum of omega(t) b[t] is q / 2^K with q = round(x (2^K - 1)): exact in floating point."""
    x = torch.cat([images(1, 200), torch.tensor([[0.0, 1.0]])], dim=1)
    level = (x * (2**bits - 1)).round()
    weighted = Phase(bits, weighted=True)(x, bits)
    assert torch.equal(weighted.sum(0), level / 2**bits)
    omega = torch.tensor([2.0 ** -(t + 1) for t in range(bits)]).view(-1, 1, 1)
    assert torch.equal(weighted, omega * Phase(bits)(x, bits))


def test_phase_sends_the_ends_of_the_range_for_pixels_beyond_it():
    """Noise in training causes them; unclamped, 260 would lose its top bit and -3 be all ones."""
    beyond, ends = torch.tensor([[-3 / 255, 260 / 255]]), torch.tensor([[0.0, 1.0]])
    assert torch.equal(Phase()(beyond, 8), Phase()(ends, 8))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("bits", [3, 8])
def test_phase_starts_over_after_the_last_bit(bits, weighted):
    """With K = 8 and T = 10 steps 9 and 10 repeat the two top bits."""
    code = Phase(bits, weighted)(images(2, 30), 2 * bits + 2)
    assert torch.equal(code[bits : 2 * bits], code[:bits])
    assert torch.equal(code[2 * bits :], code[:2])


def test_the_gradient_of_a_weighted_code_is_the_sum_of_its_weights():
    x = images(2, 3).requires_grad_()
    (grad,) = torch.autograd.grad(Phase(4, weighted=True)(x, 6).sum(), x)
    assert torch.equal(grad, torch.full((2, 3), 1 / 2 + 1 / 4 + 1 / 8 + 1 / 16 + 1 / 2 + 1 / 4))


def test_phase_shows_its_settings():
    assert repr(Phase(4, weighted=True)) == "Phase(bits=4, weighted=True)"


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_a_number_of_bits_out_of_range_is_rejected(bits):
    with pytest.raises(ValueError, match=f"Phase: bits must be 1 to 16, got {bits}"):
        Phase(bits)
