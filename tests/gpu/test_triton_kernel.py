"""The Triton kernel against the definition, on a GPU, or on CPU tensors in Triton's interpreter.

tests/kernels/test_triton.py runs this file in the interpreter; tensors are small: that is slow.
"""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from spikeguard.kernels import triton
from spikeguard.kernels.dispatch import integrate_and_fire
from spikeguard.kernels.reference import Firing
from spikeguard.kernels.selection import KERNELS, why_not
from spikeguard.kernels.triton.backend import BACKEND, LONGEST
from spikeguard.neurons import SURROGATES, Triangular
from tests.toys.kernel_cases import SHARED, Case, case, compare, draw, run

pytestmark = pytest.mark.skipif(why_not("triton") is not None, reason=f"{why_not('triton')}")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PASSES = Path(triton.__file__).with_name("programs.py")


def moved(*tensors, to=DEVICE):
    return [x.to(to) if isinstance(x, torch.Tensor) else x for x in tensors]


def on_device(*arguments, potentials):
    """The kernel as the contract calls it, with tensors of the CPU."""
    out = KERNELS["triton"](*moved(*arguments), potentials=potentials)
    return Firing(*moved(*out, to="cpu"))


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    monkeypatch.setitem(KERNELS, "on_device", on_device)
    return "on_device"


# ---------------------------------------------------------------------- the recurrence alone


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach_reset", [False, True])
def test_equals_the_reference(kernel, dtype, reset, detach_reset):
    options = {"reset": reset, "detach_reset": detach_reset}
    compare(kernel, case(dtype, gate=SHARED["step"], noise=True, v_th=0.7, **options))
    compare(kernel, case(dtype, read="spikes", **options))
    compare(kernel, case(dtype, read="v", **options))


@pytest.mark.parametrize("gate", [None, *SHARED, "full"])
@pytest.mark.parametrize("decay", [*SHARED, "full"])
def test_decay_and_gate_may_vary_along_any_axis(kernel, decay, gate):
    shapes = {**SHARED, "full": (4, 3, 2, 5), None: None}
    compare(kernel, case(torch.float32, decay=shapes[decay], gate=shapes[gate]))


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate(kernel, surrogate):
    """In float32 a GPU's exp and division are off by a few units in the last place."""
    options = {"noise": True, "v_th": 0.3, "surrogate": SURROGATES[surrogate]()}
    compare(kernel, case(**options))
    c = case(torch.float32, **options)
    (out, grads), (expected, expected_grads) = run(kernel, c), run("reference", c)
    assert torch.equal(out.v, expected.v)
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1,), (7, 2), (2, 600), (2, 3, 40), (9, 2, 3, 2, 2), (17, 3)])
def test_more_than_one_tile_and_any_number_of_axes(kernel, shape):
    """600 elements are two tiles; 40 channels are two; 9 and 17 steps have tiles of other sizes."""
    shared = (shape[0], 1, *shape[2:3], *[1] * len(shape[3:]))[: len(shape)]
    compare(kernel, case(torch.float32, shape, decay=shared, noise=True))


def test_a_tie_fires(kernel):
    for reset in ("hard", "soft"):
        compare(kernel, Case(torch.full((8, 1), 0.25), torch.tensor(1.0), reset=reset))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_membrane_is_never_below_float32(kernel, dtype):
    """Spikes and potentials are those of float32; gradients are rounded on the way out.

    The interpreter cuts bfloat16 off, a GPU rounds it to nearest: one unit in the last place.
    """
    low = case(dtype, gate=SHARED["step"], noise=True)
    (out, grads), (expected, expected_grads) = run(kernel, low), run("reference", low)
    assert out.spikes.dtype == dtype and out.v.dtype == torch.float32
    assert torch.equal(out.spikes, expected.spikes) and torch.equal(out.v, expected.v)
    unit = torch.finfo(dtype).eps
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], rtol=2 * unit, atol=unit / 8)


def test_an_empty_batch(kernel):
    out, grads = run(kernel, case(shape=(3, 0, 4), gate=(3, 1, 1)))
    assert out.spikes.shape == out.v.shape == grads["current"].shape == (3, 0, 4)
    assert grads["decay"] == 0 and grads["gate"].tolist() == [[[0.0]]] * 3


def test_unsupported_calls_run_on_another_kernel(kernel):
    x = torch.zeros(LONGEST, 2, device=DEVICE)
    assert BACKEND.supports(x, Triangular())
    assert not BACKEND.supports(torch.zeros(LONGEST + 1, 2, device=DEVICE), Triangular())
    assert not BACKEND.supports(x, torch.zeros_like)
    assert not BACKEND.supports(x.to(torch.complex64), Triangular())


def test_no_state_and_no_randomness(kernel):
    c = case(torch.float32, decay=SHARED["both"], gate=SHARED["both"])
    (first, first_grads), (again, again_grads) = run(kernel, c), run(kernel, c)
    assert torch.equal(first.spikes, again.spikes) and torch.equal(first.v, again.v)
    assert all(torch.equal(g, again_grads[n]) for n, g in first_grads.items())


# ------------------------------------------------------- batch norm, one step for all, layouts


