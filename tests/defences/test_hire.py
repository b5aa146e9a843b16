"""HIRE: the input of each segment, computed by hand, and a network with one image per step."""

import math

import pytest
import torch
from torch import nn

from spikeguard.attacks import FGSM, AttackError, Linf
from spikeguard.data import ImageSet, Splits
from spikeguard.defences import HIRE, MPPD, SR, TGO, Objective
from spikeguard.encoders.coding import Direct, Poisson, Quantised
from spikeguard.encoders.frequency import FrequencyEncoding
from spikeguard.models import CNN, SNN
from spikeguard.models.snn import Temporal
from spikeguard.neurons import LIF
from spikeguard.rng import stream
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import train


class Weighted(Temporal):
    """Logits (z[t], 0) with z[t] = w[t] x[t]: the loss at label 0 falls with every z."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights).view(-1, 1, 1))

    def forward(self, x, T):
        z = (self.weights * x).sum(2, keepdim=True)
        return torch.cat([z, torch.zeros_like(z)], dim=2)


def weighted(*weights):
    return SNN({"only": Weighted(weights)}, T=len(weights), num_classes=2, in_shape=(1,))


def small_cnn(T=4, **options):
    options = {"neuron": LIF(0.5, v_th=0.3), **options}
    return CNN(1, 3, T=T, width=3, hidden=6, image_size=8, **options)


def batch(count=6):
    return torch.rand(count, 1, 8, 8, generator=stream(0, "x")), torch.arange(count) % 3


# ------------------------------------------------------------------- one image for every step


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("encoder", [Direct(), Quantised(4)])
def test_equal_frames_are_the_image(encoder, training):
    """Running variances differ by the factor n / (n - 1) of another n; all else is equal."""
    model, (x, _) = small_cnn(encoder=encoder, mean=(0.4,), std=(0.3,)).train(training), batch()
    logits = model(x)
    frames = x.expand(4, *x.shape)
    torch.testing.assert_close(model(frames), logits, rtol=1e-4, atol=1e-5)


def test_each_step_sees_its_own_frame():
    model, x = weighted(1.0, 2.0, 3.0), torch.tensor([[[0.1]], [[0.2]], [[0.7]]])
    assert model(x)[0, 0].item() == pytest.approx((0.1 + 0.4 + 2.1) / 3)


def test_frames_for_another_number_of_steps_or_encoder_are_rejected():
    x, _ = batch()
    for model, steps in ((small_cnn(), 3), (small_cnn(encoder=Poisson()), 4)):
        with pytest.raises(ValueError, match=r"SNN: expects inputs \[B, 1, 8, 8\], got \[\d, 6"):
            model(x.expand(steps, *x.shape))


# ---------------------------------------------------------------------------- what is shown


def test_by_hand():
    """Gradients at label 0 are -w up to a positive factor; eps 0.1, steps of 0.06, three segments.

    Segment 1 (w = 1, 1): down by 0.06. Segment 2 (w = 2, -3, sum -1): up, back to the image.
    """
    model, x = weighted(1.0, 1.0, 2.0, -3.0, 5.0, 5.0), torch.tensor([[0.5]])
    hire = HIRE(eps=0.1, segments=3, step_size=0.06)
    frames = hire.perturb(model, x, torch.tensor([0]), stream(0, "g"))
    expected = torch.tensor([0.5, 0.5, 0.44, 0.44, 0.5, 0.5])
    torch.testing.assert_close(frames.flatten(), expected)


def test_noise_adds_up_to_eps_and_stays_in_the_box():
    """Down by 0.06 a segment: 0.06, then 0.1 = eps; a pixel of 0.02 stops at 0."""
    model = weighted(1.0, 1.0, 1.0, 1.0)
    x, y = torch.tensor([[0.5], [0.02]]), torch.tensor([0, 0])
    frames = HIRE(0.1, 4, 0.06).perturb(model, x, y, stream(0, "g"))[:, :, 0]
    expected = torch.tensor([[0.5, 0.02], [0.44, 0.0], [0.4, 0.0], [0.4, 0.0]])
    torch.testing.assert_close(frames, expected)


def test_if_all_steps_have_the_same_gradient_the_second_half_gets_fgsm():
    model, x = weighted(2.0, 2.0), torch.rand(5, 1, generator=stream(0, "flat"))
    y = torch.tensor([0, 1, 0, 1, 1])
    frames = HIRE(eps=0.05).perturb(model, x, y, stream(0, "g"))
    assert torch.equal(frames[0], x)
    torch.testing.assert_close(frames[1], FGSM(Linf(0.05))(model, x, y))


@pytest.mark.parametrize("segments", [2, 3, 4])
def test_segments_split_the_steps_and_stay_in_the_ball(segments):
    model, (x, y) = small_cnn().train(), batch()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frames = HIRE(eps=0.1, segments=segments).perturb(model, x, y, stream(0, "g"))
    edges = [n * 4 // segments for n in range(segments)]
    assert torch.equal(frames[0], x)
    for t in range(1, 4):
        assert torch.equal(frames[t], frames[t - 1]) == (t not in edges), t
    assert all(Linf(0.1).contains(frame, x) for frame in frames)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_the_noise_raises_the_loss():
    model, (x, y) = small_cnn().eval(), batch(48)
    frames = HIRE(eps=0.2, segments=4).perturb(model, x, y, stream(0, "g"))
    loss = nn.functional.cross_entropy
    assert loss(model(frames), y) > loss(model(x), y)


# ------------------------------------------------------------------------------- in training


def splits():
    def images(count, name):
        x = torch.rand(count, 1, 8, 8, generator=stream(0, name))
        return ImageSet(x, torch.arange(count) % 3, 3, name, peak=1.0)

    return Splits(images(12, "train"), images(6, "val"), images(6, "test"), (0.5,), (0.5,))


def test_it_trains_with_other_pieces_and_takes_batches_apart(tmp_path):
    options = TrainOptions(epochs=1, batch_size=6, lr=0.05, accumulate=2)
    objective = HIRE(eps=0.1) | TGO(lambda_max=0.1) | MPPD(rho=0.1) | SR(lamb=0.1)
    model = small_cnn()
    before = [p.detach().clone() for p in model.parameters()]
    result = train(model, splits(), objective, options, out=tmp_path / "run")
    assert set(result.history[-1]["terms"]) >= {"tgo", "mppd"}
    assert all(
        (a != b).any() for a, b in zip(before, model.parameters(), strict=True) if b.ndim > 1
    )


def test_eps_0_is_the_image_itself():
    x, y = batch()
    assert HIRE(eps=0.0).perturb(small_cnn(), x, y, stream(0, "g")) is x


def test_a_gradient_that_is_not_finite_is_rejected():
    with pytest.raises(AttackError, match="gradient is not finite"):
        HIRE().perturb(
            weighted(math.inf, 1.0), torch.tensor([[0.0]]), torch.tensor([1]), stream(0, "g")
        )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (small_cnn(encoder=Poisson()), "hire: needs one image per time step.*encoder: direct"),
        (small_cnn(encoder=FrequencyEncoding()), "hire: needs one image per time step"),
        (nn.Linear(2, 2), "hire: needs one image per time step; use an SNN"),
        (small_cnn(T=1), "hire: 2 segments need at least as many time steps, got T = 1"),
    ],
)
def test_models_it_cannot_work_with_are_rejected_before_the_training(model, message):
    with pytest.raises(ValueError, match=message):
        Objective.of(HIRE()).require(model, TrainOptions())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": -0.1}, "eps is a radius >= 0 in input units, got -0.1"),
        ({"segments": 1}, "segments must be >= 2, got 1"),
        ({"step_size": 0.0}, "step_size must be positive, got 0"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        HIRE(**wrong)
