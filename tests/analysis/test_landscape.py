"""The landscape around images: closed forms, FGSM's point, the same noise at every point."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import Landscape, NotApplicable, WeightLandscape
from spikeguard.analysis.landscape_charts import beaten
from spikeguard.attacks import FGSM, L2, Edits, Linf, Retiming
from spikeguard.attacks.gradients.base import SwapSurrogate
from spikeguard.attacks.losses import cross_entropy
from spikeguard.config.analysis_lines import build_analysis
from spikeguard.config.errors import ConfigError
from spikeguard.models import CNN
from spikeguard.neurons import LIF, ATan, NoisyLIF, Triangular
from spikeguard.rng import stream
from tests.toys.closed_forms import EPS, IMAGES, LABELS, Linear
from tests.toys.event_frames import dots, untrained
from tests.toys.foreign_networks import LIFSpike, T

DATA = (IMAGES, LABELS)


def network(neuron=None):
    neuron = LIF(0.5, v_th=0.2) if neuron is None else neuron
    model = CNN(1, 2, T=3, width=4, hidden=6, image_size=8, neuron=neuron, generator=stream(0, "w"))
    for step in range(20):  # the statistics of batch normalisation
        model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics", step)))
    return model


X = torch.rand(5, 1, 8, 8, generator=stream(1, "x")) * 0.9 + 0.05
Y = torch.arange(5) % 2


@pytest.mark.parametrize("threat", [Linf(EPS), L2(0.3)], ids=["linf", "l2"])
def test_the_loss_of_a_linear_model_has_a_closed_form(threat):
    """The logits differ by 2 <w, x - 1/2>, which falls by 2 eps ||w||_* for every unit along d1.

    All weights are 1 or -1 and no pixel is clipped: ||w||_1 is 16, ||w||_2 is 4. The orthogonal
    direction changes nothing.
    """
    found = Landscape(FGSM(threat), points=9, span=1.5, limit=None)(Linear(), DATA)
    dual = 16 if threat.norm == "linf" else 4
    axis, sides = torch.tensor(found.axes["along"]), 2.0 * LABELS - 1
    score = ((IMAGES - 0.5).flatten(1) @ Linear().w.detach()).double() * sides
    shift = {"clean": 0, "attacked": 1}
    for place, moved in shift.items():
        gap = 2 * (score[:, None] - dual * threat.eps * (axis + moved))
        loss = torch.nn.functional.softplus(-gap).mean(0).numpy()
        place = list(found.axes["place"]).index(place)
        for column in found["loss"][place].T:
            np.testing.assert_allclose(column, loss, rtol=1e-3)
        right = (gap > 0).double().mean(0).numpy()
        np.testing.assert_allclose(found["accuracy"][place][:, 4], right)
    assert not found["roughness"][:, 0].any()
    last = 0.75  # the grid is -1.5, -1.125, ..., 1.5
    inside = torch.nn.functional.softplus(-2 * (score - dual * threat.eps * last))
    np.testing.assert_allclose(found["highest"], inside, rtol=1e-3)


def test_a_linear_loss_is_flat_along_the_orthogonal_direction_for_any_signs():
    model = Linear()
    model.w.data = torch.rand(16, generator=stream(0, "signs")).sub(0.5).sign()
    x = torch.full((3, 1, 4, 4), 0.5)
    found = Landscape(FGSM(Linf(0.1)), points=5)(model, (x, LABELS[:3]))
    np.testing.assert_allclose(found["loss"], found["loss"][:, :, 2:3].repeat(5, 2), rtol=1e-5)


def test_only_points_inside_the_threat_set_count_against_the_attack():
    """FGSM is the strongest attack on a linear model; one of half the step is beaten."""
    own = Landscape(FGSM(Linf(EPS)), points=9, span=2.0, limit=None)
    assert beaten(own(Linear(), DATA))[0] == 0
    lazy = replace(own, attack=Half(Linf(EPS)))
    share, (low, high) = beaten(lazy(Linear(), DATA))
    assert share == 1 and low > 0.9 and high == 1


class Half(FGSM):
    def __call__(self, model, x, y, *, generator=None):
        return (x + super().__call__(model, x, y, generator=generator)) / 2


@pytest.mark.parametrize("neuron", [LIF(0.5, v_th=0.2), NoisyLIF(0.5, 0.3, v_th=0.2)])
def test_the_centre_is_the_plain_loss_and_one_step_is_fgsm(neuron):
    model = network(neuron)
    found = Landscape(FGSM(Linf(0.1)), points=5, span=1.0, limit=None)(model, (X, Y))
    model.eval()
    if not isinstance(neuron, NoisyLIF):
        with torch.no_grad():
            plain = cross_entropy(model(X), Y)
            stepped = cross_entropy(model(FGSM(Linf(0.1))(model, X, Y)), Y)
        np.testing.assert_allclose(found["centre"][0], plain, rtol=1e-5)
        np.testing.assert_allclose(found["centre"][1], stepped, rtol=1e-5)
        at_one = found.number("loss", place="clean", along=1.0, across=0.0)
        assert at_one == pytest.approx(float(stepped.mean()), rel=1e-5)


def test_a_stochastic_network_has_the_same_noise_at_every_point():
    """With a span below the resolution of the pixels, every point is the centre."""
    model = network(NoisyLIF(0.5, 0.8, v_th=0.2))
    near = Landscape(FGSM(Linf(0.1)), points=5, span=1e-9, limit=None)
    found = near(model, (X, Y), batch_size=20)
    assert (found["loss"] == found["loss"][:, :1, :1]).all()
    other = near(model, (X, Y), seed=1)
    assert not np.allclose(other["centre"], found["centre"])


def test_the_surrogate_decides_the_direction():
    """No potential is within 1e-6 of the threshold, so this surrogate gives a gradient of 0."""
    line = Landscape(FGSM(Linf(0.1)), points=5, span=1.0)
    own = line(network(), (X, Y))
    none = replace(line, gradient=SwapSurrogate(Triangular(1e-6)))(network(), (X, Y))
    assert (own["gradient"] > 0).all() and not none["gradient"].any()
    assert (none["loss"] == none["loss"][:, :1]).all()
    assert np.isnan(none["roughness"][:, 0]).all()
    table = Landscape.table({"own": own, "swapped": none})
    column = table.head.index("Surrogate")
    assert [row[column] for row in table.rows] == ["own", "own", "Triangular", "Triangular"]


class TheirNetwork(nn.Module):
    """A network of another framework: loops over time inside, potentials of no layer of ours."""

    def __init__(self):
        super().__init__()
        draw = stream(0, "w")
        self.first, self.neuron, self.last = nn.Linear(64, 20), LIFSpike(), nn.Linear(20, 2)
        for p in self.parameters():
            nn.init.normal_(p, std=0.4, generator=draw)

    def forward(self, x):
        x = x.repeat(T, *[1] * (x.ndim - 1)).flatten(1)
        return self.last(self.neuron(self.first(x))).view(T, -1, 2)


@pytest.mark.parametrize("kind", [Landscape, WeightLandscape])
def test_foreign_networks_have_landscapes_with_any_surrogate(kind):
    model = sg.foreign(TheirNetwork(), T=T).eval()
    before = [p.detach().clone() for p in model.parameters()]
    own = kind(FGSM(Linf(0.1)), points=3, span=0.5)
    found = own(model, (X, Y))
    with torch.no_grad():
        plain = cross_entropy(model(X), Y)
    np.testing.assert_allclose(found["centre"][0], plain, rtol=1e-5)
    assert len(np.unique(found["loss"][0])) > 3
    none = replace(own, gradient=SwapSurrogate(Triangular(1e-6)))(model, (X, Y))
    assert (none["gradient"] < found["gradient"]).all()
    if kind is Landscape:
        assert not none["gradient"].any()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_line_of_the_command_names_the_surrogate():
    attack = FGSM(Linf(0.1))
    built = build_analysis("landscape surrogate=atan surrogate.alpha=3 points=5", attack=attack)
    assert built == Landscape(attack, gradient=SwapSurrogate(ATan(3.0)), points=5)


@pytest.mark.parametrize("line", ["landscape points=4", "weight-landscape span=0"])
def test_a_bad_grid_is_one_clear_line(line):
    with pytest.raises(ConfigError, match=r"analyse .*Landscape: (points is odd|span is positive)"):
        build_analysis(line, attack=FGSM(Linf(0.1)))


def test_all_networks_and_places_share_one_scale():
    line = Landscape(FGSM(Linf(0.2)), points=5, span=2.0)
    found = {"one": line(network(), (X, Y)), "two": line(network(), (X * 0.5, 1 - Y))}
    plots = Landscape.plots(found)
    for word in ("loss", "accuracy"):
        heats = [p.marks[0] for p in plots if p.name.startswith((f"{word}-clean", f"{word}-att"))]
        assert len(heats) == {"loss": 4, "accuracy": 2}[word]
        assert len({(heat.low, heat.high) for heat in heats}) == 1
    surfaces = [p.marks[0] for p in plots if p.name.startswith("surface")]
    top = max(m["loss"].max() for m in found.values())
    assert [(s.low, s.high) for s in surfaces] == [(0, top)] * 2


@pytest.mark.parametrize("threat", [Edits(5), Retiming(1)])
def test_a_budget_of_events_is_no_radius(threat):
    """Inside the threat set there is only the centre: no largest loss of a ball is stated."""
    with pytest.raises(NotApplicable, match=f"the threat set {threat.norm} has none; give one of"):
        Landscape(FGSM(threat), points=3)(untrained(), dots(2))
