"""Steps in tuples and lists, time on axis 1, readouts of the network, and steps not counted."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import BPTR, ANNTwin, cross_entropy
from spikeguard.encoders.input_space import InputSpace
from spikeguard.models.spike_counts import count_spikes
from spikeguard.neurons import record
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import AxisOneSpike, Leaky, LIFNode, LIFSpike

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(6) % 3


def made(net):
    return drawn(net, 0.5, stream(0, "readouts")).eval()


class Looping(nn.Module):
    """Loops over time itself and returns its steps."""

    def __init__(self, T, form):
        super().__init__()
        self.layer, self.neuron = nn.Linear(16, 3), Leaky(init_hidden=False)
        self.T, self.form = T, form

    def forward(self, x):
        mem = self.neuron.reset_mem()
        steps = []
        for _ in range(self.T):
            spk, mem = self.neuron(self.layer(x.flatten(1)), mem)
            steps.append(spk)
        return self.form(steps)


@pytest.mark.parametrize("T", [3, 4])
def test_steps_in_a_tuple_are_rejected_and_in_a_list_are_averaged(T):
    expected = torch.stack(made(Looping(T, list))(X)).mean(0)
    assert torch.equal(sg.foreign(made(Looping(T, list)), T=T)(X), expected)
    with pytest.raises(ValueError, match=rf"a tuple of T={T} tensors \[3, 3\]; return the steps"):
        sg.foreign(made(Looping(T, tuple)), T=T)(X)
    first = sg.foreign(made(Looping(T, tuple)), T=T, output=0)
    assert torch.equal(first(X), made(Looping(T, list))(X)[0])


def test_steps_in_a_tuple_are_rejected_without_known_layers():
    class Copies(nn.Linear):
        def forward(self, x):
            return (super().forward(x.flatten(1)),) * 4

    with pytest.raises(ValueError, match="a tuple of T=4 tensors"):
        sg.foreign(made(Copies(16, 3)), T=4)(X)
    sg.foreign(made(Copies(16, 3)), T=5)(X)  # as many as no steps: several outputs


class Paper(nn.Module):
    """Papers' code: [T B, ...] with time folded into the batch, or [B, T, ...]."""

    def __init__(self, T, axis, form):
        super().__init__()
        self.T, self.axis, self.form = T, axis, form
        self.first, self.last = nn.Linear(16, 20), nn.Linear(20, 3)
        self.neuron = LIFSpike() if axis == 0 else AxisOneSpike()

    def forward(self, x):
        x = x.flatten(1)
        x = x.repeat(self.T, 1) if self.axis == 0 else x[:, None].repeat(1, self.T, 1)
        out = self.last(self.neuron(self.first(x)))
        out = out.view(self.T, -1, 3) if self.axis == 0 else out
        return out.mean(self.axis) if self.form == "own" else out


@pytest.fixture
def steps(monkeypatch, request):
    """Runs the toy LIFSpike in another number of steps than its module's T."""

    def use(T):
        monkeypatch.setattr("tests.toys.foreign_networks.T", T)

    return use


@pytest.mark.parametrize("form", ["own", "over time"])
@pytest.mark.parametrize("T", [1, 2, 3, 4])
def test_time_on_axis_one_gives_the_same_as_time_folded_into_the_batch(T, form, steps):
    steps(T)
    models = [sg.foreign(made(Paper(T, axis, form)), T=T).eval() for axis in (0, 1)]
    traces, logits = [], []
    for model in models:
        with record(model) as trace, torch.no_grad():
            logits.append(model(X))
        traces.append(trace["model.neuron"])
        assert model.presentation == "inside"
        assert model.readout == ("own" if form == "own" else "mean")
    torch.testing.assert_close(logits[1], logits[0])
    folded, apart = traces
    assert folded.v.shape == (T, 6, 20)
    torch.testing.assert_close(apart.v.reshape(folded.v.shape), folded.v)
    assert torch.equal(apart.spikes.reshape(folded.v.shape), folded.spikes)
    for rule in (BPTR(), ANNTwin()):
        one, two = (rule(model, X, Y, cross_entropy)[1] for model in models)
        torch.testing.assert_close(two, one)


