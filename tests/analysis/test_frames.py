"""Algorithm 1 on classifiers whose number of frames to failure is known; frames of networks."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.frames import present_frames, replace_until_failure, spare_frames
from spikeguard.encoders import Phase
from spikeguard.models import CNN, MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import SampleStreams, randomness, stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import Leaky, LIFNode

STEPS = 5


def streams(ids):
    return SampleStreams(3, ids)


def images(n):
    return torch.rand(n, 1, 4, 4, generator=stream(0, "x")), torch.arange(n) % 3


def failing_after(x, y, needed):
    """A classifier that is wrong once ``needed`` [B] frames differ from the image."""
    calls = []

    def classify(frames, index):
        calls.append(len(index))
        changed = (frames != x[index]).flatten(2).any(2).sum(0)
        return y[index] + (changed >= needed[index]).long()

    return classify, calls


def test_the_number_of_frames_to_failure_is_found_and_the_loop_ends():
    x, y = images(7)
    needed = torch.tensor([1, 2, 3, 4, 5, 6, 0])  # 6 of 5 frames: never; 0: wrong without noise
    classify, calls = failing_after(x, y, needed)
    found = replace_until_failure(classify, x, y, STEPS, streams(range(7)))
    assert found.count.tolist() == [1, 2, 3, 4, 5, 5, 0]
    assert found.correct.tolist() == [False] * 5 + [True, False]
    assert calls == [7, 6, 5, 4, 3, 2]
    changed = (found.frames != x).flatten(2).all(2).sum(0)
    assert changed.tolist() == found.count.tolist()


def test_no_image_is_tried_further_when_all_fail_at_the_first_frame():
    x, y = images(4)
    classify, calls = failing_after(x, y, torch.ones(4))
    assert replace_until_failure(classify, x, y, STEPS, streams(range(4))).count.tolist() == [1] * 4
    assert calls == [4, 4]


def test_noise_is_standard_normal_and_every_frame_is_as_likely():
    x = torch.full((2000, 1, 4, 4), 0.5)
    y = torch.zeros(2000, dtype=torch.int64)
    classify, _ = failing_after(x, y, torch.ones(2000))
    found = replace_until_failure(classify, x, y, 4, streams(range(2000)))
    replaced = (found.frames != x).flatten(2).any(2)
    assert replaced.sum(1).tolist() == pytest.approx([500] * 4, abs=4 * 375**0.5)  # 4 sigma
    noise = found.frames[replaced]
    assert noise.shape == (2000, 1, 4, 4)
    assert float(noise.mean()) == pytest.approx(0, abs=4 / 32000**0.5)
    assert float(noise.var()) == pytest.approx(1, abs=4 * (2 / 32000) ** 0.5)


def test_the_frames_of_an_image_do_not_depend_on_the_other_images():
    x, y = images(6)
    needed = torch.tensor([1, 2, 3, 1, 2, 3])
    whole = replace_until_failure(failing_after(x, y, needed)[0], x, y, STEPS, streams(range(6)))
    classify, _ = failing_after(x[4:], y[4:], needed[4:])
    part = replace_until_failure(classify, x[4:], y[4:], STEPS, streams([4, 5]))
    assert torch.equal(whole.frames[:, 4:], part.frames)


def test_a_control_has_as_many_noise_frames_and_the_right_class():
    """Wrong exactly where frame 0 is replaced, so that a control keeps frame 0."""
    x, y = images(40)

    def classify(frames, index):
        return y[index] + (frames[0] != x[index]).flatten(1).any(1).long()

    count = torch.arange(40) % STEPS + 1
    found = spare_frames(classify, x, y, count, STEPS, streams(range(40)), 30)
    assert found.correct.tolist() == (count < STEPS).tolist()
    kept = found.frames[:, found.correct]
    assert torch.equal(kept[0], x[found.correct])
    changed = (kept != x[found.correct]).flatten(2).all(2).sum(0)
    assert changed.tolist() == count[found.correct].tolist()


def test_a_control_does_not_depend_on_the_other_images():
    x, y = images(6)

    def right(index_of):
        return lambda frames, index: y[index_of[index]] + (frames.sum((0, 2, 3, 4)) > 40).long()

    count = torch.full((6,), 3)
    whole = spare_frames(right(torch.arange(6)), x, y, count, STEPS, streams(range(6)), 4)
    at = torch.tensor([1, 5])
    part = spare_frames(right(at), x[at], y[at], count[at], STEPS, streams(at), 4)
    assert torch.equal(whole.frames[:, at], part.frames)


def test_equal_frames_give_the_logits_of_the_image_and_other_frames_do_not():
    neuron = NoisyLIF(0.5, 0.3, v_th=0.3)
    model = CNN(1, 3, T=4, width=2, hidden=4, image_size=8, neuron=neuron)
    model.eval()
    x = torch.rand(5, 1, 8, 8, generator=stream(1, "x"))
    frames = x.expand(4, *x.shape)
    with torch.no_grad(), randomness(model, streams(range(5))):
        logits = model(x)
    with torch.no_grad(), randomness(model, streams(range(5))):
        torch.testing.assert_close(present_frames(model, frames), logits)
    other = frames.clone()
    other[2] = 3 * torch.randn(x.shape, generator=stream(2, "noise"))
    with torch.no_grad(), randomness(model, streams(range(5))):
        assert not torch.allclose(present_frames(model, other), logits)


def foreign_layers(flatten, neuron):
    model = nn.Sequential(nn.Flatten(flatten), nn.Linear(16, 20), neuron, nn.Linear(20, 3))
    return drawn(model, 0.5, stream(0, "w")).eval()


@pytest.mark.parametrize("how", ["steps", "sequence"])
def test_a_foreign_network_gets_one_image_per_step(how):
    """The logits are those of the layers run by hand, one step at a time."""
    inner = foreign_layers(*((1, LIFNode()) if how == "steps" else (2, LIFNode("m"))))
    model = sg.foreign(inner, T=4, mean=[0.5], std=[0.25])
    frames = torch.rand(4, 6, 1, 4, 4, generator=stream(1, "frames"))
    with torch.no_grad():
        found = present_frames(model, frames)
        again = present_frames(model, frames[:1].expand_as(frames))
        torch.testing.assert_close(again, model(frames[0]))
        neuron, total = LIFNode(), 0
        for frame in frames:
            current = inner[1](((frame - 0.5) / 0.25).flatten(1))
            total = total + inner[3](neuron(current)) / 4
    assert model.presentation == how
    torch.testing.assert_close(found, total)


class Loop(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.neuron = nn.Linear(16, 3), Leaky(init_hidden=False)

    def forward(self, x):
        state, spikes = self.neuron.reset_mem(), []
        for _ in range(4):
            s, state = self.neuron(self.first(x.flatten(1)), state)
            spikes.append(s)
        return torch.stack(spikes)


def test_networks_that_take_no_frames_are_named_in_one_line():
    frames = torch.rand(4, 2, 1, 4, 4)
    phase = MLP(in_features=16, hidden=[3], in_shape=[1, 4, 4], T=4, encoder=Phase())
    looping = sg.foreign(Loop().eval(), T=4)
    for model, text in [
        (phase, "Phase derives the frames of all steps from one image"),
        (looping, "loops over time itself"),
        (nn.Flatten(), "Flatten takes no image per step"),
    ]:
        with pytest.raises(NotApplicable, match=text) as caught:
            present_frames(model, frames)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="loops over time itself"):
        looping.present(frames)
    with pytest.raises(ValueError, match=r"3 frames for T=4"):
        looping.present(frames[:3])


def test_logits_that_are_not_finite_are_rejected():
    model = MLP(in_features=16, hidden=[3], in_shape=[1, 4, 4], T=4)
    with torch.no_grad():
        model.classifier[-1].bias.fill_(float("nan"))
        with pytest.raises(ValueError, match="logits are not finite"):
            present_frames(model, torch.rand(4, 2, 1, 4, 4))