def norm_of(x, kind, dtype):
    """A batch norm with weights and statistics other than where they start."""
    module = nn.BatchNorm2d if x.ndim == 5 else nn.BatchNorm1d
    norm = module(x.shape[2], affine=kind != "plain", dtype=dtype)
    with torch.no_grad():
        norm.running_mean.copy_(draw(x.shape[2], low=-0.3, high=0.3, name="mean"))
        norm.running_var.copy_(draw(x.shape[2], low=0.5, high=2.0, name="var"))
        if norm.affine:
            norm.weight.copy_(draw(x.shape[2], low=0.5, high=1.5, name="weight"))
            norm.bias.copy_(draw(x.shape[2], low=0.2, high=0.8, name="bias"))
    return norm.to(DEVICE).train(kind != "eval")


def normalised(kernel, x, norm, T, decay):
    """Return spikes, v, the gradients of x, decay, weight and bias, and the statistics."""
    x, decay = x.detach().clone().requires_grad_(), decay.detach().clone().requires_grad_()
    norm, options = copy.deepcopy(norm), {"decay": decay, "surrogate": Triangular()}
    if kernel == "triton":
        out = integrate_and_fire(x, T=T, norm=norm, kernel=kernel, **options)
    else:
        current = norm(x.flatten(0, 1)).view(x.shape).expand(T, *x.shape[1:])
        out = integrate_and_fire(current, kernel=kernel, **options)
    read = draw(*out.spikes.shape, low=-1, name="read", dtype=x.dtype).to(DEVICE)
    (out.spikes * read + out.v * read.flip(0)).sum().backward()
    grads = [x.grad, decay.grad, *(p.grad for p in norm.parameters())]
    return out.spikes, out.v, grads, [*norm.buffers()]


def with_norm(kind="train", dtype=torch.float64, S=3, T=3, shape=(4, 3, 2, 3), last=False):
    """Compare the fused pass with torch's batch norm and the reference; return its spikes."""
    x = draw(S * shape[0], *shape[1:], low=-1.0, high=2.0, name="x", dtype=dtype).to(DEVICE)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    x = x.view(S, *shape)
    decay = draw(T, 1, shape[1], *[1] * len(shape[2:]), low=0.3, name="decay", dtype=dtype)
    norm, decay = norm_of(x, kind, dtype), decay.to(DEVICE)
    spikes, v, grads, statistics = normalised("triton", x, norm, T, decay)
    spikes_, v_, grads_, statistics_ = normalised("reference", x, norm, T, decay)
    tolerance = {"rtol": 1e-9, "atol": 1e-10}
    if dtype == torch.float32:
        tolerance = {"rtol": 1e-4, "atol": 1e-5}
    assert torch.equal(spikes, spikes_) and 0.1 < spikes.mean() < 0.9
    for found, expected in zip([v, *grads, *statistics], [v_, *grads_, *statistics_], strict=True):
        torch.testing.assert_close(found, expected, **tolerance)
    return spikes


@pytest.mark.parametrize("kind", ["train", "plain", "eval"])
@pytest.mark.parametrize(("S", "T"), [(3, 3), (1, 3), (1, 1)])
def test_batch_norm_comes_first_in_the_same_pass(kind, S, T):
    with_norm(kind, S=S, T=T)


def test_batch_norm_in_float32_and_for_vectors():
    with_norm(dtype=torch.float32)
    with_norm(shape=(6, 40))


@pytest.mark.parametrize("S", [1, 2])
def test_channels_last_stays_channels_last(S):
    spikes = with_norm(S=S, T=2, shape=(3, 40, 2, 3), last=True)
    assert spikes.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("T", [5, LONGEST + 1])
def test_one_step_for_all_sums_the_gradients_of_all(T):
    image = draw(1, 6, low=0.2, high=1.5, name="image").to(DEVICE).requires_grad_()
    copied = image.detach().repeat(T, 1).requires_grad_()
    for x, kernel in ((image, "triton"), (copied, "reference")):
        out = integrate_and_fire(x, decay=0.5, surrogate=Triangular(), T=T, kernel=kernel)
        out.spikes.sum().backward()
    torch.testing.assert_close(image.grad, copied.grad.sum(0, keepdim=True), rtol=1e-12, atol=0)


# ------------------------------------------------------------------------- planted faults


FAULTS = {
    "strict threshold": ("drive >= V_TH", "drive > V_TH", test_a_tie_fires),
    "no reset gradient": (
        "dv = dv - du * v\n",
        "pass\n",
        lambda kernel: compare(kernel, case(torch.float32)),
    ),
    "decay of the step before": (
        "du = dv * _side(decay, t,",
        "du = dv * _side(decay, t - 1,",
        lambda kernel: compare(kernel, case(torch.float32, decay=SHARED["step"])),
    ),
    "no shift": ("value = a * value + b", "value = a * value", lambda _: with_norm()),
    "wrong sums": ("total.to(tl.float64) * stored", "stored * stored", lambda _: with_norm()),
    "last step alone": (
        "total += dv",
        "total = dv",
        lambda _: test_one_step_for_all_sums_the_gradients_of_all(5),
    ),
    "one row of tiles": (
        "row = tl.program_id(0) * R +",
        "row =",
        lambda kernel: compare(kernel, case(torch.float32, (2, 600))),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(kernel, fault, tmp_path, monkeypatch):
    good, bad, check = FAULTS[fault]
    source = PASSES.read_text(encoding="utf-8")
    assert good in source
    (tmp_path / "faulty.py").write_text(source.replace(good, bad), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("faulty", tmp_path / "faulty.py")
    faulty = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faulty)
    check(kernel)
    monkeypatch.setattr(triton, "programs", faulty)
    with pytest.raises(AssertionError):
        check(kernel)
