"""Foreign networks as classifiers, on toys that follow each framework's conventions."""

import copy

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import SwapSurrogate, cross_entropy
from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.models.adapters.foreign_neuron import ForeignError
from spikeguard.models.adapters.frameworks.surrogate import Native
from spikeguard.models.adapters.recognition import recognised
from spikeguard.neurons import IF, LIF, Sigmoid, Triangular, backward_mode, record, spiking_layers
from spikeguard.rng import stream
from tests.toys.fitting import drawn, twin
from tests.toys.foreign_networks import (
    Leaky,
    LIFNode,
    LIFSpike,
    MisnamedLIFNode,
    OldNode,
    Step,
    T,
    of_package,
)

IMAGES, CLASSES = 6, 3


class Paper(nn.Module):
    """Changes the shape of its argument in place, and returns [T, B, K]."""

    def __init__(self, own_readout=False):
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(16, 20), LIFSpike(), nn.Linear(20, CLASSES)
        self.own_readout = own_readout

    def forward(self, x):
        x.unsqueeze_(0)
        x = x.repeat(T, *[1] * (x.ndim - 1)).flatten(0, 1).flatten(1)
        out = self.last(self.neuron(self.first(x)))
        out = out.view(T, -1, CLASSES)
        return out.mean(0) if self.own_readout else out


class Explicit(nn.Module):
    """Resets its hidden states, loops over time itself, and returns (spikes, potentials)."""

    def __init__(self):
        super().__init__()
        self.first, self.neuron = nn.Linear(16, 20), Leaky(init_hidden=False)
        self.last, self.out = nn.Linear(20, CLASSES), Leaky(init_hidden=False)

    def forward(self, x):
        one, two = self.neuron.reset_mem(), self.out.reset_mem()
        spikes, potentials = [], []
        for _ in range(T):
            s, one = self.neuron(self.first(x.flatten(1)), one)
            s, two = self.out(self.last(s), two)
            spikes.append(s)
            potentials.append(two)
        return torch.stack(spikes), torch.stack(potentials)


def seeded(model, scale=2.0):
    """Draw weights that make neurons fire, from a named stream."""
    return drawn(model, scale / 4, stream(0, "toy")).eval()


def layers(neuron, flatten=1):
    return seeded(nn.Sequential(nn.Flatten(flatten), nn.Linear(16, 20), neuron, nn.Linear(20, 3)))


def images():
    generator = stream(0, "images")
    x = torch.rand(IMAGES, 1, 4, 4, generator=generator)
    return x, torch.arange(IMAGES) % CLASSES


NETWORKS = {
    "spikingjelly, single-step": (lambda: layers(LIFNode()), "spikingjelly", "steps"),
    "spikingjelly, multi-step": (lambda: layers(LIFNode("m"), 2), "spikingjelly", "sequence"),
    "spikingjelly, old": (lambda: layers(OldNode()), "spikingjelly", "steps"),
    "snntorch, hidden": (lambda: layers(Leaky()), "snntorch", "steps"),
    "snntorch, zero": (lambda: layers(Leaky(reset_mechanism="zero")), "snntorch", "steps"),
    "snntorch, explicit": (lambda: seeded(Explicit()), "snntorch", "inside"),
    "paper": (lambda: seeded(Paper()), "stateless", "inside"),
}


@pytest.fixture(params=NETWORKS)
def case(request):
    make, framework, presentation = NETWORKS[request.param]
    return make(), framework, presentation


def test_the_framework_and_the_presentation_are_found(case):
    net, framework, presentation = case
    model = sg.foreign(net, T=T, example=images()[0])
    assert (model.framework, model.presentation, model.readout) == (framework, presentation, "mean")
    shown = repr(model)
    assert f"framework='{framework}', T=4, presentation='{presentation}', readout='mean'" in shown


@pytest.mark.slow
def test_calls_agree_to_the_bit_whatever_came_before(case):
    model, (x, _) = sg.foreign(case[0], T=T).eval(), images()
    first = model(x)
    model(1 - x[:2])
    assert torch.equal(model(x), first)
    torch.testing.assert_close(torch.cat([model(x[i : i + 1]) for i in range(IMAGES)]), first)
    first.sum().backward()
    model(x).sum().backward()  # a leaked state would belong to a freed graph


