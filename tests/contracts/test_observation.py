"""An observer of a layer gets the same tensors under every kernel, equally often."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize, spectral_norm
from torch.nn.utils.spectral_norm import SpectralNorm

from spikeguard.kernels import fused
from spikeguard.kernels.cpu import pooling
from spikeguard.kernels.observation import Reader, is_observed, is_read
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.models import SNN, efficient_layers
from spikeguard.models.snn import TimeSequential
from spikeguard.neurons import LIF, record
from spikeguard.rng import stream

OTHERS = [
    pytest.param(k, marks=pytest.mark.skipif(why_not(k) is not None, reason=f"{k}: {why_not(k)}"))
    for k in KERNELS
    if k != "reference"
]
T, B = 3, 4
LAYERS = {  # kind of layer -> its stage and index in the network
    "convolution": ("features", 0),
    "batch normalisation 2d": ("features", 1),
    "neuron": ("features", 2),
    "pooling in the membrane's pass": ("features", 3),
    "pooling": ("features", 4),
    "linear": ("classifier", 1),
    "batch normalisation 1d": ("classifier", 2),
}
WEIGHTED = [name for name in LAYERS if name not in ("neuron",) and "pooling" not in name]


def network():
    """An untrained network in float64, where rounding does not change spikes."""
    stages = {
        "features": TimeSequential(
            nn.Conv2d(2, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            LIF(0.5, v_th=0.4),
            nn.AvgPool2d(2),
            nn.AvgPool2d(3, 1, 1),
        ),
        "classifier": TimeSequential(
            nn.Flatten(), nn.Linear(128, 9), nn.BatchNorm1d(9), LIF(0.5, v_th=0.4), nn.Linear(9, 3)
        ),
    }
    model = SNN(stages, T=T, num_classes=3, in_shape=(2, 8, 8)).double()
    generator = stream(0, "observed")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.numel() > 1:
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
        for norm in (model.features[1], model.classifier[2]):
            norm.running_var.abs_().add_(0.5)
            norm.weight.abs_().add_(0.5)
    return model


def outcome(model):
    """Return logits and input gradient."""
    x = torch.rand(B, 2, 8, 8, generator=stream(0, "x"), dtype=torch.float64).requires_grad_()
    logits = model(x)
    weights = torch.rand(logits.shape, generator=stream(0, "w"), dtype=torch.float64)
    (grad,) = torch.autograd.grad((logits * weights).sum(), x)
    return logits.detach(), grad


# --- observers: each stores the tensors it receives, and changes them where it can


def scaled(x):
    return 0.9 * x


def note(seen, *tensors):
    seen.append([None if x is None else x.detach().clone() for x in tensors])


def forward_hook(seen, module, args, out):
    note(seen, args[0], out)
    return scaled(out)


def forward_hook_with_kwargs(seen, module, args, kwargs, out):
    return forward_hook(seen, module, args, out)


def forward_pre_hook(seen, module, args):
    note(seen, args[0])
    return (scaled(args[0]), *args[1:])


def forward_pre_hook_with_kwargs(seen, module, args, kwargs):
    return forward_pre_hook(seen, module, args), kwargs


def backward_hook(seen, module, grad_input, grad_output):
    note(seen, *grad_input, *grad_output)
    return (scaled(grad_input[0]), *grad_input[1:]) if grad_input[0] is not None else None


def backward_pre_hook(seen, module, grad_output):
    note(seen, *grad_output)
    return tuple(map(scaled, grad_output))


class Halved(nn.Module):
    """A parametrization of a weight."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, weight):
        note(self.seen, weight)
        return 0.5 * weight


def replaced_forward(layer, seen):
    own = layer.forward

    def forward(x, **options):
        note(seen, x)
        return scaled(own(x, **options))

    layer.forward = forward


def subclass(layer, seen):
    kind = type(layer)

    def forward(self, x, **options):
        note(seen, x)
        return kind.forward(self, x, **options)

    layer.__class__ = type("Subclass", (kind,), {"forward": forward})


def parametrization(layer, seen):
    parametrize.register_parametrization(layer, "weight", Halved(seen))


