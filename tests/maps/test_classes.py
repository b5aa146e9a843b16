"""Classes of cells: the rules, and the boundaries that follow from the recurrence."""

import pytest
import torch

from spikeguard.analysis.activity import Activity
from spikeguard.data.images import ImageSet
from spikeguard.maps.cell import behaviour_of
from spikeguard.maps.classes import Behaviour, classify, pooled, still_falls
from spikeguard.models.feedforward import MLP
from spikeguard.neurons.lif import LIF

FALLS, SETTLED = (4.0, 3.0, 2.0, 1.0, 0.0), (4.0, 1.0, 0.5, 0.4, 0.3)


@pytest.mark.parametrize(
    ("right", "least", "rate", "losses", "kind"),
    [
        (90, 5.0, 0.3, SETTLED, "working"),
        (90, 5.0, 0.3, FALLS, "not converged"),
        (90, 0.0, 0.3, SETTLED, "working"),  # a layer can be bypassed
        (90, 5.0, 1.0, SETTLED, "working"),
        (10, 0.0, 0.3, SETTLED, "silent"),
        (10, 0.009, 0.3, FALLS, "silent"),
        (10, 0.01, 0.3, SETTLED, "at chance"),
        (10, 5.0, 0.99, SETTLED, "saturated"),
        (10, 0.0, 0.99, SETTLED, "silent"),  # the layer behind the saturated one
        (10, 5.0, 0.98, SETTLED, "at chance"),
        (0, 5.0, 0.3, SETTLED, "at chance"),
        (15, 5.0, 0.3, SETTLED, "at chance"),  # 15 or more by guessing: 7.3 %
        (16, 5.0, 0.3, SETTLED, "working"),  # 4.0 %
    ],
)
def test_the_class_follows_the_rules(right, least, rate, losses, kind):
    assert classify(Behaviour(right, 100, 10, least, rate, losses)) == kind


@pytest.mark.parametrize(
    ("losses", "falls"),
    [
        ((), False),
        ((3.0, 1.0), False),  # no trend
        ((3.0, 2.0, 1.0), True),  # a straight line
        ((3.0, 1.0, 0.5), False),
        (FALLS, True),
        (SETTLED, False),
        ((1.0, 1.0, 1.0), False),
        ((1.0, 2.0, 3.0), False),  # rises
        ((9.0, 8.9, 8.8, 8.7, 1.0), True),
    ],
)
def test_a_loss_still_falls_when_its_last_quarter_is_as_steep_as_the_mean(losses, falls):
    assert still_falls(losses) is falls


def test_the_class_of_a_cell_is_that_of_the_mean_of_its_seeds():
    dead = Behaviour(10, 100, 10, 0.0, 0.25, (2.0, 1.0, 1.0))
    alive = Behaviour(50, 100, 10, 8.0, 0.5, (2.0, 1.0, 0.0))
    assert pooled([dead, alive]) == Behaviour(30, 100, 10, 4.0, 0.375, [2.0, 1.0, 0.5])
    assert classify(pooled([dead, dead])) == "silent"
    assert classify(pooled([dead, alive])) == "working"


# --- boundaries of a layer with a constant current, v[t] = decay u[t-1] + scale I

CURRENT, STEPS = 1.7, 12


def kind_at(v_th, tau, reset):
    """Return the class of an MLP whose neurons all get the same current in every step."""
    neuron = LIF(decay=1 - 1 / tau, input_scale=1 / tau, v_th=v_th, reset=reset)
    model = MLP(in_shape=(1, 2, 2), T=STEPS, hidden=(6, 5), num_classes=4, neuron=neuron)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.zero_()
                module.bias.fill_(CURRENT)
    images = ImageSet(torch.rand(40, 1, 2, 2), torch.arange(40) % 4, 4, "flat", peak=1.0)
    found = Activity(limit=None)(model, images)
    return classify(behaviour_of(10.0, 4, found, SETTLED))


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("tau", [1.001, 1.5, 4.0])
def test_a_layer_is_silent_above_the_potential_that_it_can_reach(tau, reset):
    """Without a spike v[T] = I (1 - decay^T), which tends to the fixed point I."""
    top = CURRENT * (1 - (1 - 1 / tau) ** STEPS)
    assert kind_at(1.0001 * top, tau, reset) == "silent"
    assert kind_at(0.9999 * top, tau, reset) != "silent"
    assert kind_at(1.0001 * CURRENT, tau, reset) == "silent"  # for any number of steps


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("tau", [1.001, 1.5, 4.0])
def test_a_layer_is_saturated_below_the_input_of_one_step(tau, reset):
    """A potential that was reset reaches I / tau at once, and fires in every step."""
    assert kind_at(0.9999 * CURRENT / tau, tau, reset) == "saturated"
    assert kind_at(1.0001 * CURRENT / tau, tau, reset) == "at chance"
