"""Analysis ``flips``: chosen potentials give known flips; nothing flips without an attack."""

import numpy as np
import pytest
import torch

from spikeguard.analysis import Flips
from spikeguard.analysis.flip_counts import flips_of
from spikeguard.attacks import FGSM, Linf
from spikeguard.models import CNN
from spikeguard.neurons import IF, LIF, NoisyLIF, record
from spikeguard.rng import stream
from tests.toys.single_neurons import Negative, Steps, Swapped, pixels

# One step of an IF neuron with threshold 1/2: v is the pixel. Distances in v_th: -1/8 and -1/2 (new
# spikes), 1/4 and 1 (lost spikes), -3/4 and 1/16 (no flip).
TABLE = tuple(
    (before / 2, after / 2)
    for before, after in (
        *((0.875, 1.125), (0.5, 1.5), (1.25, 0.8125), (2.0, 0.625)),
        *((0.25, 0.375), (1.0625, 1.3125)),
    )
)
IMAGES = pixels(*(before for before, _ in TABLE))


def neuron():
    return Steps(IF(v_th=0.5), T=1)


def network(neuron=None):
    """A network in which all layers fire."""
    neuron = LIF(0.5, v_th=0.2) if neuron is None else neuron
    return CNN(1, 3, T=3, width=4, hidden=6, image_size=8, neuron=neuron).eval()


def counted(m, direction):
    """Distances of the flips of a direction: starts of their bins, rounded."""
    counts = m["flips"][0, ["0 to 1", "1 to 0"].index(direction)]
    return np.repeat(m.axes["bin"], counts).round(2).tolist()


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_chosen_potentials_give_known_flips(batch_size):
    m = Flips(Swapped(TABLE), margin=0.2)(neuron(), IMAGES, batch_size=batch_size)
    assert counted(m, "0 to 1") == [-0.5, -0.15]  # a bin of 0.05 starts at or below its distance
    assert counted(m, "1 to 0") == [0.25, 1.0]
    known = {
        "rate": 4 / 6,
        "near_flips": 1 / 4,
        "near": 2 / 6,
        "rate_near": 1 / 2,
        "rate_far": 3 / 4,
        "new": 1 / 2,
    }
    for layers in ("neuron", "all layers"):
        assert {name: m.number(name, layers=layers) for name in known} == known
    squares = [(2 * a - 2 * b) ** 2 for a, b in TABLE]
    assert m.number("shift", layers="neuron") == pytest.approx(np.sqrt(np.mean(squares)))
    assert m["flips_by_step"].tolist() == [[4]]
    assert m["potentials"].sum() == 6


@pytest.mark.parametrize(
    ("margin", "share"), [(0.0625, 0), (0.125, 0), (0.13, 1 / 4), (0.3, 1 / 2), (2, 1)]
)
def test_any_margin(margin, share):
    """A potential whose distance is the margin is outside."""
    m = Flips(Swapped(TABLE), margin=margin)(neuron(), IMAGES)
    assert m.number("near_flips", layers="all layers") == share


def test_bands_of_the_flip_rate():
    m = Flips(Swapped(TABLE))(neuron(), IMAGES)
    rates = dict(zip(m.axes["band"].round(1).tolist(), m["band_rate"].tolist(), strict=True))
    assert (rates[-0.2], rates[0.0], rates[0.2], rates[-0.6], rates[1.0]) == (1, 0, 1, 1, 1)
    assert rates[-0.8] == 0
    assert np.isnan(rates[0.4])


@pytest.mark.parametrize("attack", [Swapped(), FGSM(Linf(0.0))], ids=["none", "eps 0"])
def test_nothing_flips_without_a_perturbation(attack, x, y):
    m = Flips(attack)(network(NoisyLIF(0.5, 0.5, v_th=0.3)), (x, y))
    assert m["flips"].sum() == 0 and (m["rate"] == 0).all() and (m["shift"] == 0).all()
    assert np.isnan(m["near_flips"]).all()
    assert Flips.result({"a": m}).endswith(": -")
    assert all("nan" not in cell for row in Flips.table({"a": m}).rows for cell in row)


def test_the_reverse_attack_swaps_new_and_lost_spikes(x, y):
    there, back = (Flips(Negative())(network(), (each, y)) for each in (x, 1 - x))
    totals = there["flips"].sum(2)
    assert (totals.sum(1) > 0).all()
    np.testing.assert_array_equal(totals, back["flips"].sum(2)[:, ::-1])
    np.testing.assert_array_equal(there["flips_by_step"], back["flips_by_step"])
    np.testing.assert_allclose(there["shift"], back["shift"])


def test_flips_are_those_of_two_recordings(x, y):
    """Counted again, neuron by neuron, from the definition."""
    snn = network()
    with torch.no_grad(), record(snn) as trace:
        snn(x)
        clean = dict(trace)
        snn(1 - x)
        other = dict(trace)
    m = Flips(Negative(), margin=0.3)(snn, (x, y))
    for place, name in enumerate(clean):
        v = clean[name].v.flatten().tolist()
        pairs = zip(clean[name].spikes.flatten(), other[name].spikes.flatten(), strict=True)
        flipped = [d for d, (a, b) in zip(v, pairs, strict=True) if bool(a) != bool(b)]
        v_th = clean[name].v_th
        near = sum(abs(d - v_th) < 0.3 * v_th for d in flipped)
        assert m["flips"][place].sum() == len(flipped)
        assert m.number("near_flips", layers=name) == pytest.approx(near / len(flipped))


def test_flips_have_a_sign():
    model = neuron()
    with record(model) as trace:
        model(IMAGES[0])
        clean = trace["neuron"]
        model(Swapped(TABLE)(model, *IMAGES))
        other = trace["neuron"]
    assert flips_of(clean, other).flatten().tolist() == [1, 1, -1, -1, 0, 0]


def test_intervals_hold_the_share_and_shrink_with_the_images():
    values = torch.rand(400, generator=stream(0, "pixels")).tolist()
    few, many = (
        Flips(Negative(), limit=None)(Steps(IF(v_th=0.75), T=1), pixels(*values[:n]))
        for n in (40, 400)
    )
    widths = []
    for m in (few, many):
        low, value, high = (
            m.number(f"rate{end}", layers="neuron") for end in ("_low", "", "_high")
        )
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_the_share_of_flips_within_a_distance_grows_to_all():
    m = Flips(Swapped(TABLE))(neuron(), IMAGES)
    (plot,) = (p for p in Flips.plots({"a": m}) if p.name == "within")
    flips, potentials = plot.marks
    at = dict(zip(np.round(flips.x, 2).tolist(), np.round(flips.y, 1).tolist(), strict=True))
    assert (at[0.0], at[0.1], at[0.15], at[0.3], at[0.5], at[1.05]) == (0, 0, 25, 50, 75, 100)
    assert potentials.y[-1] == 100
    assert (np.diff(flips.y) >= 0).all()


def test_a_margin_must_be_positive():
    with pytest.raises(ValueError, match="flips: margin is a distance"):
        Flips(Swapped(), margin=float("nan"))
