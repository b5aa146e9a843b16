"""Spiking VGG-11, MLP and CNN of the operational-space study against its text, step by step."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikeguard.config.instantiate import instantiate
from spikeguard.encoders.coding import Direct, Poisson
from spikeguard.models import CNN, MODELS, Dropout, OperationalCNN, OperationalMLP, SpikingVGG11
from spikeguard.neurons import IF, LIF, ATan, Neuron, Sigmoid, record
from spikeguard.rng import SampleStreams, randomness, stream

BUILD = {"mlp": OperationalMLP, "cnn": OperationalCNN, "vgg": SpikingVGG11}
TINY = {
    "mlp": {"in_shape": (1, 8, 8), "hidden": (9, 7)},
    "cnn": {"in_channels": 1, "image_size": 8, "width": 3, "hidden": 7},
    "vgg": {"in_channels": 1, "image_size": 8, "width": 1 / 32},
}


def small(name, **options):
    """Return a small network of doubles in eval mode that fires in every layer."""
    model = BUILD[name](num_classes=3, T=5, **{"encoder": Direct(), **TINY[name], **options})
    with torch.no_grad():
        for number, m in enumerate(model.modules()):
            if isinstance(m, nn.Linear):
                m.weight *= 3
            if isinstance(m, nn.Linear | nn.BatchNorm2d):
                m.bias += 1 + 0.3 * torch.randn(len(m.bias), generator=stream(number, "bias"))
    model(images(16).float())  # batch statistics
    return model.double().eval()


def images(count=4, size=8):
    return torch.rand(count, 1, size, size, generator=stream(0, "images"), dtype=torch.float64)


# ----------------------------------------------------------------------- layers and weights

_LETTER = {nn.Conv2d: "C", nn.BatchNorm2d: "B", nn.MaxPool2d: "M", nn.AvgPool2d: "A"}
_LETTER |= {nn.AdaptiveAvgPool2d: "G", nn.Flatten: "F", nn.Linear: "L", Dropout: "D"}


def kinds(model):
    """Return the layers in order, a letter each; S is a neuron, G the 7x7 grid, D dropout."""
    found = ("S" if isinstance(m, Neuron) else _LETTER.get(type(m), "") for m in model.modules())
    return "".join(found)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (small("vgg"), "CBSM CBSM CBSCBSM CBSCBSM CBSCBSM GF LSD LSD LS"),
        (
            small("vgg", batch_norm=False, readout="logits"),
            "CSM CSM CSCSM CSCSM CSCSM GF LSD LSD L",
        ),
        (small("mlp"), "F LS LS LS"),
        (small("cnn"), "CBSA CBSA CBS F LS LS"),
    ],
)
def test_layers_come_in_the_order_of_the_text(model, expected):
    assert kinds(model) == expected.replace(" ", "")


@pytest.mark.parametrize(("batch_norm", "expected"), [(False, 132_863_336), (True, 132_868_840)])
def test_spiking_vgg11_has_the_weights_of_vgg11(batch_norm, expected):
    """The published counts of VGG-11 for 1000 classes, without and with batch normalisation."""
    with torch.device("meta"):  # counted without being allocated
        model = SpikingVGG11(3, 1000, image_size=224, batch_norm=batch_norm)
    assert sum(p.numel() for p in model.parameters()) == expected
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 128, 256, 256, 512, 512, 512, 512]
    assert all((c.kernel_size, c.padding, c.stride) == ((3, 3), (1, 1), (1, 1)) for c in convs)
    dense = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert [(d.in_features, d.out_features) for d in dense] == [
        (512 * 7 * 7, 4096),
        (4096, 4096),
        (4096, 1000),
    ]
    assert [m.p for m in model.modules() if isinstance(m, Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "surrogate"), [("mlp", ATan(2.0)), ("cnn", ATan(2.0)), ("vgg", Sigmoid(4.0))]
)
def test_the_default_neuron_is_the_texts_with_tau_2(name, surrogate):
    neurons = [m for m in small(name).modules() if isinstance(m, Neuron)]
    assert all(type(n) is LIF and (n.decay, n.input_scale) == (0.5, 0.5) for n in neurons)
    assert all((n.v_th, n.surrogate) == (1.0, surrogate) for n in neurons)
    other = small(name, neuron=IF(0.5))
    assert {type(m) for m in other.modules() if isinstance(m, Neuron)} == {IF}


def test_the_mlp_gets_poisson_spikes_and_the_others_the_image():
    assert isinstance(OperationalMLP(4, 2, hidden=(3,)).encoder, Poisson)
    assert isinstance(OperationalMLP(4, 2, hidden=(3,), encoder=Direct()).encoder, Direct)
    assert isinstance(OperationalCNN(width=1, hidden=2, image_size=8).encoder, Direct)
    assert isinstance(SpikingVGG11(width=1 / 64).encoder, Direct)


# ------------------------------------------------------------------------- a loop over time


class Eq5:
    """The study's neuron, one step a call: V + (X - (V - 0)) / tau, and 0 after a spike."""

    def __init__(self, tau):
        self.tau, self.v = tau, 0.0

    def __call__(self, x):
        h = self.v + (x - self.v) / self.tau
        spike = (h >= 1).to(h.dtype)
        self.v = h * (1 - spike)
        return spike