OF_A_LAYER = {
    "forward hook": lambda m, s: m.register_forward_hook(partial(forward_hook, s)),
    "forward hook with keyword arguments": lambda m, s: m.register_forward_hook(
        partial(forward_hook_with_kwargs, s), with_kwargs=True
    ),
    "forward hook that is always called": lambda m, s: m.register_forward_hook(
        partial(forward_hook, s), always_call=True
    ),
    "forward pre-hook": lambda m, s: m.register_forward_pre_hook(partial(forward_pre_hook, s)),
    "forward pre-hook with keyword arguments": lambda m, s: m.register_forward_pre_hook(
        partial(forward_pre_hook_with_kwargs, s), with_kwargs=True
    ),
    "backward hook": lambda m, s: m.register_full_backward_hook(partial(backward_hook, s)),
    "backward pre-hook": lambda m, s: m.register_full_backward_pre_hook(
        partial(backward_pre_hook, s)
    ),
    "replaced forward": replaced_forward,
    "subclass": subclass,
}
OF_ALL_MODULES = {
    "register_module_forward_hook": forward_hook,
    "register_module_forward_pre_hook": forward_pre_hook,
    "register_module_full_backward_hook": backward_hook,
    "register_module_full_backward_pre_hook": backward_pre_hook,
}


def compare(kernel, observed, training):
    """Fail unless observers, logits and gradients are the same as under the reference.

    ``observed(model, seen)`` registers an observer of the model that appends to ``seen``.
    """
    shown, found = [], []
    for name in ("reference", kernel):
        model, seen = network().train(training), []
        with use_kernel(name):
            observed(model, seen)
            found.append(outcome(model))
        shown.append(seen)
    assert len(shown[0]) > 0 and len(shown[1]) == len(shown[0])
    for ours, expected in zip(shown[1], shown[0], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)
    assert found[0][1].abs().max() > 0
    for ours, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def of_layer(layer, observe):
    stage, place = LAYERS[layer]
    return lambda model, seen: observe(getattr(model, stage)[place], seen)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", OF_A_LAYER)
@pytest.mark.parametrize("kernel", OTHERS)
def test_an_observer_of_a_layer_gets_what_the_reference_passes(kernel, kind, layer, training):
    if (kind, layer) == ("subclass", "neuron"):
        pytest.skip("a neuron's own forward is given the normalisation as an argument")
    compare(kernel, of_layer(layer, OF_A_LAYER[kind]), training)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer", WEIGHTED)
@pytest.mark.parametrize("kernel", OTHERS)
def test_a_parametrization_is_computed_as_often_as_under_the_reference(kernel, layer, training):
    compare(kernel, of_layer(layer, parametrization), training)


@pytest.mark.parametrize("layer", WEIGHTED)
@pytest.mark.parametrize("kernel", OTHERS)
def test_the_old_spectral_norm_is_computed_as_often_as_under_the_reference(
    kernel, layer, monkeypatch, recwarn
):
    compute, current = SpectralNorm.compute_weight, []

    def counted(self, module, do_power_iteration):
        note(current[-1], module.weight_orig)
        return compute(self, module, do_power_iteration)

    def observe(module, seen):
        with torch.random.fork_rng():  # spectral_norm draws from the global generator
            torch.manual_seed(0)
            spectral_norm(module)
        current.append(seen)

    monkeypatch.setattr(SpectralNorm, "compute_weight", counted)
    compare(kernel, of_layer(layer, observe), training=True)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", OF_ALL_MODULES)
@pytest.mark.parametrize("kernel", OTHERS)
def test_a_hook_on_all_modules_gets_what_the_reference_passes(kernel, kind, training):
    handles = []

    def observed(model, seen):
        for handle in handles:
            handle.remove()
        register = getattr(torch_module, kind)
        handles[:] = [register(partial(OF_ALL_MODULES[kind], seen))]

    try:
        compare(kernel, observed, training)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("kernel", OTHERS)
def test_a_recorder_gets_what_the_reference_passes(kernel):
    model, traces = network().eval(), []
    for name in ("reference", kernel):
        with use_kernel(name), record(model) as trace:
            outcome(model)
        traces.append(dict(trace))
    assert list(traces[0]) == list(traces[1]) == ["features.2", "classifier.3"]
    for layer, expected in traces[0].items():
        for field in ("current", "v", "spikes"):
            ours = getattr(traces[1][layer], field)
            torch.testing.assert_close(ours, getattr(expected, field), rtol=1e-9, atol=1e-12)


