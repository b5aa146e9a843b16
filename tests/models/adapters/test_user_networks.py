"""Networks as users bring them: other types, wrappers, writes to the argument, and their errors."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import SwapSurrogate, cross_entropy
from spikeguard.models.adapters.presentation import ImagesRefused
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import Leaky, LIFNode, LIFSpike, T

ATTACKS = {"pgd": sg.attacks.PGD(sg.attacks.Linf(0.1), steps=2)}
X = torch.rand(24, 1, 4, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 3


class Frames(nn.Module):
    """A spiking layer in multi-step mode: takes [T, B, ...]."""

    def __init__(self):
        super().__init__()
        self.layer, self.neuron, self.head = nn.Linear(16, 12), LIFNode("m"), nn.Linear(12, 3)

    def forward(self, x):
        return self.head(self.neuron(self.layer(x.flatten(2))))


class Paper(nn.Module):
    """A loop over time inside."""

    def __init__(self):
        super().__init__()
        self.layer, self.neuron, self.head = nn.Linear(16, 12), LIFSpike(), nn.Linear(12, 3)

    def forward(self, x):
        x = self.layer(x.flatten(1)).repeat(T, 1)
        return self.head(self.neuron(x)).view(T, -1, 3)


def steps(neuron):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), neuron, nn.Linear(12, 3))


KINDS = {
    "spikingjelly, single": lambda: steps(LIFNode()),
    "spikingjelly, multi": Frames,
    "snntorch": lambda: steps(Leaky()),
    "paper": Paper,
}


@pytest.fixture(params=KINDS)
def make(request):
    """Makes the same network of one kind at every call."""
    return lambda: drawn(KINDS[request.param](), 2.0, stream(0, "user")).eval()


def adapted(net, **options):
    return sg.foreign(net, T=T, **options).eval()


def outcomes(model, x=X, y=Y):
    return sg.evaluate(model, (x, y), ATTACKS).outcomes


def test_a_float64_network_is_treated_alike_by_check_and_evaluate(make):
    net = make()
    expected = adapted(net)(X).double()
    model = adapted(net.double())
    for x in (X, X.double()):
        assert model(x).dtype == torch.float64
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-4)
        found = sg.check(model, x, Y)
        assert found.accuracy == float((model(X).argmax(1) == Y).double().mean())
        assert outcomes(model, x)["clean"].mean() == found.accuracy


def test_float64_images_do_not_change_the_result(make):
    model = adapted(make())
    assert sg.check(model, X, Y) == sg.check(model, X.double(), Y)
    pairs = zip(outcomes(model).values(), outcomes(model, X.double()).values(), strict=True)
    for one, two in pairs:
        assert torch.equal(one, two)


def test_a_plain_float64_classifier_is_evaluated():
    net = drawn(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), 2.0, stream(0, "user")).eval()
    expected, double = outcomes(net), net.double()
    assert all(torch.equal(one, expected[name]) for name, one in outcomes(double).items())
    assert sg.check(double, X, Y).samples == 24


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_every_integer_type_are_taken_by_both(make, kind):
    model = adapted(make())
    assert sg.check(model, X, Y.to(kind)) == sg.check(model, X, Y)
    assert torch.equal(outcomes(model, y=Y.to(kind))["pgd"], outcomes(model)["pgd"])


def test_arrays_are_taken_by_both(make):
    model, pair = adapted(make()), (X.numpy(), Y.numpy())
    assert sg.check(model, *pair) == sg.check(model, X, Y)
    assert torch.equal(outcomes(model, *pair)["pgd"], outcomes(model)["pgd"])


@pytest.mark.parametrize("one_hot", [nn.functional.one_hot(Y), nn.functional.one_hot(Y).float()])
def test_one_hot_labels_name_the_conversion(make, one_hot):
    model = adapted(make())
    calls = (lambda: sg.check(model, X, one_hot), lambda: outcomes(model, y=one_hot))
    for call in (*calls, lambda: ATTACKS["pgd"](model, X, one_hot)):
        with pytest.raises(ValueError, match=r"y\.argmax\(1\)"):
            call()


def by_method(net):
    net.compile(backend="eager")
    return net


def inside(net):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.compile(net, backend="eager")

        def forward(self, x):
            return self.inner(x)

    return Around().eval()


WRAPPERS = {
    "compile": lambda net: torch.compile(net, backend="eager"),
    "by method": by_method,
    "parallel": nn.DataParallel,
    "both": lambda net: nn.DataParallel(torch.compile(net, backend="eager")),
    "inside": inside,
}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_network_gives_the_numbers_of_the_plain_one(make, wrap):
    plain, model = adapted(make()), adapted(WRAPPERS[wrap](make()))
    assert torch.equal(model(X), plain(X))
    swap = SwapSurrogate(2.0)
    (_, own), (_, grad) = (swap(net, X, Y, cross_entropy) for net in (plain, model))
    assert torch.equal(grad, own)
    if wrap != "inside":
        assert set(model.state_dict()) == set(plain.state_dict())


def test_a_layer_that_divides_its_input_is_rejected(make):
    net = nn.Sequential()
    net.add_module("features", nn.DataParallel(make()))
    with pytest.raises(ValueError, match="features is wrapped by DataParallel, which divides"):
        adapted(net)


class Shifting(nn.Module):
    """Normalises its argument in place."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        x -= 0.5
        return self.net(x)


class Hidden(Shifting):
    """The same, in a way that torch does not count."""

    def forward(self, x):
        x.data.sub_(0.5)
        return self.net(x)