def test_the_model_is_left_as_it_was(case):
    net, (x, _) = case[0], images()
    model = sg.foreign(net, T=T).train()
    before = copy.deepcopy(
        {n: {k: v for k, v in vars(m).items() if k[0] != "_"} for n, m in net.named_modules()}
    )
    states = copy.deepcopy([m._memories for m in net.modules() if hasattr(m, "_memories")])
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    with backward_mode(model, Triangular(0.5)):
        model(x).sum().backward()
    for name, module in net.named_modules():
        after = {k: v for k, v in vars(module).items() if k[0] != "_"}
        assert after.keys() == before[name].keys()
        assert all(after[k] is v or after[k] == v for k, v in before[name].items() if k != "act")
    assert states == [m._memories for m in net.modules() if hasattr(m, "_memories")]
    assert all(torch.equal(b, buffers[n]) for n, b in net.named_buffers())
    copy.deepcopy(model)


def test_another_surrogate_changes_the_gradient_and_not_the_logits(case):
    model, (x, y) = sg.foreign(case[0], T=T).eval(), images()
    losses, own = BACKPROP(model, x, y, cross_entropy)
    for surrogate in (Triangular(2.0), 3.0):
        swapped, grad = SwapSurrogate(surrogate)(model, x, y, cross_entropy)
        assert torch.equal(swapped, losses)
        assert not torch.allclose(grad, own)
    # its own surrogate is a sigmoid of sharpness 4: the same of SpikeGuard changes nothing
    _, same = SwapSurrogate(Sigmoid(4.0))(model, x, y, cross_entropy)
    torch.testing.assert_close(same, own, rtol=1e-4, atol=1e-7)
    _, again = BACKPROP(model, x, y, cross_entropy)
    assert torch.equal(again, own)
    assert own.abs().amax() > 0


def test_membranes_are_recorded(case):
    model, (x, _) = sg.foreign(case[0], T=T).eval(), images()
    x.requires_grad_()
    with record(model) as trace:
        model(x)
    assert list(trace) == list(spiking_layers(model))
    for layer in trace.values():
        assert layer.v.shape[:2] == (T, IMAGES)
        assert torch.equal((layer.v >= layer.v_th).float(), layer.spikes)
    assert 0 < next(iter(trace.values())).spikes.detach().mean() < 1
    (grad,) = torch.autograd.grad(next(iter(trace.values())).v.square().mean(), x)
    assert grad.abs().amax() > 0


def test_a_spikingjelly_network_equals_the_same_network_of_spikeguard():
    """Hard reset, tau 2, input not scaled: decay 1/2. Logits, potentials and gradients agree."""
    net, (x, y) = layers(LIFNode()), images()
    theirs = sg.foreign(net, T=T).eval()
    neuron = LIF(0.5, surrogate=Sigmoid(4.0))
    ours = twin(net, neuron, in_features=16, hidden=(20,), T=T, in_shape=(1, 4, 4))
    with record(theirs) as a, record(ours) as b:
        torch.testing.assert_close(theirs(x), ours(x))
    (theirs_seen,), (ours_seen,) = a.values(), b.values()
    torch.testing.assert_close(theirs_seen.v, ours_seen.v)
    torch.testing.assert_close(theirs_seen.u, ours_seen.u)
    for one, two in zip(
        BACKPROP(theirs, x, y, cross_entropy), BACKPROP(ours, x, y, cross_entropy), strict=True
    ):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("readout", ["mean", "sum", "last", "max"])
def test_readouts(readout):
    net, (x, _) = seeded(Paper()), images()
    out = net(x.clone())
    known = {"mean": out.mean(0), "sum": out.sum(0), "last": out[-1], "max": out.amax(0)}
    assert torch.equal(sg.foreign(net, T=T, readout=readout)(x), known[readout])


def test_another_output_of_a_tuple():
    net, (x, _) = seeded(Explicit()), images()
    spikes, potentials = net(x)
    model = sg.foreign(net, T=T, readout="max", output=1)
    torch.testing.assert_close(model(x), potentials.amax(0))
    torch.testing.assert_close(sg.foreign(net, T=T)(x), spikes.mean(0))


def test_a_network_with_its_own_readout():
    net, (x, _) = seeded(Paper(own_readout=True)), images()
    model = sg.foreign(net, T=T)
    torch.testing.assert_close(model(x), net(x.clone()))
    assert "readout='own'" in repr(model)
    with pytest.raises(ValueError, match="readout='sum' would change nothing, leave it out"):
        sg.foreign(net, T=T, readout="sum", example=x)