@pytest.mark.skipif(why_not("cpu") is not None, reason=f"cpu: {why_not('cpu')}")
def test_every_layer_of_the_network_is_replaced_unless_it_is_observed(monkeypatch):
    """The other tests of this file need this: they compare replaced layers with torch's."""
    norms, pooled, replaced = [], [], []

    def noted(owner, name, notes, what):
        run = getattr(owner, name)

        def noting(*arguments, **options):
            notes.append(what(arguments, options))
            return run(*arguments, **options)

        monkeypatch.setattr(owner, name, noting)

    noted(fused, "_Norm", norms, lambda arguments, options: arguments[0])
    noted(efficient_layers._Conv, "apply", replaced, lambda a, o: type(a[3]))
    noted(efficient_layers._AveragePool, "apply", replaced, lambda a, o: type(a[1]))
    real = pooling.can_fuse_pooling
    monkeypatch.setattr(
        pooling, "can_fuse_pooling", lambda *words: pooled.append(real(*words)) or pooled[-1]
    )
    model = network().eval()
    with use_kernel("cpu"):
        outcome(model)
    assert norms == [model.features[1], model.classifier[2]]
    assert pooled == [True]
    assert replaced == [nn.Conv2d, nn.AvgPool2d]


def test_is_observed_until_the_hook_is_removed():
    layer = nn.BatchNorm2d(2)
    assert not is_observed(layer)
    for kind, observe in OF_A_LAYER.items():
        handle = observe(watched := copy.deepcopy(layer), [])
        if kind == "subclass":  # rejected by the type checks of the callers
            assert not is_observed(watched) and not fused.can_fuse(watched)
            continue
        assert is_observed(watched), kind
        if handle is None:
            del watched.forward
        else:
            handle.remove()
        assert not is_observed(watched), kind
    for kind, hook in OF_ALL_MODULES.items():
        handle = getattr(torch_module, kind)(partial(hook, []))
        try:
            assert is_observed(layer), kind
        finally:
            handle.remove()
        assert not is_observed(layer)
    parametrization(layer, [])
    assert is_observed(layer)
    parametrize.remove_parametrizations(layer, "weight")
    assert not is_observed(layer)


class Shapes(Reader):
    """Reads the shapes of the tensors."""

    def __init__(self, unpooled=False):
        self.unpooled, self.seen = unpooled, []

    def __call__(self, module, args, *out):
        self.seen.append([tuple(x.shape) for x in (args[0], *out)])


def test_a_reader_does_not_observe_a_layer_but_a_hook_beside_it_does():
    layer, reader = LIF(0.5), Shapes()
    assert not is_read(layer)
    with_reader = layer.register_forward_hook(reader)
    assert is_read(layer) and not is_read(layer, unpooled=True) and not is_observed(layer)
    handle = layer.register_forward_pre_hook(partial(forward_pre_hook, []))
    assert is_observed(layer)
    handle.remove()
    with_reader.remove()
    assert not is_observed(layer) and not is_read(layer)
    layer.register_forward_pre_hook(Shapes(unpooled=True))
    assert is_read(layer, unpooled=True) and not is_observed(layer)


@pytest.mark.parametrize("unpooled", [False, True])
@pytest.mark.parametrize("kernel", OTHERS)
def test_a_reader_is_called_by_every_kernel(kernel, unpooled):
    model = network().eval()
    read = {"convolution": Shapes(), "neuron": Shapes(unpooled), "linear": Shapes()}
    for name, reader in read.items():
        stage, place = LAYERS[name]
        layer = getattr(model, stage)[place]
        hooks = layer.register_forward_hook if name == "neuron" else layer.register_forward_pre_hook
        hooks(reader)
    with use_kernel(kernel):
        outcome(model)
    assert [len(reader.seen) for reader in read.values()] == [1, 1, 1]
    size = 8 if unpooled or kernel != "cpu" else 4  # the CPU kernel pools in the same pass
    assert read["neuron"].seen[0][1] == (T, B, 8, size, size)
