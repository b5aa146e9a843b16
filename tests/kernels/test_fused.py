"""Fused kernels: batch normalisation in the same pass, one repeated step, fallbacks."""

import copy
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.kernels.cpu import backend as cpu_module
from spikeguard.kernels.cpu import library as cpu_library
from spikeguard.kernels.dispatch import integrate_and_fire
from spikeguard.kernels.selection import KERNELS, default_kernel, fusing, use_kernel, why_not
from spikeguard.models import CNN, VGG5, WRN16_4
from spikeguard.models import efficient_layers as lean
from spikeguard.models.resnet import ConvexCombination
from spikeguard.models.snn import TimeSequential
from spikeguard.neurons import LIF, NEURONS, Triangular, are_spikes, record
from spikeguard.rng import randomness, stream

compiled = pytest.mark.skipif(why_not("cpu") is not None, reason=f"cpu: {why_not('cpu')}")
SHAPES = {"features": (3, 4, 5), "image": (3, 4, 5, 3, 2), "one step": (1, 4, 5, 3, 2)}
T = 3


def draw(*shape, name="", low=-1.0, high=1.0, dtype=torch.float64):
    unit = torch.rand(shape, generator=stream(0, "fused", name), dtype=torch.float64)
    return (low + (high - low) * unit).to(dtype)


def batch_norm(shape, dtype=torch.float64, **options):
    """A batch normalisation whose weights and statistics are not the initial ones."""
    norm = (
        nn.BatchNorm1d(shape[2], **options)
        if len(shape) == 3
        else nn.BatchNorm2d(shape[2], **options)
    )
    norm = norm.to(dtype)
    with torch.no_grad():
        for name, values in norm.state_dict().items():
            if values.is_floating_point():
                values.copy_(draw(*values.shape, name=name, low=0.4, high=1.6))
    return norm


def outcome(kernel, x, norm, *, channels_last=False, **options):
    """Return the outputs, gradients and statistics of a layer, by name."""
    norm = copy.deepcopy(norm)
    x = x.detach().clone()
    if channels_last:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(x.shape)
    x.requires_grad_()
    settings = {"decay": torch.tensor(0.6, dtype=x.dtype, requires_grad=True), **options}
    out = integrate_and_fire(x, surrogate=Triangular(), kernel=kernel, T=T, norm=norm, **settings)
    shape = out.spikes.shape
    loss = (out.spikes * draw(*shape, name="ds")).sum() + (out.v * draw(*shape, name="dv")).sum()
    loss.backward()
    found = {"spikes": out.spikes.detach(), "v": out.v.detach(), "dx": x.grad}
    found |= {f"d {n}": p.grad for n, p in norm.named_parameters()}
    found |= {f"d {n}": t.grad for n, t in settings.items() if isinstance(t, torch.Tensor)}
    return found | {n: b.double() for n, b in norm.named_buffers()}


