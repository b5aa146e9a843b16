"""States that a step takes and returns, and layers that a step uses twice: equal to a loop."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.models.adapters.foreign_neuron import ForeignError
from spikeguard.models.adapters.step_state import StateArguments
from spikeguard.neurons import record
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import Leaky, LIFNode, SNNCell

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))


class Membrane(nn.Module):
    """forward(x, mem) -> (spk, mem), as in snnTorch's tutorials."""

    def __init__(self):
        super().__init__()
        self.layer, self.neuron = nn.Linear(16, 3), Leaky(init_hidden=False)

    def forward(self, x, mem=None):
        if mem is None:
            mem = self.neuron.reset_mem()
        return self.neuron(self.layer(x.flatten(1)), mem)


class Synapse(Membrane):
    """forward(x, syn, mem) -> (spk, syn, mem)."""

    def forward(self, x, syn=None, mem=None):
        if mem is None:
            syn, mem = 0, self.neuron.reset_mem()
        syn = 0.5 * syn + self.layer(x.flatten(1))
        spk, mem = self.neuron(syn, mem)
        return spk, syn, mem


class Keyword(Membrane):
    """Takes its state by name only, among options."""

    def forward(self, x, verbose=False, *, mem=None, steps=25):
        assert verbose is False and steps == 25
        return super().forward(x, mem)


class Variadic(Synapse):
    """Takes any number of states."""

    def forward(self, x, *state):
        return super().forward(x, *state)


class Plain(nn.Module):
    """forward(x, state) -> (out, (v,)) without a known spiking layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x, state=None):
        v = 0.0 if state is None else state[0]
        v = 0.9 * v + self.layer(x.flatten(1))
        return torch.sigmoid(5 * (v - 1)), (v,)


class PlainNumber(Plain):
    """The same with a tensor for a state, and 0 as the state at rest."""

    def forward(self, x, v=0.0):
        out, (v,) = super().forward(x, (v,))
        return out, v


class Twice(nn.Module):
    """Uses a neuron without states twice in one step."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.neuron = nn.Linear(16, 12), nn.Linear(12, 3), SNNCell()

    def forward(self, x, state=None):
        one, two = state or (None, None)
        z, one = self.neuron(self.first(x.flatten(1)), one)
        out, two = self.neuron(self.last(z), two)
        return out, (one, two)


STEPS = [Membrane, Synapse, Keyword, Variadic, Plain, PlainNumber, Twice]


def made(kind):
    return drawn(kind(), 0.8, stream(0, "states")).eval()


def looped(net, x, T):
    """The mean over T steps by hand, with the states passed on by name where they have one."""
    out, *states = net(x)
    outs = [out]
    for _ in range(T - 1):
        named = isinstance(net, Keyword)
        out, *states = net(x, mem=states[0]) if named else net(x, *states)
        outs.append(out)
    return torch.stack(outs).mean(0)


@pytest.mark.parametrize("T", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", STEPS)
def test_states_that_a_step_returns_are_passed_back(kind, T):
    net = made(kind)
    expected = looped(net, X, T)
    model = sg.foreign(net, T=T).eval()
    assert torch.equal(model(X), expected)
    assert (model.presentation, model.readout) == ("steps", "mean")
    assert torch.equal(model.present(X.expand(T, *X.shape)), expected)
    if T > 1:
        assert not torch.equal(expected, looped(net, X, 1))  # a lost state would be seen


class Loop(Twice):
    """Loops over time itself, and takes and returns the states of the last step."""

    def forward(self, x, state=None):
        outs = []
        for _ in range(4):
            out, state = super().forward(x, state)
            outs.append(out)
        return torch.stack(outs).mean(0), state


def test_a_loop_that_takes_a_state_is_still_a_loop():
    """Its layers with weights run in every step, not once."""
    with pytest.raises(ValueError, match=r"makes 8 steps itself.* pass presentation='steps'\.$"):
        sg.foreign(made(Loop), T=4)(X)

    class Once(Loop):
        def forward(self, x, state=None):
            outs = []
            for _ in range(4):
                out, state = self.neuron(self.last(self.first(x.flatten(1))), state)
                outs.append(out)
            return torch.stack(outs).mean(0), state

    net = made(Once)
    model = sg.foreign(net, T=4)
    assert torch.equal(model(X), net(X)[0])
    assert (model.presentation, model.readout) == ("inside", "own")
    with pytest.raises(ValueError, match="makes 4 steps itself; pass T=4, got 8"):
        sg.foreign(net, T=8)(X)


class Shown(nn.Module):
    """Keeps its states itself, and returns all membranes for a plot."""

    def __init__(self, *, as_list):
        super().__init__()
        self.first, self.one = nn.Linear(16, 12), LIFNode()
        self.last, self.two, self.as_list = nn.Linear(12, 3), LIFNode(), as_list

    def forward(self, x):
        out = self.two(self.last(self.one(self.first(x.flatten(1)))))
        seen = [layer._memories["v"] for layer in (self.one, self.two)]
        return (out, seen) if self.as_list else (out, *seen)


@pytest.mark.parametrize("as_list", [True, False])
def test_membranes_returned_for_a_plot_are_not_passed_to_a_step_that_takes_none(as_list):
    net = drawn(Shown(as_list=as_list), 0.5, stream(0, "states")).eval()
    outs = [net(X)[0] for _ in range(4)]
    model = sg.foreign(net, T=4).eval()
    assert torch.equal(model(X), torch.stack(outs).mean(0))
    assert (model.presentation, model.readout) == ("steps", "mean")


def test_fewer_states_than_are_taken_are_refused():
    class Half(Synapse):
        def forward(self, x, syn=None, mem=None):
            spk, _, mem = super().forward(x, syn, mem)
            return spk, mem

    with pytest.raises(ValueError, match=r"takes the states syn, mem but returns 1 after its outp"):
        sg.foreign(made(Half), T=4)(X)
    assert torch.equal(sg.foreign(made(Half), T=1)(X), made(Half)(X)[0])


def test_options_of_forward_are_no_states():
    class Net(nn.Module):
        def forward(self, x, steps=4, mode="a", flag=False, beta=0.9, mem=None, v=0, s=()):
            pass

    assert StateArguments.of(Net()).names == ("mem", "v", "s")
    assert not StateArguments.of(Net()).any_number
    assert StateArguments.of(nn.Linear(2, 2)) == StateArguments()


def test_a_loss_that_is_none_is_no_state():
    class Labelled(nn.Linear):
        def forward(self, x, y=None):
            out = super().forward(x.flatten(1))
            return out, None if y is None else nn.functional.cross_entropy(out, y)

    net = made(lambda: Labelled(16, 3))
    model = sg.foreign(net, T=4)
    assert torch.equal(model(X), net(X)[0])
    assert model.presentation == "inside"


def test_a_neuron_used_twice_in_a_step_is_not_recorded():
    """Its calls are of two layers of 12 and of 3 neurons."""
    model = sg.foreign(made(Twice), T=4).eval()
    with record(model), pytest.raises(ForeignError, match="neuron is called 8 times in T=4 steps"):
        model(X)
