"""Compiled average pooling: bit-equal to torch forward and backward; unsupported cases."""

import copy
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from spikeguard.attacks import BPTR
from spikeguard.kernels.cpu import pooling as windows
from spikeguard.kernels.dispatch import integrate_and_fire
from spikeguard.kernels.selection import unfused, why_not
from spikeguard.models import SNN
from spikeguard.models import efficient_layers as lean
from spikeguard.models.snn import TimeSequential
from spikeguard.neurons import LIF, StoG, Triangular, backward_rule, record
from spikeguard.rng import stream

LAST = torch.channels_last

pytestmark = pytest.mark.skipif(why_not("cpu") is not None, reason=f"CPU kernel: {why_not('cpu')}")


def images(*shape, dtype=torch.float32):
    x = torch.randn(shape, generator=stream(0, "x"), dtype=dtype)
    return x.contiguous(memory_format=LAST)


def both(layer, x, upstream):
    """Return output and derivative of the layer, from torch and from ``efficient_layers``."""
    answers = []
    for run in (layer, lambda x: lean.run(layer, x)):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = run(given)
        (slope,) = torch.autograd.grad(y, given, upstream)
        answers.append((y.detach(), slope))
    return answers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [2, 1, (3, 2), (6, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_the_bits_are_those_of_torch(channels, size, dtype):
    layer, x = nn.AvgPool2d(size), images(5, channels, 6, 4, dtype=dtype)
    assert windows.can_pool(x, layer)
    upstream = torch.randn(layer(x).shape, generator=stream(0, "up"), dtype=dtype)
    (y, slope), (ours, our_slope) = both(layer, x, upstream)
    assert torch.equal(ours, y) and torch.equal(our_slope, slope)
    assert ours.is_contiguous(memory_format=LAST) and our_slope.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2d(3, stride=2),
        nn.AvgPool2d(2, padding=1),
        nn.AvgPool2d(4),  # 6 is no multiple of 4
        nn.AvgPool2d(2, divisor_override=3),
    ],
    ids=str,
)
def test_other_windows_are_left_to_torch(layer):
    x = images(2, 3, 6, 8)
    assert not windows.can_pool(x, layer)
    upstream = torch.randn(layer(x).shape, generator=stream(0, "up"))
    (y, slope), (ours, our_slope) = both(layer, x, upstream)
    assert torch.equal(ours, y) and torch.equal(our_slope, slope)


def test_channels_first_float16_and_the_definition_are_left_to_torch():
    layer, x = nn.AvgPool2d(2), images(2, 3, 4, 4)
    assert not windows.can_pool(x.contiguous(), layer)
    assert not windows.can_pool(x.half(), layer)
    with unfused():
        given = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(
            lean.run(layer, given).pow(2).sum(), given, create_graph=True
        )
        first.sum().backward()  # a second derivative: only torch's own layer has one
    assert torch.equal(given.grad, torch.full_like(x, 0.5))  # of sum(y²): 4 · 2 / 4²


# --- in one pass with the membrane


SURROGATE = Triangular(0.7)
T, B = 3, 4


def draw(*shape, name="", dtype=torch.float32):
    return torch.randn(shape, generator=stream(0, "averaged", name), dtype=dtype)


def current(steps, channels, height, width, dtype=torch.float32):
    x = draw(steps * B, channels, height, width, name="I", dtype=dtype)
    return x.contiguous(memory_format=LAST).view(steps, B, channels, height, width)


def outcome(x, layer, *, together, norm=None, **options):
    """Return means and all derivatives, with pooling in the membrane's pass or after it."""
    leaves = {k: v.clone().requires_grad_() for k, v in options.items() if isinstance(v, Tensor)}
    given = x.detach().requires_grad_()
    window = windows.as_pair(layer.kernel_size)
    rest = {k: v for k, v in options.items() if k not in leaves}
    found, _ = integrate_and_fire(
        *(given,),
        surrogate=SURROGATE,
        potentials=False,
        kernel="cpu",
        T=T,
        norm=norm,
        window=window if together else None,
        **rest,
        **leaves,
    )
    if not together:
        pooled = lean.run(layer, found.flatten(0, 1))
        found = pooled.view(*found.shape[:2], *pooled.shape[1:])
    up = draw(*found.shape, name="up", dtype=x.dtype)
    wanted = [given, *leaves.values(), *(norm.parameters() if norm else ())]
    return [found.detach(), *torch.autograd.grad(found, wanted, up)]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("steps", [1, T])
