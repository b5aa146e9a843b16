"""The audit of foreign networks."""

import pytest
from torch import nn

import spikeguard as sg
from spikeguard.auditing import Context
from spikeguard.auditing.registry import CHECKS
from spikeguard.data.datasets import load
from spikeguard.rng import stream
from tests.toys.fitting import drawn, fitted
from tests.toys.foreign_networks import Leaky, LIFNode, MisnamedLIFNode, SpikeFunction, Step

pytestmark = pytest.mark.slow

DIGITS = load("digits", test_limit=32)
X, Y = DIGITS.test.batch(slice(None))
EPS = 0.1


def of_spikingjelly(alpha):
    node = LIFNode()
    node.surrogate_function = SpikeFunction(alpha)
    return node


def of_snntorch(alpha):
    node = Leaky()
    node.spike_grad = lambda x: Step.apply(x, alpha, True)
    return node


def network(node):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), node, nn.Linear(32, 10))


@pytest.fixture(
    scope="module",
    params=[of_spikingjelly, pytest.param(of_snntorch, marks=pytest.mark.long)],
    ids=lambda f: f.__name__,
)
def trained(request):
    """Return a factory of neurons by surrogate, and weights trained with alpha 4."""
    net = drawn(network(request.param(4.0)), 0.2, stream(0, "foreign"))
    fitted(sg.foreign(net, T=4), DIGITS.train.batch(slice(None)), 6, stream(0, "order"))
    return request.param, net.state_dict()


def adapted(trained, alpha=4.0):
    node, weights = trained
    net = network(node(alpha))
    net.load_state_dict(weights)
    return sg.foreign(net.eval(), T=4).eval()


def test_no_fault_is_found_in_a_sound_network(trained):
    whole = load("digits").test
    verdict = sg.audit(adapted(trained), whole, threat=sg.Linf(EPS), budget="quick")
    assert verdict.status == "no fault found", verdict.table()
    said = {found.code: found.status for found in verdict.findings}
    assert {said[code] for code in ("S4", "S7", "S12", "G15")} == {"pass"}


def test_a_surrogate_narrowed_after_training_hides_the_gradient(trained):
    """Alpha 2000 is a half-width of 0.0009: snnTorch's arctangent has long tails."""
    verdict = sg.audit(
        adapted(trained, 2000.0), (X, Y), threat=sg.Linf(EPS), limit=128, budget="quick"
    )
    assert verdict.status == "faulty", verdict.table()
    assert "S4" in verdict.failed
    assert "too narrow for this network's potentials" in verdict.sentence


def test_the_twin_needs_layers_of_a_known_recurrence_or_leaves_the_question_open():
    for node, known in ((LIFNode(), True), (MisnamedLIFNode(), False)):
        net = drawn(network(node), 0.5, stream(0, "twin"))
        subject = Context(sg.foreign(net, T=4).eval(), X, Y, sg.Linf(EPS))
        found = CHECKS["S14"](subject)
        assert (found.status != "not run") == known
        assert ("cannot be recorded" in found.measured) != known
        assert ("its twin" in CHECKS["G3"](subject).measured) == known
        assert ("BPTR" in CHECKS["S5"](subject).measured) == known


@pytest.mark.parametrize(
    ("alpha", "status"),
    [pytest.param(4.0, "pass", marks=pytest.mark.long), (2000.0, "fail")],
)
def test_assg_asks_foreign_layers_whether_their_own_gradient_is_the_weaker_one(
    trained, alpha, status
):
    more = load("digits", test_limit=240).test.batch(slice(None))
    found = CHECKS["S5"](Context(adapted(trained, alpha), *more, sg.Linf(EPS)))
    assert found.status == status, found.measured
    assert "ASSG" in found.measured and "BPTR" in found.measured


def test_potentials_that_cannot_be_recorded_do_not_stop_the_required_checks():
    net = drawn(network(MisnamedLIFNode()), 0.2, stream(0, "foreign"))
    subject = Context(sg.foreign(net, T=4).eval(), X, Y, sg.Linf(EPS))
    assert CHECKS["G15"](subject).status in ("pass", "fail")
    with pytest.raises(RuntimeError, match="potentials cannot be recorded"):
        CHECKS["S7"](subject)  # audit() makes that "not run"


def test_every_layer_of_another_framework_is_watched():
    net = nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 32), LIFNode()),
        *(nn.Linear(32, 16), LIFNode(), nn.Linear(16, 10)),
    )
    subject = Context(sg.foreign(net, T=4).eval(), X, Y, sg.Linf(EPS))
    assert CHECKS["S12"](subject).evidence["layers"] == 2
    assert set(CHECKS["S8"](subject).evidence["norms"]) == {"model.2", "model.4"}


class OwnSpikes(nn.Module):
    """A spiking layer of no framework."""

    def forward(self, x):
        return Step.apply(x - 0.2, 4.0, False)


@pytest.mark.parametrize("own", [True, False])
def test_a_sweep_that_misses_a_spiking_layer_is_incomplete(own):
    middle = OwnSpikes() if own else LIFNode()
    layers = (nn.Flatten(), nn.Linear(64, 32), LIFNode(), nn.Linear(32, 32), middle)
    model = drawn(sg.foreign(nn.Sequential(*layers, nn.Linear(32, 10)), T=4), 0.4, stream(0, "own"))
    labels = model.eval()(X).argmax(1)
    context = Context(model, X, labels, sg.Linf(0.01), budget="quick", steps=2)
    found = CHECKS["S4"](context)
    assert (found.status == "not run") == own, found
    if own:
        assert "incomplete: model.4 (OwnSpikes) emits spikes" in found.measured
