"""Networks of the frameworks themselves as users bring them: float64, wrapped, in-place."""

import warnings

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.models.adapters.presentation import ImagesRefused
from spikeguard.rng import stream
from tests.peers.foreign import TEST, T, X, Y
from tests.toys.fitting import drawn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    snn = pytest.importorskip("snntorch", reason="snnTorch is missing: make bench-peers")
    norse = pytest.importorskip("norse.torch", reason="Norse is missing: make bench-peers")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    layer = pytest.importorskip("spikingjelly.activation_based.layer")


def jelly(mode, channels=1):
    lif = neuron.LIFNode(tau=2.0, decay_input=False, step_mode=mode)
    conv = layer.Conv2d(channels, 4, 3, padding=1, step_mode=mode)
    head = (layer.Flatten(step_mode=mode), layer.Linear(256, 10, step_mode=mode))
    return nn.Sequential(conv, lif, *head)


KINDS = {
    "spikingjelly, single": lambda: jelly("s"),
    "spikingjelly, multi": lambda: jelly("m"),
    "snntorch, single": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 48), snn.Leaky(beta=0.5, init_hidden=True), nn.Linear(48, 10)
    ),
    "snntorch, multi": lambda: nn.Sequential(
        nn.Flatten(2), nn.Linear(64, 48), snn.StateLeaky(0.5, 48, output=False), nn.Linear(48, 10)
    ),
    "norse, single": lambda: norse.SequentialState(
        nn.Flatten(), nn.Linear(64, 48), norse.LIFCell(), nn.Linear(48, 10)
    ),
    "norse, multi": lambda: norse.SequentialState(
        nn.Flatten(2), nn.Linear(64, 48), norse.LIF(), nn.Linear(48, 10)
    ),
}


@pytest.fixture(params=KINDS)
def make(request):
    return lambda: drawn(KINDS[request.param](), 0.2, stream(0, "peer")).eval()


def adapted(net):
    return sg.foreign(net, T=T).eval()


def test_float64_is_treated_alike_by_check_and_evaluate(make, request):
    net = make()
    expected = adapted(net)(X)
    model = adapted(net.double())
    if "snntorch, single" in request.node.name:  # its spikes are float32
        with pytest.raises(
            ImagesRefused, match=r"in 3 \(Linear, .*float64 weights\), given float3"
        ):
            sg.evaluate(model, TEST, {})
        return
    torch.testing.assert_close(model(X), expected.double(), rtol=0, atol=1e-4)
    attacks = {"pgd": sg.attacks.PGD(sg.attacks.Linf(0.1), steps=1)}
    clean = sg.evaluate(model, (X.double(), Y), attacks, check=False).clean.accuracy
    assert clean == float((model(X).argmax(1) == Y).double().mean())


@pytest.mark.parametrize("wrap", ["compile", "parallel", "both"])
def test_a_wrapped_network_gives_the_numbers_of_the_plain_one(make, wrap):
    net, plain = make(), adapted(make())
    if wrap in ("compile", "both"):
        net = torch.compile(net, backend="eager")
    if wrap in ("parallel", "both"):
        net = nn.DataParallel(net)
    assert torch.equal(adapted(net)(X), plain(X))


@pytest.mark.parametrize("mode", ["s", "m"])
def test_wrong_channels_name_the_layer(mode):
    closest = "steps" if mode == "s" else "sequence"
    with pytest.raises(ImagesRefused, match=rf"\({closest}: .*takes 3 channels\), given float32"):
        adapted(jelly(mode, channels=3).eval())(X)


class Shifting(nn.Module):
    """Normalises its argument in place, and passes a state on."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, *state):
        x -= 0.5
        return self.net(x, *state)


def test_writes_to_the_argument_stay_in_the_network(make):
    x = X.clone()
    torch.testing.assert_close(adapted(Shifting(make()).eval())(x), adapted(make())(X - 0.5))
    assert torch.equal(x, X)
