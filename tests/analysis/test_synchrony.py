"""Synchrony of networks whose frames to failure and correlations are known."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import ANALYSES, Synchrony
from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.correlation import MeanCorrelation
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.spike_trains import TIMES, LayerTrains
from spikeguard.analysis.synchrony_results import result
from spikeguard.analysis.synchrony_statistics import CONDITIONS, statistics, thinned
from spikeguard.encoders import Poisson
from spikeguard.models import CNN, MLP
from spikeguard.models.snn import SNN, Temporal
from spikeguard.neurons import IF, NoisyLIF, record
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import LIFNode

STEPS = 4


class Counting(Temporal):
    """One IF neuron a pixel. Class 1 as soon as ``needed`` frames are not a grey of 0.5."""

    def __init__(self, needed, v_th):
        super().__init__()
        self.needed, self.neuron = needed, IF(v_th=v_th)

    def forward(self, x, T):
        self.neuron(x, T=T)
        changed = (x != 0.5).flatten(2).any(2).float()
        return torch.stack([torch.full_like(changed, (self.needed - 0.5) / T), changed], 2)


def counting(needed, v_th=1.0):
    stages = {"count": Counting(needed, v_th)}
    return SNN(stages, T=STEPS, num_classes=2, in_shape=(1, 3, 3))


def grey(n=10, wrong=0):
    y = torch.zeros(n, dtype=torch.int64)
    y[:wrong] = 1
    return torch.full((n, 1, 3, 3), 0.5), y


def noisy_network():
    neuron = NoisyLIF(0.5, 0.3, v_th=0.3)
    return CNN(1, 3, T=STEPS, width=4, hidden=8, image_size=8, neuron=neuron)


def pictures(model, n=23):
    """Images that the network classifies right with most draws of its noise."""
    x = torch.rand(n, 1, 8, 8, generator=stream(1, "x"))
    with torch.no_grad():
        return x, model.eval()(x).argmax(1)


def at(m, name, **place):
    return m.number(name, layer="count.neuron", **place)


@pytest.mark.parametrize("needed", [1, 3, 4])
def test_a_network_that_fails_at_a_known_frame(needed):
    m = Synchrony()(counting(needed), grey(10, wrong=2))
    expected = [8 if k == needed else 0 for k in range(1, STEPS + 1)]
    assert m["failures"].tolist() == expected
    assert (int(m["right"]), int(m["never"]), m.samples) == (8, 0, 10)
    assert m["images"].tolist() == [8, 8, 0]  # as many noise frames always fail: no control
    assert np.isnan(at(m, "mean", condition="control", convention="zero", time="observed"))


def test_a_network_that_never_fails_ends_and_is_counted_apart():
    m = Synchrony()(counting(STEPS + 1), grey(10, wrong=2))
    assert m["failures"].tolist() == [0] * STEPS
    assert (int(m["right"]), int(m["never"])) == (8, 8)
    assert len(m.axes["layer"]) == 0
    assert Synchrony.result({"a": m}).startswith("No image failed")
    assert Synchrony.table({"a": m}).rows == [("a", "no image failed", *[""] * 8)]
    assert [plot.name for plot in Synchrony.plots({"a": m})] == ["frames"]


def test_a_network_that_is_never_right_has_no_frames_to_failure():
    m = Synchrony()(counting(1), grey(3, wrong=3))
    assert (int(m["right"]), int(m["never"]), m["failures"].sum()) == (0, 0, 0)
    (chart,) = Synchrony.plots({"a": m})
    assert len(chart.marks[0].y) == 0
    assert Synchrony.result({"a": m}).startswith("No image was classified right without noise")
    assert Synchrony.table({"a": m}).rows == [("a", "no image was right", *[""] * 8)]


def test_equal_pixels_have_equal_trains_until_they_become_noise():
    """IF on a current of 1/2: spikes at every other step, so that every pair correlates 1."""
    m = Synchrony()(counting(2), grey())
    for convention in ("left out", "zero"):
        clean = {"condition": "clean", "convention": convention, "time": "observed"}
        assert at(m, "mean", **clean) == pytest.approx(1)
        assert (at(m, "above", **clean), at(m, "pairs", **clean)) == (36, 36)
        change = {"change": "failure - clean", "convention": convention, "time": "observed"}
        assert at(m, "change_high", **change) < -0.1
        shuffled = at(m, "mean", **{**clean, "time": "shuffled"})
        assert abs(shuffled) < 0.2
    assert at(m, "undefined", condition="clean") == 0
    np.testing.assert_allclose(m["matrix"][0], 1)


def test_neurons_that_always_fire_have_no_correlation():
    m = Synchrony()(counting(2, v_th=0.5), grey())
    clean = {"condition": "clean", "time": "observed"}
    assert at(m, "undefined", condition="clean") == 1
    assert np.isnan(at(m, "mean", convention="left out", **clean))
    assert at(m, "mean", convention="zero", **clean) == 0
    assert at(m, "pairs", convention="left out", **clean) == 0
    assert at(m, "defined", condition="clean", convention="left out") == 0
    assert at(m, "defined", condition="clean", convention="zero") == 10
    assert np.isnan(m["matrix"][0]).all()
    assert [len(Synchrony.table({"a": m}).rows), len(Synchrony.plots({"a": m}))] == [4, 6]


def planted(clean, failure, control, matched):
    """Statistics of one layer with given trains [B, T, N]."""
    found = {(c, t): MeanCorrelation() for c in CONDITIONS for t in TIMES}
    for condition, trains in zip(CONDITIONS, (clean, failure, control), strict=True):
        for time in TIMES:
            found[condition, time].add(trains)
    layer = LayerTrains(clean.shape[2], torch.arange(clean.shape[2]), False, found)
    return statistics([layer], np.array(matched))


def measured(numbers):
    axes = {
        "layer": ["a"],
        "condition": CONDITIONS,
        "convention": ["left out", "zero"],
        "time": TIMES,
        "change": ["failure - clean", "control - clean", "failure - control"],
    }
    return Measurement.of("synchrony", {}, 4, axes, **numbers)


def test_the_convention_reverses_the_sign_where_more_neurons_vary():
    """Clean: two of six trains vary and are equal, 1 pair of 15. Failure: one train is opposite to
    the other five, (10 - 5) / 15 = 1/3, which is below 1 and above 1/15.
    """
    on, off = [1, 0, 1, 0], [0, 1, 0, 1]
    clean = torch.tensor([on, on, [0] * 4, [0] * 4, [1] * 4, [1] * 4]).T.repeat(4, 1, 1)
    failure = torch.tensor([on] * 5 + [off]).T.repeat(4, 1, 1)
    control = failure[:2]
    m = measured(planted(clean, failure, control, [True, False, False, True]))
    one = {"layer": "a", "change": "failure - clean", "time": "observed"}
    assert m.number("change", convention="left out", **one) == pytest.approx(1 / 3 - 1)
    assert m.number("change", convention="zero", **one) == pytest.approx(1 / 3 - 1 / 15)
    assert m.number("undefined", layer="a", condition="clean") == pytest.approx(14 / 15)
    assert m["images"].tolist() == [4, 4, 2]
    text = result({"net": m})
    assert "reverses the sign of the change in 1 of 1 layers" in text
    assert "93 % of the pairs of trains are undefined on clean images, 0 % at failure" in text
    assert "higher in 0 layers and lower in 0" in text


def test_failure_is_compared_with_the_control_of_the_same_images():
    """Images 1 and 3 have a control; there failure is 1 and the control -1/3 under both."""
    on, off = [1, 0, 1, 0], [0, 1, 0, 1]
    high = torch.tensor([on, on, on]).T
    low = torch.tensor([on, on, off]).T
    failure = torch.stack([low, high, low, high])
    m = measured(planted(failure, failure, torch.stack([low, low]), [False, True, False, True]))
    one = {"layer": "a", "change": "failure - control", "time": "observed"}
    assert m.number("change", convention="zero", **one) == pytest.approx(4 / 3)
    assert m.number("change_low", convention="zero", **one) == pytest.approx(4 / 3)
    assert "higher in 1 layers and lower in 0" in result({"net": m})
    swapped = measured(planted(failure, low.repeat(4, 1, 1), high.repeat(4, 1, 1), [True] * 4))
    assert "higher in 0 layers and lower in 1" in result({"net": swapped})


def test_intervals_are_those_of_the_mean_over_images():
    """Mean correlations of -1/3, 1, -1/3, 1: mean 1/3, standard error 0.7698 / 2."""
    on, off = [1, 0, 1, 0], [0, 1, 0, 1]
    high, low = torch.tensor([on, on, on]).T, torch.tensor([on, on, off]).T
    clean = torch.stack([low, high, low, high])
    m = measured(planted(clean, clean, clean[:0], [False] * 4))
    one = {"layer": "a", "condition": "clean", "convention": "zero", "time": "observed"}
    assert m.number("mean", **one) == pytest.approx(1 / 3)
    assert m.number("mean_high", **one) == pytest.approx(1 / 3 + 1.959964 * 0.7698004 / 2)


def test_large_layers_are_sampled():
    model = noisy_network()
    m = Synchrony(neurons=6)(model, pictures(model), seed=2)
    assert min(m["neurons"]) == 8 and m["correlated"].tolist() == [6] * len(m["neurons"])
    assert m["pairs"].max() == 15 and m["matrix"].shape == (4, 6, 6)
    whole = Synchrony()(model, pictures(model), seed=2)
    assert whole["correlated"].tolist() == whole["neurons"].clip(max=256).tolist()


def test_the_matrix_shown_is_thinned_to_evenly_spaced_neurons():
    trains = (torch.rand(5, 8, 100, generator=stream(0, "t")) < 0.5).float()
    found = {("clean", "observed"): MeanCorrelation()}
    found["clean", "observed"].add(trains)
    layer = LayerTrains(100, torch.arange(100), False, found)
    grid = thinned(layer, "clean", "observed")
    assert grid.shape == (32, 32)
    whole = found["clean", "observed"].matrix()["left out"].astype(np.float32)
    assert grid[0, 31] == whole[0, 99] and grid[1, 0] == whole[3, 0]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_same_seed_same_bits_whatever_the_batches(batch_size):
    model = noisy_network()
    data = pictures(model)
    found = Synchrony(limit=20)(model, data, seed=3, batch_size=batch_size)
    again = Synchrony(limit=20)(model, data, seed=3, batch_size=20)
    assert found.settings == again.settings and found.samples == 20
    assert 0 < int(found["images"][2]) <= int(found["images"][1])
    for name, quantity in found.quantities.items():
        np.testing.assert_array_equal(quantity.values, again[name])
    other = Synchrony(limit=20)(model, data, seed=4)
    assert not np.array_equal(other["mean"], found["mean"], equal_nan=True)


def test_the_model_is_left_as_it_was():
    model = noisy_network()
    data = pictures(model)
    model.train()
    model.features[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.random.get_rng_state()
    Synchrony(limit=8)(model, data)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(p.grad is None for p in model.parameters())
    assert not any(getattr(module, "_recorders", ()) for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_trains_are_those_that_the_network_fires():
    """Without noise, the clean mean correlation of a layer is that of its recorded spikes."""
    model = counting(2)
    m = Synchrony(limit=4)(model, grey())
    with record(model) as seen:
        model(grey(4)[0].expand(STEPS, 4, 1, 3, 3))
    spikes = seen["count.neuron"].spikes.transpose(0, 1).flatten(2)
    expected = MeanCorrelation()
    expected.add(spikes)
    clean = {"condition": "clean", "convention": "zero", "time": "observed"}
    assert at(m, "mean", **clean) == pytest.approx(expected.per_image()[:, 1].mean())


def test_a_foreign_network_is_measured_and_one_that_cannot_be_recorded_is_named():
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 20), LIFNode(), nn.Linear(20, 3))
    model = sg.foreign(drawn(net, 1.0, stream(0, "w")).eval(), T=STEPS)
    x = torch.rand(12, 1, 3, 3, generator=stream(1, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
    m = Synchrony()(model, (x, y))
    assert list(m.axes["layer"]) == ["model.2"]
    assert int(m["right"]) == 12 and 0 < m["failures"].sum() <= 12
    net[2].charge = lambda v, x: 0.3 * v + x
    with pytest.raises(NotApplicable, match="cannot be recorded") as caught:
        Synchrony()(model, (x, 0 * y))
    assert "\n" not in str(caught.value)


def test_networks_to_which_it_does_not_apply_are_named():
    x, y = grey(2)
    one = MLP(in_features=9, hidden=[3], in_shape=[1, 3, 3], T=1)
    random = MLP(in_features=9, hidden=[3], in_shape=[1, 3, 3], T=2, encoder=Poisson())
    for model, text in [(one, "T >= 2"), (nn.Flatten(), "T >= 2"), (random, "Poisson derives")]:
        with pytest.raises(NotApplicable, match=text):
            Synchrony()(model, (x, y))


def test_settings_are_checked():
    for neurons in (1, 1025):
        with pytest.raises(ValueError, match="neurons must be 2 to 1024"):
            Synchrony(neurons=neurons)
    with pytest.raises(ValueError, match="limit"):
        Synchrony(limit=0)(counting(1), grey())


def test_passes_are_those_of_a_measurement_within_a_factor_of_two():
    model = counting(2)
    seen = []
    model.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    Synchrony()(model, grey(40))
    assert 0.5 < sum(seen) / Synchrony().passes(40, STEPS).forward < 2


def test_table_and_charts_have_a_place_for_every_network():
    model = noisy_network()
    found = {label: Synchrony()(model, pictures(model), seed=s) for s, label in enumerate("ab")}
    found["never"] = Synchrony()(counting(STEPS + 1), grey())
    shown = Synchrony.table(found)
    assert [row[0] for row in shown.rows] == ["a"] * 4 + ["b"] * 4 + ["never"]
    assert {len(row) for row in shown.rows} == {len(shown.head)}
    assert "never 10 of 10" in shown.caption
    charts = Synchrony.plots(found)
    names = [chart.name for chart in charts]
    assert names[:4] == ["frames", "undefined", "left-out", "as-zero"]
    assert len(set(names)) == len(names) == 8
    assert all(chart.title and chart.summary for chart in charts)
    assert [mark.network for mark in charts[0].marks] == ["a", "b", "never"]
    assert [mark.name for mark in charts[2].marks if mark.name] == [
        *("failure", "control", "a", "b", "shuffled time")
    ]
    grid, (_, _, observed, mixed) = charts[5].marks[0].grid, found["a"]["matrix"]
    above = np.triu_indices(8, 1)
    np.testing.assert_array_equal(grid[above], observed[above])
    np.testing.assert_array_equal(grid.T[above], mixed.T[above])
    assert charts[0].marks[2].y[-1] == 100 and charts[0].marks[2].x[-1] == "never"


def test_it_is_registered():
    assert ANALYSES["synchrony"] is Synchrony
