"""The results of check(): the comparison of three surrogates, and the properties of neurons."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks.model_access import classify, frozen
from spikeguard.data.datasets import load
from spikeguard.neurons import IF, Triangular
from spikeguard.preflight.surrogates import Compared, compare
from spikeguard.rng import stream
from tests.toys.fitting import drawn, fitted
from tests.toys.foreign_networks import (
    Leaky,
    LIFNode,
    LIFSpike,
    SpikeFunction,
    of_package,
)

pytestmark = pytest.mark.slow

DIGITS = load("digits", test_limit=32)
X, Y = DIGITS.test.batch(slice(None))
NARROW, WIDE = "triangle of half-width 0.5", "triangle of half-width 2"


def network(alpha=4.0):
    node = LIFNode()
    node.surrogate_function = SpikeFunction(alpha)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), node, nn.Linear(32, 10))


@pytest.fixture(scope="module")
def weights():
    net = drawn(network(), 0.2, stream(0, "foreign"))
    fitted(sg.foreign(net, T=4), DIGITS.train.batch(slice(None)), 6, stream(0, "order"))
    return net.state_dict()


def checked(weights, alpha):
    net = network(alpha)
    net.load_state_dict(weights)
    return sg.check(sg.foreign(net, T=4), X, Y)


def test_the_surrogate_of_the_training_needs_no_warning(weights):
    found = checked(weights, 4.0)
    assert list(found.surrogates.left) == ["own", NARROW, WIDE]
    assert found.surrogates.worst <= min(found.surrogates.left.values())
    assert found.warning == ""
    assert "% in the worst of three" in str(found)


def test_a_surrogate_narrowed_after_training_gives_a_warning_and_no_error(weights):
    """Alpha 2000 is a half-width of 0.0009: almost no potential has a gradient."""
    found = checked(weights, 2000.0)
    assert found.warning.startswith("not trustworthy: PGD with 5 steps at eps 0.1 leaves ")
    assert found.warning.endswith("report the worst over surrogates (suite 'snn')")
    assert str(found).endswith(found.warning) and "\n" not in str(found)
    sound = checked(weights, 4.0).surrogates
    for name in (NARROW, WIDE):  # these do not depend on the own surrogate
        assert found.surrogates.left[name] == sound.left[name]
    assert checked(weights, 2000.0) == found


def test_a_difference_within_the_interval_is_no_disagreement():
    found = Compared(eps=0.1, left={"own": 0.75, NARROW: 0.5}, worst=0.5, room=0.25)
    assert found.warning == ""
    assert Compared(0.1, found.left, 0.5, 0.24).warning.startswith("not trustworthy")


class Pixel(nn.Module):
    """Predicts 0 if its one pixel reaches the threshold, else 1."""

    def __init__(self, threshold, width=1.0):
        super().__init__()
        self.threshold, self.neuron = threshold, IF(surrogate=Triangular(width))

    def forward(self, x):
        spike = self.neuron((x.flatten(1) / self.threshold).unsqueeze(0))[0]
        return torch.cat([spike, torch.full_like(spike, 0.5)], 1)


def swept(model):
    x, y = torch.full((4, 1), 0.5), torch.ones(4, dtype=torch.long)

    def logits(images, index):
        with torch.no_grad():
            return classify(model, images, y[index])

    with frozen(model):
        return compare(model, logits, x, y, seed=0)


@pytest.mark.parametrize(
    ("threshold", "eps", "left"), [(0.51, 8 / 255, 0), (0.58, 0.1, 0), (0.7, 0.3, 0), (0.9, 0.3, 1)]
)
def test_the_radius_is_the_first_that_fools_half_of_the_images(threshold, eps, left):
    """A pixel of 0.5 needs eps >= threshold - 0.5, and every surrogate points upwards."""
    found = swept(Pixel(threshold))
    assert (found.eps, found.worst) == (eps, left)
    assert found.left == dict.fromkeys(["own", NARROW, WIDE], left)


def test_the_surrogate_that_the_model_carries_is_not_tried_twice():
    found = swept(Pixel(0.7, 0.5))
    assert list(found.left) == ["own", WIDE, "triangle of half-width 1"]


class Exploding(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad / 0


def test_an_attack_that_fails_gives_a_reason_and_no_error():
    model = Pixel(0.7)
    model.register_forward_pre_hook(lambda module, given: (Exploding.apply(given[0]),))
    assert swept(model) == "attack: the gradient is not finite for 4 of 4 samples."


def test_an_unreadable_surrogate_gives_a_reason_and_no_error():
    node = Leaky()
    own = node.spike_grad

    def picky(x):
        if x.ndim != 2:
            raise RuntimeError("expects [B, N]")
        return own(x)

    node.spike_grad = picky
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), node)
    found = sg.check(drawn(sg.foreign(net, T=4), 0.5, stream(0, "fixed")), X, Y)
    assert found.surrogates == "the surrogate of model.2 cannot be read: expects [B, N]"
    assert found.neurons["model.2"] == {"reset": "soft", "surrogate": None, "fires": None}


@pytest.mark.parametrize("what", ["no known spiking layer", "cannot be exchanged"])
def test_what_has_no_surrogate_to_exchange_is_not_compared(what):
    if "known" in what:
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    else:
        node = Leaky()
        node.fire, node.spike_grad = node.spike_grad, None
        node.forward = lambda x: node.fire(x - 1)
        model = sg.foreign(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), node), T=4)
    found = sg.check(drawn(model, 0.5, stream(0, "fixed")), X, Y)
    assert what in found.surrogates
    assert f"surrogates not compared: {found.surrogates}" in str(found)
    assert "surrogate" not in found.warning


# --- properties of a neuron


def soft():
    node = LIFNode()
    node.v_reset = None
    return node


def with_surrogate(spike):
    node = LIFNode()
    del node.surrogate_function  # a module, which a function cannot replace
    node.surrogate_function = spike
    return node


@of_package("spikingjelly.toy")
class PSN(LIFNode):
    pass


def square(x):
    return SpikeFunction()(x.view(2, 2))


OWN = "SpikingJelly SpikeFunction(alpha=4.0)"
FUNCTION = "SpikingJelly <function square>"


@pytest.mark.parametrize(
    ("node", "reset", "surrogate", "fires"),
    [
        (LIFNode(), "hard", OWN, "v >= v_th"),
        (soft(), "soft", OWN, "v >= v_th"),
        (PSN(), None, OWN, "v >= v_th"),
        (with_surrogate(nn.Sigmoid()), "hard", "SpikingJelly Sigmoid()", None),  # graded
        (with_surrogate(square), "hard", FUNCTION, None),  # takes no other shape; no address
        (Leaky(), "soft", "snnTorch SpikingNeuron, half-width 0.441", "v > v_th"),
        (
            Leaky(reset_mechanism="zero"),
            "hard",
            "snnTorch SpikingNeuron, half-width 0.441",
            "v > v_th",
        ),
        (LIFSpike(), "hard", "LIFSpike act(1.0,)", "v >= v_th"),
    ],
)
def test_the_known_properties_of_a_neuron(node, reset, surrogate, fires):
    (neuron,) = sg.foreign(node, T=4).spiking_layers().values()
    known = {"reset": reset, "surrogate": surrogate, "fires": fires}
    assert neuron.described() == known
    if fires:
        neuron.surrogate = Triangular(2.0)
        assert neuron.described() == known | {"surrogate": "Triangular(width=2.0)"}


def test_the_result_names_every_layer(weights):
    found = checked(weights, 4.0)
    known = {"reset": "hard", "surrogate": OWN, "fires": "v >= v_th"}
    assert found.neurons == found.to_dict()["neurons"] == {"model.2": known}
