"""Analysis ``noise``: the normal distribution, counted draws, and the noise of earlier steps."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import Noise
from spikeguard.analysis.noise_counts import replayed
from spikeguard.analysis.theory import flip_probability
from spikeguard.models import CNN
from spikeguard.neurons import DLIF, IF, LIF, NoisyLIF, record
from spikeguard.rng import stream
from tests.toys.foreign_networks import LIFNode, T
from tests.toys.single_neurons import Steps, pixels

PHI = NormalDist().cdf
MANY = 4000
OWN, ALL_STEPS = (
    {"layers": "all layers", "way": f"of {which}"} for which in ("its step", "all steps")
)


@pytest.mark.parametrize("v", [0.25, 0.75, 0.5, 0.0])
def test_added_noise_flips_as_often_as_predicted(v):
    """IF, one step, threshold 1/2: the distance is v - 1/2."""
    m = Noise(sigma=0.25, limit=None)(Steps(IF(v_th=0.5), T=1), pixels(*[v] * MANY))
    known = PHI(-abs(v - 0.5) / 0.25)
    assert m.number("predicted", **OWN) == pytest.approx(known, rel=1e-6)
    error = (known * (1 - known) / MANY) ** 0.5
    assert abs(m.number("measured", **OWN) - known) < 4 * error
    assert m.number("deviation", layers="all layers") == pytest.approx(
        (m.number("measured", **OWN) - known) / error, rel=1e-5
    )
    low, high = (m.number(f"measured{end}", **OWN) for end in ("_low", "_high"))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.2)


def test_the_share_within_sigma_counts_the_condition():
    """Distances 3/8, 1/8, exactly sigma, and 3/16 above: the limit is outside."""
    m = Noise(sigma=0.25)(Steps(IF(v_th=0.5), T=1), pixels(0.125, 0.375, 0.25, 0.6875))
    assert m.number("within_sigma", layers="neuron") == 2 / 4


def test_the_noise_is_tgos_where_a_layer_has_none():
    m = Noise()(Steps(IF(), T=1), pixels(0.5))
    assert m["sigma"].tolist() == [pytest.approx(0.4**0.5)]


def noisy(sigma=0.3, **options):
    model = CNN(
        1, 3, T=3, width=4, hidden=6, image_size=8, generator=stream(0, "w"),
        neuron=NoisyLIF(0.5, sigma, v_th=0.4, **options),
    )  # fmt: skip
    model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics")))
    return model.eval()


def test_the_layers_own_draws_are_counted(x, y):
    """The flips are those of the recorded noise, and as many as predicted."""
    m = Noise()(noisy(), (x, y))
    assert m["sigma"].tolist() == [0.3] * 4
    assert (np.abs(m["deviation"]) < 4).all()
    other = Noise(sigma=0.6)(noisy(), (x, y))
    assert other["sigma"].tolist() == [0.6] * 4
    assert other.number("measured", **OWN) > m.number("measured", **OWN)
    assert (np.abs(other["deviation"]) < 4).all()


def test_the_deviation_finds_noise_of_another_strength(x, y):
    """A planted fault: the layers say 0.3, their noise has 0.45."""
    model = noisy(sigma=0.45)
    for layer in model.modules():
        if isinstance(layer, NoisyLIF):
            layer.random.normal_ = lambda out, dim, draw=layer.random.normal_: draw(
                out, dim=dim
            ).mul_(1.5)
            layer.sigma = 0.3
    assert Noise()(model, (x, y)).number("deviation", layers="all layers") > 10


def test_noise_of_earlier_steps_stays_in_the_membrane():
    """IF, current 1/4: v = .25, .5 without noise. At step 2 the noise of both steps is in v; the
    chance of a spike at step 1 is below 0.002."""
    m = Noise(sigma=0.25, limit=None)(Steps(IF(), T=2), pixels(*[0.25] * MANY))
    predicted, measured = (m[f"{name}_by_step"] for name in ("predicted", "measured"))
    np.testing.assert_allclose(predicted[0], [PHI(-3), PHI(-2)], rtol=1e-6)
    np.testing.assert_allclose(predicted[1], predicted[0])  # no noise of its own
    assert measured[0, 0] == measured[1, 0]
    assert measured[0, 1] == pytest.approx(PHI(-2), abs=0.01)
    assert measured[1, 1] == pytest.approx(PHI(-2 / 2**0.5), abs=0.018)


@pytest.mark.parametrize(
    "neuron",
    [
        LIF(0.5, v_th=0.4),
        LIF(0.5, v_th=0.4, v_reset=-0.2),
        LIF(0.7, v_th=0.4, reset="soft"),
        NoisyLIF(0.5, 0.3, v_th=0.4),
        DLIF(T=3),
    ],
    ids=["hard", "v_reset", "soft", "noisy", "gates"],
)
def test_a_replay_is_the_recording(neuron, x):
    model = CNN(1, 3, T=3, width=4, hidden=6, image_size=8, neuron=neuron).eval()
    with torch.no_grad(), record(model) as trace:
        model(x)
    for seen in trace.values():
        torch.testing.assert_close(replayed(seen, seen.noise), seen.v, rtol=1e-4, atol=1e-5)
    if neuron.__class__ is NoisyLIF:
        assert any(not torch.allclose(replayed(t, None), t.v) for t in trace.values())


@pytest.mark.parametrize("gate", ["input", "leak"])
def test_gates_of_1_give_the_numbers_of_a_lif_neuron(gate, x, y):
    """Gates and leak factors are parameters; they are no part of a gradient here."""
    plain, gated = (
        Noise()(CNN(1, 3, T=3, width=4, hidden=6, image_size=8, neuron=neuron).eval(), (x, y))
        for neuron in (LIF(0.5, v_th=0.3), DLIF(T=3, gate=gate, decay=0.5, v_th=0.3))
    )
    for name in ("predicted", "measured", "deviation"):
        np.testing.assert_allclose(gated[name], plain[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_foreign_network_has_flips_of_the_step_alone(x, y):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), LIFNode(), nn.Linear(20, 3))
    m = Noise()(sg.foreign(net, T=T), (x, y))
    assert (np.abs(m["deviation"]) < 4).all()
    assert np.isnan(m.number("measured", **ALL_STEPS))
    assert [plot.name for plot in Noise.plots({"a": m})] == ["distance", "layers"]
    assert Noise.table({"a": m}).rows[0][-1] == "-"


def test_bands_follow_the_curve():
    values = torch.linspace(0, 1, 2000).tolist()
    m = Noise(sigma=0.25, limit=None)(Steps(IF(v_th=0.5), T=1), pixels(*values))
    filled = np.isfinite(m["band_rate"])
    assert filled.tolist() == [start <= 2 for start in m.axes["band"]]
    curve = flip_probability(torch.tensor(m["band_distance"][filled]), 1.0).numpy()
    np.testing.assert_allclose(m["band_predicted"][filled], curve, atol=0.003)
    np.testing.assert_allclose(m["band_rate"][filled], curve, atol=0.12)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_sigma_must_be_positive(sigma):
    with pytest.raises(ValueError, match="noise: sigma is a standard deviation > 0"):
        Noise(sigma=sigma)