def loop(model, x, tau):
    """Run layer after layer within each step, and average the last layer's output."""
    neurons = {m: Eq5(tau) for m in model.modules() if isinstance(m, Neuron)}
    total = 0.0
    for _ in range(model.T):
        y = x
        for layer in [*getattr(model, "features", []), *model.classifier]:
            if isinstance(layer, nn.ZeroPad2d):
                y = F.pad(y, layer.padding)
            elif isinstance(layer, nn.BatchNorm2d):
                shape = (1, -1, 1, 1)
                mean, var = layer.running_mean.view(shape), layer.running_var.view(shape)
                y = (y - mean) / (var + layer.eps).sqrt() + layer.bias.view(shape)
            elif isinstance(layer, nn.AdaptiveAvgPool2d):
                y = y.expand(-1, -1, 7, 7)  # of one pixel
            else:
                y = neurons[layer](y) if layer in neurons else y if dropped(layer) else layer(y)
        total = total + y
    return total / model.T


def dropped(layer):
    return isinstance(layer, Dropout)


@pytest.mark.parametrize("readout", ["rate", "logits"])
@pytest.mark.parametrize("tau", [2.0, 1.44])
@pytest.mark.parametrize("name", BUILD)
def test_logits_are_those_of_a_loop_with_the_texts_neuron(name, tau, readout):
    neuron = None if tau == 2 else LIF.from_tau(tau, decay_input=True)
    model = small(name, neuron=neuron, readout=readout)
    x = images()
    logits = model(x)
    torch.testing.assert_close(logits, loop(model, x, tau), rtol=1e-9, atol=1e-9)
    assert (loop(model, x, 1.7) - logits).abs().max() > 1e-3  # another tau gives other logits
    if readout == "rate":
        assert torch.equal((logits * 5).round() / 5, logits) and 0 < logits.mean() < 1


# ---------------------------------------------------------------------------------- padding


@pytest.mark.parametrize(("size", "sides"), [(28, (2, 2, 2, 2)), (27, (2, 3, 2, 3))])
def test_a_small_image_is_padded_to_32_with_zeros(size, sides):
    """Equals a network for 32x32 on the padded image; the input is still size x size pixels."""
    options = {"in_channels": 1, "width": 1 / 32, "T": 2, "readout": "logits"}
    narrow = SpikingVGG11(image_size=size, **options).eval()
    wide = SpikingVGG11(image_size=32, **options).eval()
    for ours, theirs in zip(narrow.parameters(), wide.parameters(), strict=True):
        theirs.data = ours.data
    for norm in (m for m in [*narrow.modules(), *wide.modules()] if isinstance(m, nn.BatchNorm2d)):
        norm.bias.data.fill_(1.5)
    x = images(3, size).float().requires_grad_()
    expected = wide(F.pad(x, sides))
    torch.testing.assert_close(narrow(x), expected)
    assert torch.autograd.grad(expected[:, 0].sum(), x)[0].shape == (3, 1, size, size)


def test_an_image_of_32_or_more_is_not_padded():
    for size in (32, 33, 64):
        model = SpikingVGG11(width=1 / 64, image_size=size, T=1)
        assert not any(isinstance(m, nn.ZeroPad2d) for m in model.modules())
        assert model(torch.rand(1, 3, size, size, generator=stream(0, "x"))).shape == (1, 10)


# ---------------------------------------------------------------------------------- dropout


