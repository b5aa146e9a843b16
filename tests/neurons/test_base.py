"""A neuron of a few lines: ``forward(current)`` works in every network, and so does a decay [T]."""

import pytest
import torch

from spikeguard.kernels.selection import why_not
from spikeguard.models import CNN, MLP, SpikingResNet
from spikeguard.neurons import DLIF, LIF, Neuron, backward_rule, record
from spikeguard.neurons.custom_backward import Analogue, Prescription
from spikeguard.rng import stream

T = 4
DECAYS = torch.tensor([0.9, 0.8, 0.4, 0.6])


class Short(Neuron):
    """LIF as a new contributor writes it: no T, no norm."""

    def forward(self, current):
        return self.fire(current, decay=0.5)


class Fading(Neuron):
    """A leak for every step."""

    def forward(self, current):
        return self.fire(current, decay=DECAYS[: len(current)].to(current.dtype))


class Timed(Neuron):
    """Takes T and no norm."""

    def forward(self, current, *, T=None):
        return self.fire(current, decay=0.5, T=T)


class PassingOn(LIF):
    """Passes all keyword arguments to the base class."""

    def forward(self, current, **options):
        return super().forward(current, **options)


class Grandchild(Short):
    """Passes all keyword arguments to a parent that takes none."""

    def forward(self, current, **options):
        return super().forward(current, **options)


class Forgetful(Neuron):
    """Accepts all keyword arguments and ignores them."""

    def forward(self, current, **options):
        return self.fire(current, decay=0.5)


class Mixin:
    """A forward that a class without Neuron brings along."""

    def forward(self, current):
        return self.fire(current, decay=0.5)


class Mixed(Mixin, Neuron):
    """Takes its forward from the mixin."""


class Squared(LIF):
    """Squares its output: spikes stay equal, but averages of spikes do not."""

    def forward(self, current):
        return super().forward(current) ** 2


class Careless(Squared):
    """Declares wrongly that it returns the kernel's output."""

    returns_spikes = True

    def forward(self, current):
        return super().forward(current)


NETWORKS = {
    "mlp": (lambda neuron: MLP(16, 3, T, hidden=(9,), neuron=neuron), (16,)),
    "cnn": (lambda neuron: CNN(2, 3, T, width=4, hidden=7, image_size=8, neuron=neuron), (2, 8, 8)),
    "resnet": (
        lambda neuron: SpikingResNet(2, 3, T, width=1 / 16, image_size=8, neuron=neuron),
        (2, 8, 8),
    ),
}


def current(*shape):
    return torch.rand(shape, generator=stream(0, "current"), dtype=torch.float64) * 1.5


def results(name, neuron, training):
    """Logits, the gradients of input and weights, and the statistics of a fresh network."""
    make, shape = NETWORKS[name]
    model = make(neuron).train(training)
    x = torch.rand(5, *shape, generator=stream(0, "x")).requires_grad_()
    logits = model(x)
    logits[:, 0].sum().backward()
    return [logits, x.grad, *(p.grad for p in model.parameters()), *model.buffers()]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("short", [Short, Timed, PassingOn, Grandchild, Forgetful, Mixed])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_forward_of_the_current_alone_makes_the_same_network(name, short, training):
    """Equal to rounding: the current is repeated, and no kernel computes the normalisation."""
    found = results(name, short(v_th=0.3), training)
    expected = results(name, LIF(0.5, v_th=0.3), training)
    assert found[0].std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_constant_current_is_repeated_before_it_is_seen():
    x = current(1, 3, 5)
    assert torch.equal(Short()(x, T=T), LIF(0.5)(x, T=T))
    assert torch.equal(Short()(x, T=T), Short()(x.repeat(T, 1, 1)))