@compiled
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("mode", ["batch", "running", "no statistics", "cumulative"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_batch_normalisation_in_the_kernel_is_torchs_before_the_reference(
    shape, channels_last, mode, affine
):
    if channels_last and len(shape) < 5:
        pytest.skip("features have one memory layout")
    options = {"batch": {}, "running": {}, "no statistics": {"track_running_stats": False}}
    norm = batch_norm(shape, affine=affine, **options.get(mode, {"momentum": None}))
    norm.train(mode in ("batch", "cumulative"))
    x = draw(*shape, name="x", low=-1, high=3)
    expected = outcome("reference", x, norm)
    found = outcome("cpu", x, norm, channels_last=channels_last)
    assert expected["spikes"].mean() > 0.1 and set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-11, msg=name)


@compiled
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gates_noise_and_decays_of_all_shapes_beside_batch_normalisation(shape):
    norm, x = batch_norm(shape), draw(*shape, name="x", low=-1, high=3)
    rest = [1] * (len(shape) - 3)
    full = (T, *shape[1:])
    for sides in (
        (T, 1, 1),
        (1, 1, shape[2]),
        (T, 1, shape[2]),
        (T, *shape[1:3]),
        (1, *shape[1:3]),
    ):
        side = (*sides, *rest)
        make = {
            "decay": lambda s=side: draw(*s, name="decay", low=0.3, high=1).requires_grad_(),
            "gate": lambda s=side: draw(*s, name="gate", low=0.5, high=1.5).requires_grad_(),
            "noise": lambda: draw(*full, name="noise", low=-0.2, high=0.2).requires_grad_(),
        }
        for reset in ("hard", "soft"):
            runs = [
                outcome(kernel, x, norm, reset=reset, **{n: f() for n, f in make.items()})
                for kernel in ("reference", "cpu")
            ]
            for name, value in runs[0].items():
                torch.testing.assert_close(runs[1][name], value, rtol=1e-11, atol=1e-11, msg=name)


@compiled
def test_a_planted_fault_in_the_statistics_is_seen(monkeypatch):
    shape = SHAPES["image"]
    norm, x = batch_norm(shape), draw(*shape, name="x", low=-1, high=3)
    expected = outcome("reference", x, norm)
    moments = cpu_module.CPUBackend.moments

    def unbiased(self, x):
        mean, var = moments(self, x)
        n = x[:, :, 0].numel()
        return mean, var * n / (n - 1)

    monkeypatch.setattr(cpu_module.CPUBackend, "moments", unbiased)
    found = outcome("cpu", x, norm)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found["v"], expected["v"], rtol=1e-11, atol=1e-11)


