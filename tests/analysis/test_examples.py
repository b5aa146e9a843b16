"""Pictures of inputs before and after an attack, against attacks whose change is known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.examples import Examples
from spikeguard.attacks import FGSM, Linf
from spikeguard.attacks.threat import Threat
from spikeguard.data.images import as_image_set
from spikeguard.encoders.event_frames import EventFrames
from spikeguard.models import CNN
from spikeguard.reporting.charts.analyses import drawn
from spikeguard.rng import stream
from tests.toys.analyses import images, network
from tests.toys.event_frames import T, dots, trained

UNIT = Linf(1.0)


@dataclass(frozen=True)
class Erase:
    """Removes all events of the first frame."""

    threat: Threat = UNIT
    cost = 1.0

    def __call__(self, model, x, y, *, generator=None):
        moved = x.clone()
        moved[:, 0] = 0
        return moved


def test_events_are_summed_over_time_by_polarity():
    data = dots(8)
    found = Examples(Erase(), limit=8, show=3)(trained(), data, batch_size=3)
    x, y = data.batch(slice(8))
    np.testing.assert_array_equal(found["before"], x[:3].sum(1))
    np.testing.assert_array_equal(found["after"], x[:3, 1:].sum(1))
    np.testing.assert_array_equal(found["change"], x[:3, 0])
    assert found.axes["plane"].tolist() == ["OFF", "ON"] and found["label"].tolist() == [0, 1, 2]
    share = x[:, 0].flatten(1).mean(1) / T
    np.testing.assert_allclose(found["changed"], share, rtol=1e-6)
    assert set(found["distance"]) == {1.0}
    with torch.no_grad():
        right = (trained()(x).argmax(1) == y).double()
    np.testing.assert_array_equal(found["right"], right)


def test_off_is_blue_on_is_orange_and_both_are_darker():
    """Cells of one picture: none, OFF alone, ON alone, both at the largest sum."""
    found = Examples(Erase(), limit=1, show=1)(trained(), dots(1))
    planes = np.zeros((1, 2, 8, 8))
    planes[0, 0, 0, 1] = planes[0, 1, 0, 2] = planes[0, :, 0, 3] = 4.0
    planes[0, 0, 0, 4] = 1.0
    found.quantities["before"].values[:] = planes
    (heat,) = Examples.plots({"one": found})[0].marks
    cells = [heat.colours[int(value)] for value in heat.grid[0, :5]]
    parts = [tuple(int(c[at : at + 2], 16) for at in (1, 3, 5)) for c in cells]
    none, off, on, both, pale = parts
    assert min(none) > 250
    assert off[2] > off[0] and on[0] > on[2]
    assert all(a <= min(b, c) for a, b, c in zip(both, off, on, strict=True))
    assert all(a <= b <= c for a, b, c in zip(off, pale, none, strict=True)) and off < pale < none


def test_pictures_are_drawn_with_their_own_colours():
    found = Examples(Erase(), limit=4, show=2)(trained(), dots(4))
    plot = Examples.plots({"one": found})[0]
    assert "classes" in plot.title and plot.marks[0].grid.shape == (8, 2 * 8 + 1)
    (trace,) = drawn(plot, {}, id="a").figure.data
    assert (trace.zmin, trace.zmax, trace.showscale) == (-0.5, 80.5, False)
    assert [colour for _, colour in trace.colorscale][::2] == list(plot.marks[0].colours)


def test_images_are_grey_and_flat_inputs_are_rejected():
    found = Examples(FGSM(Linf(0.1)), limit=5, show=2)(network(), images())
    assert found.axes["plane"].tolist() == ["all"]
    np.testing.assert_allclose(found["before"], images().batch(slice(2))[0].mean(1, keepdim=True))
    assert found["distance"].max() <= 0.1 + 1e-6
    assert Examples.plots({"one": found})[0].marks[0].grey
    x, y = images().batch(slice(4))
    with pytest.raises(NotApplicable, match="flat vectors"):
        Examples(FGSM(Linf(0.1)))(network(), (x.flatten(1), y))
    with pytest.raises(ValueError, match="show is a number of inputs >= 1, got 0"):
        Examples(FGSM(Linf(0.1)), show=0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_frames_without_two_polarities_are_summed_over_their_channels(channels):
    x = (torch.rand(6, 3, channels, 8, 8, generator=stream(0, "events")) < 0.2).float()
    data = as_image_set((x, torch.arange(6) % 3), name="events")
    model = CNN(channels, 3, T=3, width=4, hidden=6, image_size=8, encoder=EventFrames()).eval()
    found = Examples(Erase(), limit=6, show=2)(model, data)
    np.testing.assert_array_equal(found["before"], x[:2].sum((1, 2))[:, None])
    np.testing.assert_array_equal(found["after"], x[:2, 1:].sum((1, 2))[:, None])
    assert found.axes["plane"].tolist() == ["all"]
    before, _, _ = Examples.plots({"net": found})
    (heat,) = before.marks
    assert heat.grey and np.nanmax(heat.grid) == 1.0