def test_spikes_that_a_subclass_changes_are_not_averaged_by_the_kernel():
    """The kernel averages what fire() returns: only where forward() returns just that."""
    assert LIF.returns_spikes and not Squared.returns_spikes and not Short.returns_spikes
    plain, squared, careless = (
        results("cnn", neuron(0.5, v_th=0.3), False)[0] for neuron in (LIF, Squared, Careless)
    )
    torch.testing.assert_close(squared, plain, rtol=1e-4, atol=1e-5)
    if why_not("cpu") is None:
        assert not torch.allclose(careless, plain, rtol=1e-2)


@pytest.mark.parametrize("shape", [(T, 3), (T, 3, 5), (T, 2, 3, 4, 4), (T, T, T)])
def test_one_axis_of_factors_is_one_for_each_step(shape):
    """As the axes written out, also where the last axis is as long; both decay and gate."""
    x, gate = current(*shape), 2 - DECAYS
    spread = (-1, *[1] * (len(shape) - 1))

    def run(decay, gate):
        neuron, leaf = LIF(), x.clone().requires_grad_()
        with record(neuron) as trace:
            neuron.fire(leaf, decay=decay, gate=gate).sum().backward()
        return trace[""].v, leaf.grad

    found = run(DECAYS.double(), gate.double())
    expected = run(DECAYS.double().view(spread), gate.double().view(spread))
    assert all(map(torch.equal, found, expected))


def test_worked_by_hand():
    """0.6, then 0.5 * 0.6 + 0.6 = 0.9, then 0.8 * 0.9 + 0.6 = 1.32 (fires), then 0.6 again."""
    neuron = LIF()
    with record(neuron) as trace:
        neuron.fire(torch.full((4, 1), 0.6), decay=torch.tensor([9.0, 0.5, 0.8, 0.7]))
    assert trace[""].v.flatten().tolist() == pytest.approx([0.6, 0.9, 1.32, 0.6])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_leak_for_every_step_makes_the_network_of_dlif(name):
    dlif = DLIF(T, "leak", decay=1.0, v_th=0.3)
    with torch.no_grad():
        dlif.a.copy_(DECAYS)
    found, expected = results(name, Fading(v_th=0.3), False), results(name, dlif, False)
    torch.testing.assert_close(found[:2], expected[:2], rtol=1e-4, atol=1e-5)


def test_a_rule_sees_one_factor_a_step_too():
    neuron, seen = LIF(), []

    def rule(fired):
        seen.append(fired.decay.shape)
        return Prescription(torch.ones_like(fired.v), temporal=True)

    with backward_rule(neuron, rule):
        neuron.fire(current(T, 3, 5).requires_grad_(), decay=DECAYS).sum().backward()
    assert seen == [(T, 1, 1)]


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("short", [Short, Timed])
def test_as_an_activation_function_it_runs_one_step(short, levels):
    """Equal steps are computed once, so the network of activations costs one step."""
    x, rule = current(1, 3, 5), Analogue(levels)
    outputs = []
    for neuron in (short(), LIF(0.5)):
        with backward_rule(neuron, rule):
            outputs.append(neuron(x, T=T))
    assert outputs[0].shape == (1, 3, 5)
    torch.testing.assert_close(*outputs)


@pytest.mark.parametrize("what", ["decay", "gate"])
def test_a_factor_of_another_length_is_rejected_in_one_line(what):
    """Five neurons and four steps: five numbers are no factor a step."""
    factors = {"decay": torch.tensor(0.5), "gate": None, what: torch.ones(5)}
    message = (
        f"Short: {what} has 5 numbers in one axis, which means one for each step, but there are 4 "
        rf"steps; a {what} for each neuron of the last axis is shaped \[1, 1, 5\]\.$"
    )
    with pytest.raises(ValueError, match=message):
        Short().fire(current(T, 3, 5), **factors)
    with pytest.raises(ValueError, match=message):
        Short().fire(current(1, 3, 5), T=T, **factors)
    with pytest.raises(ValueError, match="must be a scalar or broadcast"):
        Short().fire(current(T, 3, 5), **{**factors, what: torch.ones(3, 5)})