def test_normalisation_is_inside():
    net, (x, _) = seeded(Paper()), images()
    plain, model = sg.foreign(net, T=T), sg.foreign(net, T=T, mean=[0.5], std=[0.25])
    torch.testing.assert_close(model(x), plain((x - 0.5) / 0.25))
    assert set(model.state_dict()) == {f"model.{name}" for name in net.state_dict()}


def test_the_input_is_left_unchanged_although_the_network_changes_its_argument():
    model, (x, _) = sg.foreign(seeded(Paper()), T=T), images()
    before = x.clone()
    model(x)
    assert torch.equal(x, before)


class FramesOnly(nn.Module):
    """Accepts only [T, B, ...]."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, CLASSES)

    def forward(self, x):
        if len(x) != T:
            raise RuntimeError("no time axis")
        return self.layer(x.flatten(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sg.foreign(layers(LIFNode()), T=0), "T must be >= 1 time steps, got 0"),
        (lambda: sg.foreign(3, T=4), "expects an nn.Module, got int"),
        (lambda: sg.foreign(layers(LIFNode()), T=4, readout="rate"), "readout is one of 'mean'"),
        (lambda: sg.foreign(layers(LIFNode()), T=4, framework="x"), "unknown framework 'x'; known"),
        (lambda: sg.foreign(layers(LIFNode()), T=4, framework="norse"), "no module of norse"),
        (lambda: sg.foreign(layers(LIFNode()), T=4, presentation="x"), "presentation is one of"),
        (lambda: sg.foreign(layers(LIFNode()), T=4, mean=[0.5]), "mean and std come together"),
        (lambda: sg.foreign(layers(LIFNode()), T=4, mean=[0.5], std=[0.0]), "std > 0"),
        (
            lambda: sg.foreign(nn.Sequential(LIFNode(), Leaky()), T=4),
            "mixes spikingjelly and snntorch",
        ),
        (
            lambda: sg.foreign(seeded(Paper()), T=5, example=images()[0]),
            "the model makes 4 steps itself; pass T=4, got 5",
        ),
        (
            lambda: sg.foreign(layers(LIFNode()), T=4, output=1, example=torch.zeros(2, 7)),
            r"cannot be shown images \[7\] in T=4 steps \(.*\); check their shape, and T",
        ),
        (
            lambda: sg.foreign(seeded(Explicit()), T=4, output=2, example=images()[0]),
            "could not be driven .*the model returns 2 outputs, got element=2",
        ),
        (
            lambda: sg.foreign(FramesOnly(), T=4, presentation="inside", example=images()[0]),
            "could not be driven in T=4 steps .* pass presentation= one of 'sequence'",
        ),
        (
            lambda: sg.foreign(layers(LIFNode()), T=4)(torch.zeros(2, 16, dtype=torch.int64)),
            "floating-point inputs in",
        ),
    ],
)
def test_wrong_uses_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_framework_with_states_is_not_taken_for_stateless():
    class Other(nn.Linear):
        def reset_states(self):
            pass

    with pytest.raises(ValueError, match=r"0 \(Other\) has reset_states\(\) but is of no known"):
        recognised(nn.Sequential(Other(2, 2)), "auto")
    assert recognised(nn.Sequential(Other(2, 2)), "stateless") == "stateless"


def test_a_recurrence_that_gives_other_spikes_is_rejected():
    model, (x, _) = sg.foreign(layers(MisnamedLIFNode()), T=T), images()
    with record(model), pytest.raises(ForeignError, match="gives other spikes than the layer did"):
        model(x)


def test_an_unknown_neuron_cannot_be_recorded_but_attacked():
    class PSN(LIFNode):
        pass

    model, (x, y) = sg.foreign(layers(of_package("spikingjelly.toy")(PSN)()), T=T).eval(), images()
    with record(model), pytest.raises(ForeignError, match="only IFNode, LIFNode and Parametric"):
        model(x)
    assert BACKPROP(model, x, y, cross_entropy)[1].abs().amax() > 0


def test_native_surrogates_have_the_surrogate_interface():
    own = Native("sigmoid", lambda x: Step.apply(x, 4.0, False))
    x = torch.linspace(-2, 2, 41)
    torch.testing.assert_close(own(x), Sigmoid(4.0)(x))
    torch.testing.assert_close(own.widened(2)(x), Sigmoid(2.0)(x))
    assert own.half_width == pytest.approx(Sigmoid(4.0).half_width, abs=1e-3)
    assert own.widened(2).half_width == pytest.approx(Sigmoid(2.0).half_width, abs=2e-3)
    assert own.widened(2) != own
    assert Native("none", lambda x: (x > 0).float())(x).abs().amax() == 0
    with pytest.raises(ValueError, match="factor must be positive"):
        own.widened(0)


def test_spikeguard_neurons_inside_a_foreign_network_are_found_too():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.neuron, self.last = nn.Linear(16, 20), IF(), nn.Linear(20, CLASSES)

        def forward(self, x):
            current = self.first(x.flatten(1))
            return self.last(self.neuron(current.expand(T, *current.shape)))

    model, (x, y) = sg.foreign(seeded(Folded()), T=T).eval(), images()
    assert list(spiking_layers(model)) == ["model.neuron"]
    wide = SwapSurrogate(Triangular(3.0))(model, x, y, cross_entropy)[1]
    assert not torch.equal(wide, BACKPROP(model, x, y, cross_entropy)[1])


# --- the checks before an attack


def test_a_sound_model_passes_and_says_how_it_is_driven(case):
    net, framework, presentation = case
    x, y = images()
    found = sg.check(sg.foreign(net, T=T), x, y)
    assert found.driven == {
        "framework": framework,
        "T": T,
        "presentation": presentation,
        "readout": "mean",
    }
    assert found.samples == IMAGES
    assert found.along_gradient > found.along_random
    assert found.graded == ()
    assert f"framework {framework}, T 4" in str(found)


class Leaking(nn.Module):
    """Keeps state from earlier calls."""

    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(16, CLASSES), 0.0

    def forward(self, x):
        self.seen = self.seen + self.layer(x.flatten(1)).detach().mean()
        return self.layer(x.flatten(1)) + self.seen * torch.arange(3)


class Sampled(nn.Linear):
    """Draws input spikes from torch's global generator."""

    def forward(self, x):
        return super().forward(torch.bernoulli(x.detach().flatten(1)) + 0 * x.flatten(1))