@compiled
@pytest.mark.parametrize("channels_last", [False, True])
def test_in_evaluation_mode_no_bit_changes(channels_last):
    """On processors with fused multiply-add, torch's batch normalisation and the kernel use it."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch rounds twice on this processor")
    shape = (3, 3, 16, 9, 7)
    norm = batch_norm(shape, torch.float32).eval()
    x = draw(*shape, name="x", low=-1, high=3, dtype=torch.float32)
    found = outcome("cpu", x, norm, channels_last=channels_last)
    assert torch.equal(found["v"], outcome("reference", x, norm)["v"])


@compiled
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_variance_far_from_zero_mean(dtype):
    """A mean 1000 times the deviation: a sum of squares in float32 would lose the variance."""
    x = (draw(2, 8, 3, 4, 4, name="x") + torch.tensor([0.0, 10, 1000]).view(3, 1, 1)).to(dtype)
    mean, var = cpu_module.BACKEND.moments(x)
    exact = x.double().transpose(0, 2).flatten(1)
    torch.testing.assert_close(mean, exact.mean(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(var, exact.var(1, unbiased=False), rtol=1e-6, atol=0)


@compiled
def test_half_precision_is_rounded_only_on_the_way_in_and_out():
    shape = SHAPES["image"]
    norm = batch_norm(shape, torch.float32)
    x = draw(*shape, name="x", low=-1, high=3, dtype=torch.bfloat16)
    low, high = (outcome("cpu", each, norm, decay=0.5) for each in (x, x.float()))
    assert low["v"].dtype == torch.float32 and torch.equal(low["v"], high["v"])
    assert low["dx"].dtype == torch.bfloat16
    assert torch.equal(low["spikes"].float(), high["spikes"])


@compiled
def test_one_value_per_channel_cannot_be_normalised():
    with pytest.raises(ValueError, match=r"more than one value per channel, got \[1, 1, 5\]"):
        outcome("cpu", draw(1, 1, 5), batch_norm((1, 1, 5)))


@compiled
def test_second_derivatives_are_rejected():
    x = draw(3, 4).requires_grad_()
    spikes = integrate_and_fire(x, decay=0.5, surrogate=Triangular(), kernel="cpu").spikes
    with pytest.raises(RuntimeError, match=r"differentiable once; .*use_kernel\('reference'\)"):
        torch.autograd.grad(spikes.sum(), x, create_graph=True)


@compiled
def test_the_kernel_keeps_its_input_and_nothing_else_of_its_size():
    norm, x = batch_norm((4, 6, 5, 4, 4)), draw(4, 6, 5, 4, 4).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        integrate_and_fire(
            x, decay=0.5, surrogate=Triangular(), kernel="cpu", norm=norm, potentials=False
        )
    large = [t for t in kept if t.numel() >= x[0].numel()]
    assert [t.data_ptr() for t in large] == [x.data_ptr()]


@compiled
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_any_number_of_threads(threads):
    before = torch.get_num_threads()
    shape = (3, 7, 5, 33, 9)
    norm, x = batch_norm(shape), draw(*shape, name="x", low=-1, high=3)
    expected = outcome("reference", x, norm, decay=0.5)
    try:
        torch.set_num_threads(threads)
        found = outcome("cpu", x, norm, decay=0.5)
        again = outcome("cpu", x, norm, decay=0.5)
    finally:
        torch.set_num_threads(before)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=name)
        assert torch.equal(found[name], again[name]), name


@compiled
def test_without_openmp_one_thread_does_it_all(monkeypatch):
    monkeypatch.setattr(cpu_library, "_openmp", lambda: (None, None, None))
    shape = (3, 7, 5, 33, 9)
    norm, x = batch_norm(shape), draw(*shape, name="x", low=-1, high=3)
    expected = outcome("reference", x, norm)
    for name, value in outcome("cpu", x, norm).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.slow
@compiled
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_the_libraries_for_other_processors_give_the_same_bits(capability):
    """The variable limits torch's instruction set; the kernel loads the library for that one."""
    contracts = Path(__file__).parents[1] / "contracts" / "test_kernels.py"
    words = ["-q", "-p", "no:cacheprovider", "-k", "equals_the_reference and cpu", str(contracts)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


# ----------------------------------------------------------------- which kernel runs a call


@compiled
def test_the_fused_kernel_is_the_default_and_takes_what_it_knows(monkeypatch):
    taken, kernel = [], KERNELS["cpu"]

    def spy(*arguments, **options):
        taken.append(options["T"])
        return kernel(*arguments, **options)

    monkeypatch.setitem(KERNELS, "cpu", spy)
    x = draw(4, 3)
    integrate_and_fire(x, decay=0.5, surrogate=Triangular())
    assert taken == [4]
    for unknown in (
        {"surrogate": torch.zeros_like},
        {"surrogate": Triangular(), "current": x.half()},
    ):
        arguments = {"current": x, "decay": 0.5, **unknown}
        assert torch.equal(
            integrate_and_fire(**arguments).v, integrate_and_fire(**arguments, kernel="reference").v
        )
    assert taken == [4]
    with use_kernel("multistep"):
        integrate_and_fire(x, decay=0.5, surrogate=Triangular())
        assert not fusing(x.device)
    assert taken == [4] and fusing(x.device)


def test_every_kernel_has_a_line_and_says_why_it_cannot_be_used(monkeypatch):
    assert all(entry.__doc__ for entry in KERNELS.values())
    assert why_not("reference") is None and why_not("multistep") is None
    monkeypatch.setattr(cpu_library, "_library", lambda: (None, "no compiler"))
    x = draw(4, 3)
    out = integrate_and_fire(x, decay=0.5, surrogate=Triangular())  # multistep takes over
    assert torch.equal(
        out.v, integrate_and_fire(x, decay=0.5, surrogate=Triangular(), kernel="reference").v
    )
    assert not fusing(x.device)
    with pytest.raises(ValueError, match="kernel 'cpu' is not available: no compiler"):
        integrate_and_fire(x, decay=0.5, surrogate=Triangular(), kernel="cpu")
    with (
        pytest.raises(ValueError, match="use_kernel: kernel 'cpu' is not available"),
        use_kernel("cpu"),
    ):
        pass


def test_the_environment_can_name_the_kernel(monkeypatch):
    device = torch.device("cpu")
    monkeypatch.setenv("SPIKEGUARD_KERNEL", "reference")
    assert default_kernel(device) == "reference" and not fusing(device)
    with use_kernel("multistep"):
        assert default_kernel(device) == "multistep"
    monkeypatch.setenv("SPIKEGUARD_KERNEL", "referense")
    with pytest.raises(ValueError, match="SPIKEGUARD_KERNEL: unknown kernel 'referense'; known: "):
        integrate_and_fire(draw(4, 3), decay=0.5, surrogate=Triangular())


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (None, "it was not compiled when the package was installed"),
        ({"libraries": {}, "reason": "no C++ compiler", "source": ""}, "no C++ compiler"),
        ({"libraries": {"base": "x.so"}, "reason": "", "source": "0"}, "other source files"),
        ({"libraries": {"base": "x.so"}, "reason": ""}, "its library cannot be loaded"),
        ({"libraries": {"other": "x.so"}, "reason": ""}, "no library was compiled for this"),
    ],
)
def test_a_missing_stale_or_broken_library_is_named(tmp_path, monkeypatch, card, reason):
    (tmp_path / "cpu.cpp").write_bytes(b"int x;")
    (tmp_path / "one.h").write_bytes(b"int y;")
    (tmp_path / "x.so").write_bytes(b"no library")
    if card is not None:
        digest = hashlib.sha256(b"int x;int y;").hexdigest()
        (tmp_path / "_cpu.json").write_text(json.dumps({"source": digest, **card}))
    monkeypatch.setattr(cpu_library, "_HERE", tmp_path)
    cpu_library._library.cache_clear()
    try:
        library, said = cpu_library._library()
    finally:
        cpu_library._library.cache_clear()
    assert library is None and reason in said and "\n" not in said