def test_dropout_zeroes_a_unit_for_all_steps_and_doubles_the_rest():
    ones = torch.ones(4, 6, 50)
    y = Dropout(0.5)(ones, 4)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert all(torch.equal(step, y[0]) for step in y)
    assert not any(torch.equal(y[0, 0], y[0, i]) for i in range(1, 6))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_dropout_keeps_1_minus_p_of_the_units_and_their_sum(p):
    n = 20_000
    y = Dropout(p)(torch.ones(1, 4, n // 4), 3)
    spread = math.sqrt(p * (1 - p) / n)
    assert abs((y > 0).double().mean() - (1 - p)) < 5 * spread
    assert abs(y.mean() - 1) < 5 * spread / (1 - p)


def test_the_gradient_of_dropout_is_its_mask():
    x = torch.rand(3, 2, 7, generator=stream(0, "x")).add(1).requires_grad_()
    y = Dropout(0.25)(x, 3)
    grad = torch.autograd.grad(y.sum(), x)[0]
    torch.testing.assert_close(grad, (y / x).detach())


def test_dropout_does_nothing_in_evaluation_and_for_p_0():
    x = torch.rand(3, 2, 7, generator=stream(0, "x"))
    off = Dropout(0.0)
    assert off(x, 3) is x and Dropout(0.5).eval()(x, 3) is x
    assert off.random._own == {} and not off.stochastic  # it has not even drawn
    assert Dropout(0.5).stochastic and not Dropout(0.5).eval().stochastic


def test_the_mask_of_a_sample_does_not_depend_on_the_other_samples():
    x, layer = torch.ones(3, 5, 40), Dropout(0.5)
    masks = []
    for ids in (range(5), [3, 1, 9, 8, 7]):
        layer.random.bound = SampleStreams(0, list(ids))
        masks.append(layer(x, 3))
    assert torch.equal(masks[0][:, [3, 1]], masks[1][:, :2])
    assert not torch.equal(masks[0][:, 0], masks[1][:, 0])


def test_a_network_without_dropout_trains_as_it_evaluates_and_with_it_does_not():
    options = {"batch_norm": False, "neuron": LIF(0.5, v_th=0.05), "readout": "logits"}
    x = images()
    for p, equal in ((0.0, True), (0.5, False)):
        model = small("vgg", dropout=p, **options)
        assert torch.equal(model(x), model.train()(x)) == equal
        assert model.stochastic == (p > 0) and not model.eval().stochastic


def test_dropout_draws_from_the_bound_source_and_each_layer_its_own(untouched_global_generator):
    model = small("vgg", neuron=LIF(0.5, v_th=0.05), batch_norm=False, readout="logits").train()
    layers = [m for m in model.modules() if isinstance(m, Dropout)]
    assert [m.random.seed for m in layers] == [0, 1]
    logits = []
    for seed in (0, 0, 1):
        with randomness(model, stream(seed, "dropout")):
            logits.append(model(images()))
    assert torch.equal(logits[0], logits[1]) and not torch.equal(logits[0], logits[2])


# ---------------------------------------------------------------------------------- options


def test_the_cnn_is_the_cnn_with_the_studys_neuron_and_readout():
    neuron = LIF.from_tau(2.0, decay_input=True, surrogate=ATan(2.0))
    options = {"width": 2, "hidden": 5, "image_size": 8}
    ours = CNN(1, 10, 10, neuron=neuron, readout="rate", **options)
    theirs = OperationalCNN(**options)
    assert str(ours) == str(theirs)
    states = ours.state_dict(), theirs.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_default_mlp_cannot_emit_the_spikes_that_the_study_prints():
    """256 + 128 + 10 neurons, 10 steps, 10,000 images: 3.94e7; Table II prints 6.18e7."""
    model = OperationalMLP(3072, 10, T=10)
    with record(model) as trace:
        model(torch.rand(1, 3072, generator=stream(0, "x")))
    most = 10_000 * sum(layer.spikes.numel() for layer in trace.values())
    assert most == 39_400_000 < 6.18e7


def test_a_recipe_reaches_the_studys_time_constant():
    """tau = 4: decay 3/4 and input scale 1/4."""
    neuron = {"name": "lif", "decay": "3/4", "input_scale": "1/4", "v_th": 0.5}
    spec = {"name": "spiking_vgg11", "width": "1/64", "batch_norm": False, "neuron": neuron}
    found = {
        (n.decay, n.input_scale, n.v_th)
        for n in instantiate(MODELS, spec, "model").modules()
        if isinstance(n, LIF)
    }
    twin = LIF.from_tau(4.0, decay_input=True, v_th=0.5)
    assert found == {(twin.decay, twin.input_scale, twin.v_th)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Dropout(1.0), r"Dropout: p is a probability in \[0, 1\), got 1"),
        (lambda: Dropout(-0.1), r"in \[0, 1\), got -0.1"),
        (lambda: Dropout(math.nan), "got nan"),
        (lambda: SpikingVGG11(dropout=1.5, width=1 / 64), "Dropout: p is a probability"),
        (lambda: SpikingVGG11(image_size=0), "SpikingVGG11: sizes must be >= 1, got 3 channels"),
        (lambda: SpikingVGG11(0), "got 0 channels"),
        (lambda: SpikingVGG11(num_classes=0), "0 classes"),
        (lambda: SpikingVGG11(width=0.0), "width is a multiplier > 0, got 0"),
        (lambda: OperationalMLP(4, hidden=(3, 0)), r"\(3, 0\)"),
        (lambda: OperationalCNN(image_size=3), "is too small for"),
    ],
)
def test_a_wrong_option_is_rejected_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)
