"""InputSpace: which inputs a network takes, and the line for those it does not."""

import math

import pytest
import torch
from torch import nn

from spikeguard.attacks.model_access import require_inputs
from spikeguard.encoders.coding import Direct
from spikeguard.encoders.event_frames import EventFrames
from spikeguard.encoders.input_space import PIXELS, InputSpace, require_same_kind, space_of
from spikeguard.models.feedforward import CNN
from spikeguard.rng import stream

BINARY = InputSpace(whole=True, temporal=True)
COUNTS = InputSpace(high=math.inf, whole=True, temporal=True)
ONE_POLARITY = InputSpace(whole=True, temporal=True, exclusive=True)
FRAMES = InputSpace(high=1.0, temporal=True)


def events(*shape, high=1):
    return torch.randint(0, high + 1, shape, generator=stream(0, "events")).float()


def empty(value=0.0, at=(0, 0, 0, 0, 0)):
    x = torch.zeros(2, 3, 2, 4, 4)
    x[at] = value
    return x


BAD = [
    (PIXELS, torch.full((2, 1, 4, 4), 1.5), "inputs must be in [0, 1], got 1.5 to 1.5; normalise"),
    (PIXELS, torch.zeros(2, 1, 4, 4).byte(), "floating point in [0, 1], got torch.uint8; use x /"),
    (PIXELS, torch.zeros(2), "inputs are [B, ...] and not empty, got shape [2]"),
    (BINARY, torch.zeros(2, 2, 4, 4), "inputs are frames [B, T, C, H, W]"),
    (BINARY, empty(2.0), "inputs must be in [0, 1], got 0 to 2"),
    (BINARY, empty(-1.0), "inputs must be in [0, 1], got -1 to 0"),
    (BINARY, empty(0.5), "inputs are zeros and ones, got 0.5"),
    (BINARY, empty(math.nan), "inputs hold NaN or infinity"),
    (BINARY, empty().long(), "got torch.int64; use x.float()"),
    (COUNTS, empty(2.5), "inputs are integers >= 0, got 2.5"),
    (COUNTS, empty(math.inf), "inputs hold NaN or infinity"),
    (InputSpace(3.0, whole=True, temporal=True), empty(4.0), "must be in [0, 3], got 0 to 4"),
    (ONE_POLARITY, torch.ones(1, 2, 2, 3, 3), "one polarity per cell"),
]


@pytest.mark.parametrize(("space", "x", "message"), BAD)
def test_an_input_outside_the_space_is_one_line(space, x, message):
    with pytest.raises(ValueError) as caught:
        space.check(x, "here")
    assert str(caught.value).startswith("here: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


GOOD = [
    (PIXELS, torch.rand(2, 1, 4, 4)),
    (PIXELS, torch.rand(2, 7)),
    (BINARY, events(2, 3, 2, 4, 4)),
    (BINARY, empty(1.0)),
    (COUNTS, empty(1000.0)),
    (FRAMES, empty(0.5)),
    (InputSpace(3.0, whole=True, temporal=True), empty(3.0)),
    (ONE_POLARITY, events(2, 3, 1, 4, 4)),
]


@pytest.mark.parametrize(("space", "x"), GOOD)
def test_an_input_inside_the_space_is_taken(space, x):
    space.check(x)
    require_inputs(x, torch.zeros(len(x), dtype=torch.int64), space)


def test_a_space_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="high is the largest value, > 0, got 0"):
        InputSpace(high=0.0)
    with pytest.raises(ValueError, match="exclusive polarity needs temporal"):
        InputSpace(exclusive=True)


# ------------------------------------------------------------------ the space of a network


def frames_network(**options):
    return CNN(2, 3, T=3, width=2, hidden=4, image_size=8, encoder=EventFrames(**options))


def test_a_network_has_the_space_of_its_encoder():
    assert space_of(CNN(1, 3, T=2, width=2, hidden=4, image_size=8)) == PIXELS
    assert space_of(nn.Linear(2, 3)) == PIXELS
    assert space_of(frames_network()) == BINARY
    assert space_of(frames_network(high=math.inf)) == COUNTS
    assert space_of(frames_network(exclusive=True)) == ONE_POLARITY


def test_a_network_for_frames_shows_frame_t_at_step_t():
    """The mean over steps of a layer without memory is the mean of its answers to each frame."""
    model = frames_network(high=math.inf).eval()
    assert model.in_shape == (3, 2, 8, 8)
    seen = []
    hook = model.features[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = events(5, 3, 2, 8, 8, high=4)
    assert model(x).shape == (5, 3)
    hook.remove()
    assert torch.equal(seen[0].view(3, 5, 2, 8, 8), x.transpose(0, 1))


def test_frames_and_images_are_not_confused():
    frames, images = frames_network(), CNN(2, 3, T=3, width=2, hidden=4, image_size=8)
    with pytest.raises(ValueError, match=r"takes event frames .*, not images"):
        frames(torch.zeros(5, 2, 8, 8))
    with pytest.raises(ValueError, match="takes T = 3 frames"):
        frames(torch.zeros(5, 4, 2, 8, 8))
    with pytest.raises(ValueError, match="event frames are for a network with the encoder"):
        images(torch.zeros(5, 3, 2, 8, 8))
    with pytest.raises(ValueError, match=r"got torch.int64; use x.float\(\)"):
        frames(torch.zeros(5, 3, 2, 8, 8).long())
    assert frames(torch.zeros(5, 3, 2, 8, 8)).shape == images(torch.zeros(5, 2, 8, 8)).shape
    # the axes [T, B, C, H, W] stay one image per step for a network with direct coding
    assert images(torch.zeros(3, 5, 2, 8, 8)).shape == (5, 3)


def test_data_of_another_kind_are_refused():
    require_same_kind(BINARY, BINARY, "here")
    require_same_kind(COUNTS, BINARY, "here")
    with pytest.raises(ValueError, match=r"here: the network takes images in .*, the data are fra"):
        require_same_kind(PIXELS, BINARY, "here")
    with pytest.raises(ValueError, match=r"takes frames .* of zeros and ones, the data are images"):
        require_same_kind(BINARY, PIXELS, "here")
    with pytest.raises(ValueError, match=r"takes values in \[0, 1\], the data lie in \[0, inf\)"):
        require_same_kind(BINARY, COUNTS, "here")


# ------------------------------------------------------------------------- the encoder


def test_the_encoder_moves_time_to_the_front_without_copying():
    x = events(2, 3, 2, 4, 4).requires_grad_()
    code = EventFrames()(x, 3)
    assert torch.equal(code, x.transpose(0, 1)) and code.data_ptr() == x.data_ptr()
    weight = torch.rand(3, 2, 2, 4, 4)
    (grad,) = torch.autograd.grad((weight * code).sum(), x)
    assert torch.equal(grad, weight.transpose(0, 1))


@pytest.mark.parametrize("shape", [(2, 4, 2, 4, 4), (2, 2, 4, 4), (3, 2, 2, 4, 4)])
def test_the_encoder_refuses_another_number_of_frames(shape):
    with pytest.raises(ValueError, match=r"EventFrames: takes frames .* with T = 3, got \["):
        EventFrames()(torch.zeros(shape), 3)


def test_the_encoder_shows_its_settings():
    assert repr(EventFrames(4.0)) == "EventFrames(high=4, whole=True, exclusive=False)"
    assert repr(Direct()) == "Direct()"