@pytest.mark.parametrize(
    ("channels", "size", "height", "width"),
    [(1, 2, 4, 6), (8, 2, 28, 28), (3, (3, 1), 6, 5), (20, (1, 4), 2, 8), (256, 2, 2, 40)],
)
def test_averaged_in_the_membranes_pass_no_bit_changes(channels, size, height, width, steps, dtype):
    layer, x = nn.AvgPool2d(size), current(steps, channels, height, width, dtype)
    # with one channel both layouts are equal
    assert windows.can_fuse_pooling(x, layer) == (channels > 1)
    if channels == 1:
        return
    for reset, detach in (("hard", False), ("soft", True)):
        options = {"decay": 0.6, "v_th": 0.5, "reset": reset, "detach_reset": detach}
        apart, together = (outcome(x, layer, together=way, **options) for way in (False, True))
        assert equal(apart, together)
    assert 0 < apart[0].mean() < 1 and (apart[1] != 0).any()


def test_gates_noise_decays_and_normalisation_come_along():
    """Derivatives that are sums over many elements agree to rounding: the order differs."""
    layer, x = nn.AvgPool2d(2), current(T, 6, 4, 6)
    norm = nn.BatchNorm2d(6)
    with torch.no_grad():
        norm.weight.copy_(draw(6, name="weight").abs() + 0.5)
        norm.bias.copy_(draw(6, name="bias"))
    sides = {
        "scalars": {"decay": torch.tensor(0.7)},
        "tables": {"decay": draw(T, 1, 6, 1, 1, name="d").sigmoid(), "gate": draw(T, 1, 1, 1, 1)},
        "full": {"decay": draw(1, *x.shape[1:], name="d").sigmoid(), "gate": draw(*x.shape)},
        "noise": {"decay": 0.7, "noise": 0.3 * draw(*x.shape, name="noise")},
    }
    for name, options in sides.items():
        for mode in (None, norm.eval(), norm.train()):
            apart, together = (
                outcome(x, layer, together=way, norm=copy.deepcopy(mode), v_th=0.4, **options)
                for way in (False, True)
            )
            assert torch.equal(apart[0], together[0]), name
            for a, b in zip(apart, together, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_averaged_by_any_number_of_threads(threads):
    layer, x = nn.AvgPool2d(2), current(1, 8, 14, 14)
    alone = outcome(x, layer, together=True, decay=0.5)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert equal(alone, outcome(x, layer, together=True, decay=0.5))
    finally:
        torch.set_num_threads(before)


def test_kernels_without_pooling_reject_a_window():
    with pytest.raises(ValueError, match="kernel 'multistep' cannot pool spikes"):
        integrate_and_fire(
            current(T, 4, 4, 4), decay=0.5, surrogate=SURROGATE, kernel="multistep", window=(2, 2)
        )


class Looked(LIF):
    """Returns other values than its spikes, as ``returns_spikes = False`` declares."""

    returns_spikes = False

    def forward(self, current, *, T=None, norm=None):
        return 0.5 * super().forward(current, T=T, norm=norm)


def network(neuron):
    layers = [nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), neuron, nn.AvgPool2d(2)]
    stages = {"features": TimeSequential(*layers, nn.Flatten(), nn.Linear(128, 3))}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SNN(stages, T=T, num_classes=3, in_shape=(2, 8, 8))
        for layer in layers[:1]:
            nn.init.normal_(layer.weight)
    return model.eval()


def seen(model, monkeypatch, look=nullcontext):
    """Return logits and input gradient, and whether the membrane's pass included the pooling."""
    asked = []
    real = windows.can_fuse_pooling
    monkeypatch.setattr(
        windows, "can_fuse_pooling", lambda *words: asked.append(real(*words)) or asked[-1]
    )
    x = torch.rand(5, 2, 8, 8, generator=stream(0, "seen")).requires_grad_()
    with look():
        logits = model(x)
    (slope,) = torch.autograd.grad(logits.square().sum(), x)
    return [logits.detach(), slope], any(asked)


def test_a_network_pools_in_the_membranes_pass_unless_a_layer_is_observed(monkeypatch):
    model = network(LIF(0.5, v_th=0.3))
    plain, together = seen(model, monkeypatch)
    assert together and plain[1].abs().max() > 0
    looks = {
        "a hook behind the neuron": lambda: hooked(model.features[2]),
        "a hook behind the pooling": lambda: hooked(model.features[3]),
        "a recorder": lambda: record(model),
        "the definition": unfused,
    }
    for name, look in looks.items():
        found, together = seen(model, monkeypatch, look)
        assert not together, name
        for a, b in zip(plain, found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)
    rule = BPTR()
    with backward_rule(model, rule.prescribe):
        assert not seen(model, monkeypatch)[1]
    model.features[3] = nn.AvgPool2d(3, 1, 1)
    model.features[5] = nn.Linear(512, 3)
    assert not seen(model, monkeypatch)[1]


@pytest.mark.parametrize(
    "neuron", [Looked(0.5, v_th=0.3), StoG(0.5, v_th=0.3)], ids=lambda n: type(n).__name__
)
def test_a_neuron_that_changes_its_spikes_keeps_them(neuron, monkeypatch):
    assert not seen(network(neuron), monkeypatch)[1]


@contextmanager
def hooked(layer):
    handle = layer.register_forward_hook(lambda *words: None)
    try:
        yield
    finally:
        handle.remove()