class NoGradient(nn.Linear):
    def forward(self, x):
        return super().forward(x.detach().flatten(1))


class ZeroGradient(nn.Linear):
    def forward(self, x):
        return super().forward((x.detach() + 0 * x).flatten(1))


class WrongGradient(nn.Linear):
    """Its gradient is that of a function other than the one it computes."""

    def forward(self, x):
        x = x.flatten(1)
        return super().forward(2 * x.detach() - x)


class Coupled(nn.Linear):
    def forward(self, x):
        x = x.flatten(1)
        return super().forward(x - x.mean(0))


class Training(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(16), nn.Linear(16, CLASSES)

    def forward(self, x):
        self.norm.train()
        return self.layer(self.norm(x.flatten(1)))


class Writing(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.layer = nn.Linear(16, CLASSES)

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers(LIFNode()), "states of the first call leak into the second"),
        (Leaking, "states of the first call leak into the second"),
        (lambda: Sampled(16, 3), "draws from torch's global generator"),
        (lambda: NoGradient(16, 3), "no gradient reaches the input"),
        (lambda: ZeroGradient(16, 3), "the input gradient is exactly zero for every image"),
        (lambda: WrongGradient(16, 3), "the gradient is not that of the loss"),
        (lambda: Coupled(16, 3), "change when they are shown alone"),
        (Training, "a BatchNorm1d runs in training mode"),
        (Writing, r"change the model \(calls\)"),
    ],
)
def test_every_fault_is_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        sg.check(seeded(make()), *images())


def test_a_mode_switched_in_the_trial_is_named_and_the_statistics_stay():
    network = seeded(Training())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"^check: a BatchNorm1d runs in training mode") as error:
        sg.check(sg.foreign(network, T=T), *images())
    assert str(error.value).endswith("switch no mode inside forward.")
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)


def test_another_batch_size_that_breaks_a_state_is_a_leak():
    class Rigid(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.v = nn.Linear(16, CLASSES), None

        def forward(self, x):
            z = self.layer(x.flatten(1))
            if self.v is not None:
                raise RuntimeError("sizes differ")
            self.v = z
            return z

    with pytest.raises(ValueError, match=r"the second call raises \(sizes differ\)"):
        sg.check(seeded(Rigid()), *images())


def test_graded_spikes_are_named():
    node = LIFNode()
    fire = node.single
    node.single = lambda x: 2 * fire(x)
    found = sg.check(sg.foreign(layers(node), T=T), *images())
    assert found.graded == ("model.2",)


def test_one_image_is_too_few():
    x, y = images()
    with pytest.raises(ValueError, match="needs at least 2 images"):
        sg.check(seeded(Paper()), x[:1], y[:1])