# --------------------------------------------------------------------------- inside a network


@pytest.mark.parametrize("name", NEURONS)
def test_a_neuron_takes_one_step_for_all_and_a_normalisation(name):
    """The same as with the step repeated and the normalisation applied before."""
    options = {"T": T} if name in ("dlif", "evolutionary_lif") else {}
    neuron = NEURONS[name](**options)
    neuron.settle((5, 2, 2))
    x = draw(1, 4, 5, 2, 2, name="x", low=-1, high=3, dtype=torch.float32)
    norm = batch_norm(x.shape, torch.float32).eval()
    normal = norm(x[0])[None].expand(T, -1, -1, -1, -1)
    with randomness(neuron, stream(0, "noise")):
        expected = neuron(normal.contiguous())
    for kernel in [k for k in KERNELS if why_not(k) is None]:
        with use_kernel(kernel), randomness(neuron, stream(0, "noise")):
            assert torch.equal(neuron(x, T=T, norm=norm), expected), kernel
    assert expected.mean() > 0


NETWORKS = {
    "cnn": (lambda: CNN(T=3, width=4, hidden=8), (6, 1, 28, 28)),
    "vgg5": (lambda: VGG5(T=3, width=0.1), (4, 3, 32, 32)),
    "wrn16_4": (lambda: WRN16_4(T=3, width=0.15, image_size=8), (4, 3, 8, 8)),
}


def lower_thresholds(model):
    """Lower the thresholds, so that all layers of an untrained network fire."""
    for neuron in model.modules():
        if hasattr(neuron, "v_th"):
            neuron.v_th = 0.3