@pytest.mark.parametrize("kind", [Shifting, Hidden])
def test_writes_to_the_argument_stay_in_the_network(make, kind):
    x, before, plain = X.clone(), X.clone(), adapted(make())
    model = adapted(kind(make()).eval())
    torch.testing.assert_close(model(x), plain(x - 0.5))
    sg.check(model, x, Y)
    outcomes(model, x)
    ATTACKS["pgd"](model, x, Y)
    assert torch.equal(x, before)


@pytest.mark.parametrize("how", ["steps", "sequence"])
def test_one_step_is_shown_a_copy_too(how):
    net, x = Frames() if how == "sequence" else steps(LIFNode()), X.clone()
    sg.foreign(Shifting(net).eval(), T=1, presentation=how).eval()(x)
    assert torch.equal(x, X)


@pytest.mark.parametrize("kind", [Shifting, Hidden])
def test_a_plain_network_that_writes_to_its_argument_is_rejected_in_one_line(kind):
    x, before = X.clone(), X.clone()
    net = kind(nn.Sequential(nn.Flatten(), nn.Linear(16, 3))).eval()
    for call in (lambda: sg.check(net, x, Y), lambda: outcomes(net, x)):
        with pytest.raises(ValueError, match=r"writes to its argument.* x = x\.clone\(\)"):
            call()
    assert torch.equal(x, before)


@pytest.mark.parametrize(("channels", "count"), [(1, 3), (3, 2), (1, 2)])
def test_statistics_fit_the_channels(channels, count):
    net = nn.Sequential(nn.Conv2d(channels, 2, 3), LIFNode(), nn.Flatten(), nn.Linear(8, 3)).eval()
    x = X.expand(-1, channels, -1, -1)
    message = rf"mean and std have {count} numbers, .* have {channels} channels"
    with pytest.raises(ValueError, match=message):
        adapted(net, mean=[0.5] * count, std=[0.5] * count)(x)
    one, each = (adapted(net, mean=[0.5] * n, std=[0.25] * n) for n in (1, channels))
    assert torch.equal(one(x), each(x))


class Keyed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return {"spikes": self.net(x), "rate": 0.1}


def test_a_dictionary_is_named_with_its_keys(make):
    with pytest.raises(ValueError, match="returns a dict with the keys 'spikes', 'rate', not") as e:
        adapted(Keyed(make()).eval())(X)
    assert "; sequence:" not in str(e.value) and "; inside:" not in str(e.value)


CONVOLUTIONS = {
    "single": lambda c: nn.Sequential(nn.Conv2d(c, 2, 3), LIFNode(), nn.Flatten(), nn.Linear(8, 3)),
    "multi": lambda c: Folded(c),
}


class Folded(nn.Module):
    """Convolutions with time folded into the batch, as SpikingJelly's layers in multi-step mode."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.neuron, self.head = nn.Conv2d(channels, 2, 3), LIFNode("m"), nn.Linear(8, 3)

    def forward(self, x):
        y = self.conv(x.flatten(0, 1))
        return self.head(self.neuron(y.view(*x.shape[:2], *y.shape[1:])).flatten(2))


@pytest.mark.parametrize("mode", CONVOLUTIONS)
def test_wrong_channels_name_the_layer_and_not_a_wrong_presentation(mode):
    model = adapted(CONVOLUTIONS[mode](3).eval())
    with pytest.raises(ImagesRefused) as raised:
        model(X)
    assert "(Conv2d, takes 3 channels), given float32" in str(raised.value)
    assert "expected input[" in str(raised.value)
    usual, other = {"single": ("steps", "sequence"), "multi": ("sequence", "steps")}[mode]
    assert f"{usual}: " in str(raised.value) and f"{other}: " not in str(raised.value)


MIXED = r"in 3 \(Linear, .*, float64 weights\), given float32 \[3, 12\]; .* model\.float\(\)"


def test_mixed_types_name_the_layer_and_both_types():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), LIFNode(), nn.Linear(12, 3).double())
    with pytest.raises(ImagesRefused, match=MIXED):
        adapted(net.eval())(X)


class OnGpu(nn.Linear):
    """As a network whose author had a GPU."""

    def forward(self, x):
        raise AssertionError("Torch not compiled with CUDA enabled")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_network_that_needs_a_gpu_is_named(no_gpu):
    with pytest.raises(ImagesRefused, match=r"needs CUDA: remove \.cuda\(\)"):
        adapted(OnGpu(16, 3).eval())(X)


def test_a_back_end_that_needs_a_gpu_is_named(no_gpu):
    class Cupy(LIFNode):
        backend = "cupy"

        def forward(self, x):
            raise ModuleNotFoundError("No module named 'cupy'")

    Cupy.__module__ = "spikingjelly.toy"
    with pytest.raises(ImagesRefused, match=r"set backend = 'torch' in 2 \(cupy\)"):
        adapted(steps(Cupy()).eval())(X)


class Keeping(nn.Linear):
    """Adds to a potential that it never resets; of no framework."""

    potential = 0.0

    def forward(self, x):
        self.potential = 0.5 * self.potential + super().forward(x.flatten(1))
        return self.potential.expand(T, -1, -1)


def test_a_state_that_is_kept_is_named():
    with pytest.raises(ValueError, match="keeps state between calls, or a batch size"):
        adapted(Keeping(16, 3).eval())(X)


def batch_statistics():
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.BatchNorm1d(8, track_running_stats=False),
        nn.Linear(8, 3),
    ).eval()


@pytest.mark.parametrize("n", [1, 24])
def test_batch_statistics_are_named(n):
    message = "check: a BatchNorm1d normalises by the statistics of the batch"
    for model in (batch_statistics(), adapted(Timed(batch_statistics()).eval())):
        with pytest.raises(ValueError, match=message):
            outcomes(model, X[:n], Y[:n])
        if n > 1:
            with pytest.raises(ValueError, match=message):
                sg.check(model, X, Y)


class Timed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).expand(T, -1, -1)