@pytest.mark.parametrize("form", ["own", "over time"])
@pytest.mark.parametrize(("T", "wrong"), [(2, 1), (3, 1), (4, 1), (4, 8), (3, 2)])
def test_time_on_axis_one_is_counted(T, wrong, form):
    with pytest.raises(ValueError, match=f"makes {T} steps itself; pass T={T}, got {wrong}"):
        sg.foreign(made(Paper(T, 1, form)), T=wrong)(X)


@pytest.mark.parametrize("images", [1, 3, 4])
def test_a_batch_of_any_size_is_recorded_and_counted_in_both_layouts(images, steps):
    steps(4)
    for axis in (0, 1):
        model = sg.foreign(made(Paper(4, axis, "own")), T=4, example=X).eval()
        with record(model) as trace, torch.no_grad():
            model(X[:images])
        assert trace["model.neuron"].v.shape == (4, images, 20)
        with count_spikes(model) as counted, torch.no_grad():
            model(X[:images])
        spikes = trace["model.neuron"].spikes
        found = counted["model.neuron"]
        assert torch.equal(found.spikes.long(), spikes.sum(2).long())


class Events(nn.Module):
    """Event frames [B, T, 2, 4, 4] of papers' code with time on axis 1."""

    def __init__(self):
        super().__init__()
        self.first, self.neuron, self.last = nn.Linear(32, 9), AxisOneSpike(), nn.Linear(9, 3)

    def forward(self, x):
        return self.last(self.neuron(self.first(x.flatten(2))))


@pytest.mark.parametrize("T", [2, 3, 4])
def test_event_frames_with_time_on_axis_one_are_not_turned_round(T):
    """Every step is linear after the spikes, so the logits are the mean over axis 1."""
    x = (torch.rand(5, T, 2, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    net = made(Events())
    model = sg.foreign(net, T=T, space=InputSpace(whole=True, temporal=True)).eval()
    torch.testing.assert_close(model(x), net(x).mean(1))
    assert model.presentation == "inside"


class Sequence(nn.Module):
    """Takes [T, B, ...] and averages over time itself."""

    def __init__(self, form=lambda out: out.mean(0)):
        super().__init__()
        self.layer, self.neuron, self.form = nn.Linear(16, 3), LIFNode("m"), form

    def forward(self, x):
        return self.form(self.neuron(self.layer(x.flatten(2))))


class LoopingSequence(Sequence):
    """The same as a loop over the first axis, with a neuron of one step."""

    def __init__(self):
        super().__init__()
        self.neuron = LIFNode()

    def forward(self, x):
        return self.form(torch.stack([self.neuron(self.layer(step.flatten(1))) for step in x]))


@pytest.mark.parametrize("kind", [Sequence, LoopingSequence])
@pytest.mark.parametrize("T", [1, 2, 3, 4])
def test_a_sequence_may_have_its_own_readout(kind, T):
    net = made(kind())
    expected = net(X.expand(T, *X.shape))
    model = sg.foreign(net, T=T).eval()
    assert torch.equal(model(X), expected)
    if T > 1:
        assert (model.presentation, model.readout) == ("sequence", "own")


def test_a_sequence_of_steps_in_a_tuple_is_rejected():
    with pytest.raises(ValueError, match="a tuple of T=4 tensors"):
        sg.foreign(made(Sequence(lambda out: tuple(out))), T=4)(X)


def test_steps_that_cannot_be_counted_are_named():
    """A loop of 4 steps of plain torch is not noticed at T = 9; the check names it."""

    class Loop(nn.Linear):
        def forward(self, x):
            v = out = 0.0
            for _ in range(4):
                v = 0.8 * v + super().forward(x.flatten(1))
                out = out + torch.sigmoid(5 * (v - 1))
            return out / 4

    x = torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    y = torch.arange(32) % 3
    unknown = sg.check(sg.foreign(made(Loop(16, 3)), T=9), x, y)
    assert "T 9, presentation inside, readout own, steps not counted:" in str(unknown)
    assert "not counted" not in str(sg.check(sg.foreign(made(Sequence()), T=4), x, y))
