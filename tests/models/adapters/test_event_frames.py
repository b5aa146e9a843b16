"""Foreign networks of event frames: in which order of axes they are shown, and what is refused."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.encoders.input_space import PIXELS, InputSpace, space_of
from spikeguard.neurons import record
from spikeguard.rng import stream
from tests.toys.foreign_networks import LIFNode, MemoryModule

T, K = 4, 3
SPACE = InputSpace(whole=True, temporal=True)


class Body(nn.Module):
    """One image or frame [B, 2, 4, 4] at a time."""

    def __init__(self, mode="s"):
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(32, 9), LIFNode(mode), nn.Linear(9, K)
        self.first.weight.data.mul_(5)  # so that the neurons fire

    def forward(self, x):
        return self.last(self.neuron(self.first(x.flatten(1))))


class TimeFirst(Body):
    """Takes [T, B, ...] in one call, with neurons of several steps."""

    def __init__(self):
        super().__init__("m")

    def forward(self, x):
        return self.last(self.neuron(self.first(x.flatten(2))))


class LoopsFirst(Body):
    """Takes [T, B, ...] and loops over the first axis, with neurons of one step."""

    def forward(self, x):
        return torch.stack([super(LoopsFirst, self).forward(frame) for frame in x])


class BatchFirst(Body):
    """Takes [B, T, ...], loops over time and returns the mean over time."""

    def forward(self, x):
        steps = [super(BatchFirst, self).forward(x[:, t]) for t in range(x.shape[1])]
        return torch.stack(steps).mean(0)


class BatchFirstInside(Body):
    """Takes [B, T, ...] and moves time to the front itself, with neurons of several steps."""

    def __init__(self):
        super().__init__("m")

    def forward(self, x):
        return self.last(self.neuron(self.first(x.transpose(0, 1).flatten(2)))).mean(0)


NETWORKS = {
    Body: "steps",
    TimeFirst: "sequence",
    LoopsFirst: "sequence",
    BatchFirst: "inside",
    BatchFirstInside: "inside",
}


def frames(n=5):
    return torch.randint(0, 2, (n, T, 2, 4, 4), generator=stream(0, "frames")).float()


def adapted(cls, **options):
    torch.manual_seed(0)
    return sg.foreign(cls(), T=T, space=SPACE, **options)


def by_hand(net, x):
    """The mean over time of the outputs of one frame at a time, from rest."""
    for module in net.modules():
        if isinstance(module, MemoryModule):
            module.reset()
            module.step_mode = "s"
    with torch.no_grad():
        return torch.stack([Body.forward(net, x[:, t]) for t in range(T)]).mean(0)


@pytest.mark.parametrize("cls", NETWORKS)
def test_frame_t_is_shown_at_step_t_in_every_order_of_axes(cls):
    model, x = adapted(cls), frames()
    logits = model(x)
    assert model.presentation == NETWORKS[cls] and space_of(model) == SPACE
    torch.testing.assert_close(logits, by_hand(model.model, x))
    assert not torch.allclose(logits, model(x.flip(1)))  # the order of the frames matters


@pytest.mark.parametrize("cls", NETWORKS)
def test_the_order_can_be_stated(cls):
    stated = adapted(cls, presentation=NETWORKS[cls])
    assert torch.equal(stated(frames()), adapted(cls)(frames()))


@pytest.mark.parametrize("cls", [Body, BatchFirst])
def test_foreign_networks_of_frames_are_attacked_and_observed(cls):
    model, x, y = adapted(cls), frames(), torch.arange(5) % K
    found = sg.evaluate(model, (x, y), sg.attacks.suite("quick", eps=0.2), progress=None)
    assert found.worst_case.n == 5
    with record(model) as layers, torch.no_grad():
        model(x)
    (trace,) = layers.values()
    assert trace.spikes.shape[:2] == (T, 5)


def test_normalisation_is_per_polarity():
    x = frames()
    model = adapted(Body, mean=(0.1, 0.2), std=(0.5, 2.0))
    shift, scale = torch.tensor([0.1, 0.2]).view(2, 1, 1), torch.tensor([0.5, 2.0]).view(2, 1, 1)
    torch.testing.assert_close(model(x), adapted(Body)((x - shift) / scale))


def test_inputs_of_another_kind_are_refused():
    model = adapted(Body)
    for wrong in (frames()[:, 0], frames()[:, :3]):
        with pytest.raises(ValueError, match=r"expects event frames .* with T = 4, got \["):
            model(wrong)
    with pytest.raises(ValueError, match=r"floating-point inputs in \[0, 1\], got .*x.float\(\)\."):
        model(frames().long())
    with pytest.raises(ValueError, match="takes event frames; call it with them"):
        model.present(frames().transpose(0, 1))


def test_a_network_of_images_has_the_space_of_images():
    torch.manual_seed(0)
    model = sg.foreign(Body(), T=T)
    assert space_of(model) == PIXELS and "space" not in repr(model)
    assert "space=frames [B, T, C, H, W] of zeros and ones" in repr(adapted(Body))
