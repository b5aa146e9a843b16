"""Frames shown to a network for images, images to one for frames, and values outside the space."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.encoders.input_space import InputSpace
from spikeguard.models import CNN
from spikeguard.preflight.quick import quick_check
from spikeguard.rng import stream
from tests.toys.event_frames import CLASSES, T, dots, trained

SUITE = sg.attacks.suite("quick", eps=0.1)


def images(n=8):
    x = torch.rand(n, 2, 8, 8, generator=stream(0, "images"))
    return x, torch.arange(n) % CLASSES


def still():
    return CNN(2, CLASSES, T, width=4, hidden=12, image_size=8).eval()


class Plain(nn.Module):
    """A network of another package, which states no space."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2 * 8 * 8, CLASSES)

    def forward(self, x):
        return self.last(x.flatten(0, -4).flatten(1)).view(len(x), -1, CLASSES).mean(1)


def line(action):
    with pytest.raises(ValueError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("network", [still, Plain])
def test_frames_shown_to_a_network_of_images_are_refused(network):
    data = dots(8)
    x, y = data.batch(slice(8))
    model = network()
    assert "got event frames [8, 4, 2, 8, 8]" in line(lambda: sg.check(model, x, y))
    assert "got event frames" in line(lambda: quick_check(model, x, y, SUITE.values()))
    said = line(lambda: sg.evaluate(model, data, SUITE, progress=None))
    assert "the network takes images in [0, 1]" in said
    said = line(lambda: sg.audit(model, data, threat=sg.Linf(0.1), limit=4, progress=None))
    assert "the network takes images in [0, 1]" in said


def test_images_shown_to_a_network_of_frames_are_refused():
    x, y = images()
    model = trained()
    assert "takes frames [B, T, C, H, W] of zeros and ones, got [8, 2" in line(
        lambda: sg.check(model, x, y)
    )
    said = line(lambda: sg.evaluate(model, (x, y), SUITE, progress=None, check=False))
    assert "the network takes frames" in said and "the data are images" in said
    said = line(lambda: sg.audit(model, (x, y), threat=sg.Linf(0.1), limit=4, progress=None))
    assert "the network takes frames" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x * 2, "inputs must be in [0, 1], got 0 to 2"),
        (lambda x: x * 0.5, "inputs are zeros and ones, got 0.5"),
        (lambda x: x - 1, "inputs must be in [0, 1], got -1 to 0"),
    ],
)
def test_values_outside_the_space_are_refused(change, said):
    x, y = dots(8).batch(slice(8))
    assert said in line(lambda: sg.check(trained(), change(x), y))
    assert said in line(lambda: SUITE["fgsm"](trained(), change(x), y))


def test_the_healthy_twins_pass():
    data = dots(32)
    x, y = data.batch(slice(32))
    found = sg.check(trained(), x, y)
    assert found.accuracy > 0.9 and not found.warning
    assert sg.check(trained(), x.to(torch.uint8), y) == found  # not divided by 255
    assert sg.evaluate(trained(), data, SUITE, limit=8, progress=None).clean.n == 8
    model = Plain()
    model.input_space = InputSpace(whole=True, temporal=True)
    fgsm = {"fgsm": SUITE["fgsm"]}
    assert sg.evaluate(model, data, fgsm, limit=8, progress=None).clean.n == 8