def step(model, x, y):
    """Return logits, input gradient, weight gradients and statistics of one training step."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    logits = model(x)
    functional.cross_entropy(logits, y).backward()
    return (
        logits.detach(),
        x.grad,
        torch.cat([p.grad.flatten() for p in model.parameters()]),
        torch.cat([b.flatten() for n, b in model.named_buffers() if "running" in n]),
    )


@compiled
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_trains_as_on_the_reference(name):
    """In double, where no rounding flips a spike: logits, gradients and statistics agree."""
    build, shape = NETWORKS[name]
    x, y = draw(*shape, name="x", low=0), torch.arange(shape[0]) % 10
    models = [build().double().train() for _ in range(2)]
    for model in models:
        lower_thresholds(model)
    with use_kernel("reference"):
        expected = step(models[0], x, y)
    with use_kernel("cpu"):
        found = step(models[1], x, y)
    assert expected[1].abs().max() > 0
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@compiled
@pytest.mark.parametrize("name", NETWORKS)
def test_an_attack_sees_the_gradient_of_the_reference(name):
    build, shape = NETWORKS[name]
    x, y = draw(*shape, name="x", low=0), torch.arange(shape[0]) % 10
    model = build().double()
    lower_thresholds(model)
    with torch.no_grad():
        for _ in range(20):
            model(draw(*shape, name="more", low=0))  # statistics under which the neurons fire
    model.eval().requires_grad_(False)
    found = {}
    for kernel in ("reference", "cpu"):
        leaf = x.clone().requires_grad_()
        with use_kernel(kernel):
            functional.cross_entropy(model(leaf), y).backward()
        found[kernel] = leaf.grad
    assert found["reference"].abs().max() > 0
    torch.testing.assert_close(found["cpu"], found["reference"], rtol=1e-9, atol=1e-12)


@compiled
def test_recording_does_not_change_a_bit_of_training_and_shows_the_current():
    x, y = draw(6, 1, 28, 28, name="x", low=0, dtype=torch.float32), torch.arange(6)
    models = [CNN(T=3, width=4, hidden=8).train() for _ in range(2)]
    plain = step(models[0], x, y)
    with record(models[1]) as trace:
        watched = step(models[1], x, y)
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    for seen in trace.values():
        v = torch.zeros_like(seen.v)
        u = torch.zeros_like(seen.v[0])
        for t in range(len(v)):
            v[t] = 0.5 * u + seen.current[t]
            u = v[t] * (seen.v[t] < seen.v_th)
        torch.testing.assert_close(v, seen.v, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_convex_combination_in_few_passes_is_the_plain_one(channels_last, frozen):
    join = ConvexCombination().double().requires_grad_(not frozen)
    with torch.no_grad():
        join.coefficients.copy_(torch.tensor([0.3, 0.9]))
    found = []
    for kernel in ("reference", "multistep"):
        join.zero_grad()
        a, b = (draw(2, 3, 4, 5, 6, name=name).requires_grad_() for name in "ab")
        if channels_last:
            a, b = (
                x.detach()
                .flatten(0, 1)
                .contiguous(memory_format=torch.channels_last)
                .view(x.shape)
                .requires_grad_()
                for x in (a, b)
            )
        with use_kernel(kernel):
            y = join(a, b)
        (y * draw(*y.shape, name="w")).sum().backward()
        found.append(
            [y.detach(), a.grad, b.grad, *(p.grad for p in join.parameters() if not frozen)]
        )
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@compiled
def test_a_scaled_input_is_recorded_alike_on_every_kernel():
    """The recorded current is the scaled one, which enters the membrane."""
    model = TimeSequential(nn.BatchNorm2d(2), LIF.from_tau(2.0, decay_input=True)).eval()
    x = draw(3, 3, 2, 4, 4, dtype=torch.float32)
    expected = model[0](x.flatten(0, 1)).view(x.shape) / 2
    for kernel in [k for k in KERNELS if why_not(k) is None]:
        with use_kernel(kernel), record(model) as trace:
            model(x, 3)
        torch.testing.assert_close(trace["1"].current, expected, msg=kernel)


@compiled
def test_a_hook_sees_what_the_layers_exchange():
    model = TimeSequential(nn.BatchNorm2d(2), LIF())
    x = draw(2, 3, 2, 4, 4, dtype=torch.float32)
    expected = nn.BatchNorm2d(2)(x.flatten(0, 1))
    for watched in model:
        seen = []
        if isinstance(watched, LIF):
            handle = watched.register_forward_pre_hook(lambda m, a, seen=seen: seen.append(a[0]))
        else:
            handle = watched.register_forward_hook(lambda m, a, out, seen=seen: seen.append(out))
        model(x, 2)
        handle.remove()
        torch.testing.assert_close(seen[0].reshape(expected.shape), expected)


def kept_bytes(model, x, kernel, *steps):
    """Return the bytes that the graph of one forward pass saves, without the weights."""
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with use_kernel(kernel), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(x, *steps)
    return sum(size for pointer, size in kept.items() if pointer not in own)


@compiled
def test_an_attack_on_a_network_keeps_the_currents_and_nothing_else():
    """conv - BN - LIF - A - conv - BN - LIF: the two convolutions' outputs, the first one once."""
    model = CNN(T=4, width=8, hidden=16).eval().requires_grad_(False)
    x = draw(5, 1, 28, 28, dtype=torch.float32).requires_grad_()
    w, n, size = 8, 5, 28 * 28
    currents = w * size * n + 4 * n * (2 * w * size // 4 + 4 * w * size // 16 + 16)
    small = 4096  # statistics, scales and what the normalisation of the image keeps
    assert kept_bytes(model, x, "cpu") <= 4 * (currents + x.numel()) + small
    assert kept_bytes(model, x, "multistep") > 4 * (currents + x.numel()) + small
    assert kept_bytes(model, x, "reference") > 3 * 4 * currents


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_lean_pooling_is_torchs(channels_last, size):
    x = draw(2, 3, *size, name="x")
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    for layer in (nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2, ceil_mode=True)):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        y, expected = lean.run(layer, a), layer(b)
        weights = draw(*expected.shape, name="w")
        (y * weights).sum().backward()
        (expected * weights).sum().backward()
        assert torch.equal(y, expected) and torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, stride=2, bias=False),
        nn.Conv2d(4, 6, 3, dilation=2, groups=2),
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    ],
    ids=str,
)
def test_a_lean_frozen_convolution_is_torchs(layer):
    layer = layer.double().requires_grad_(False)
    x = draw(2, 4, 9, 8, name="x")
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = lean.run(layer, a), layer(b)
    weights = draw(*expected.shape, name="w")
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spikes", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_lean_convolution_is_torchs(bias, spikes):
    layer = nn.Conv2d(4, 6, 3, padding=1, stride=2, bias=bias).double()
    x = draw(2, 4, 9, 8, name="x")
    x = (x > 0).double() if spikes else x
    found = []
    for run in (lambda a: lean.run(layer, a, spikes=spikes), layer):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        y = run(leaf)
        (y * draw(*y.shape, name="w")).sum().backward()
        found.append([y.detach(), leaf.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_spikes_are_marked_until_they_are_modified():
    spikes = LIF()(draw(3, 4, low=0, high=2))
    assert are_spikes(spikes) and not are_spikes(spikes * 2) and not are_spikes(draw(3))
    spikes.mul_(2)
    assert not are_spikes(spikes)
    with torch.inference_mode():
        assert not are_spikes(LIF()(draw(3, 4)))


@compiled
def test_training_keeps_a_byte_for_each_spike_a_convolution_sees():
    """conv - BN - LIF - conv - BN - LIF: both currents, the input, and the spikes between."""
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), LIF()]
    layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), LIF()]
    model = TimeSequential(*layers)
    x = draw(4, 2, 3, 16, 16, dtype=torch.float32)
    n = 4 * 2 * 8 * 16 * 16
    kept = kept_bytes(model, x, "cpu", 4)
    assert 4 * (2 * n + x.numel()) + n <= kept <= 4 * (2 * n + x.numel()) + n + 4096


@compiled
def test_autocast_runs_through_the_fused_layers():
    """Every gradient has the dtype of its tensor."""
    x, y = draw(6, 1, 28, 28, name="x", low=0, dtype=torch.float32), torch.arange(6)
    model = CNN(T=3, width=4, hidden=8)
    for frozen in (False, True):
        model.requires_grad_(not frozen)
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(leaf)
        functional.cross_entropy(logits.float(), y).backward()
        assert leaf.grad.dtype == torch.float32 and bool(leaf.grad.isfinite().all())
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@compiled
def test_a_loss_of_the_potentials_alone_differentiates_a_pooled_layer():
    """The derivative of the pooled spikes is then absent, and counts as zero."""
    x = draw(6, 3, 4, 4, name="x").to(memory_format=torch.channels_last).view(3, 2, 3, 4, 4)
    slopes = []
    for window in (None, (2, 2)):
        leaf = x.detach().requires_grad_()
        options = {"decay": 0.5, "surrogate": Triangular(), "kernel": "cpu", "window": window}
        v = integrate_and_fire(leaf, **options).v
        slopes.append(torch.autograd.grad(v.sum(), leaf)[0])
    assert torch.equal(*slopes)
    assert slopes[0].abs().sum() > 0
