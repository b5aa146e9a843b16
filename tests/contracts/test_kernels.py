"""Contract of every kernel: bit-equal to the reference forward, equal to rounding backward."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spikeguard.kernels import multistep
from spikeguard.kernels.dispatch import integrate_and_fire
from spikeguard.kernels.reference import Firing
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.neurons import SURROGATES, Triangular
from tests.toys.kernel_cases import (
    SHAPE,
    SHARED,
    TOLERANCE,
    Case,
    call,
    case,
    compare,
    draw,
    leaves,
    run,
    weights,
)

AVAILABLE = [name for name in KERNELS if why_not(name) is None]
EACH_KERNEL = [
    pytest.param(k, marks=pytest.mark.skipif(k not in AVAILABLE, reason=f"{k}: {why_not(k)}"))
    for k in KERNELS
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("read", ["spikes", "v", "both"])
@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_equals_the_reference(kernel, dtype, reset, detach_reset, read):
    options = {"reset": reset, "detach_reset": detach_reset, "read": read}
    compare(kernel, case(dtype, gate=SHARED["step"], noise=True, **options))
    compare(kernel, case(dtype, **options))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gate", [None, *SHARED])
@pytest.mark.parametrize("decay", SHARED)
@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_decay_and_gate_may_be_shared_along_any_axis(kernel, decay, gate, dtype):
    compare(kernel, case(dtype, decay=SHARED[decay], gate=None if gate is None else SHARED[gate]))


@pytest.mark.parametrize("v_th", [0.3, 1.0])
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_every_surrogate(kernel, surrogate, v_th):
    compare(kernel, case(noise=True, v_th=v_th, surrogate=SURROGATES[surrogate]()))


@pytest.mark.parametrize("T", [1, 2, 7])
@pytest.mark.parametrize("rest", [(), (2,), (2, 1, 3)])
@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_any_number_of_steps_and_axes(kernel, T, rest):
    compare(kernel, case(shape=(T, *rest), decay=(T, *[1] * len(rest)), noise=True))


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    options=st.fixed_dictionaries(
        {
            "reset": st.sampled_from(["hard", "soft"]),
            "detach_reset": st.booleans(),
            "noise": st.booleans(),
            "v_th": st.sampled_from([0.25, 1.0, 1.7]),
            "read": st.sampled_from(["spikes", "v", "both"]),
        }
    ),
    dtype=st.sampled_from(list(TOLERANCE)),
    keep=st.lists(st.booleans(), min_size=4, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_any_shape_and_setting(shape, options, dtype, keep):
    """``keep`` picks the axes along which decay and gate vary."""
    shared = tuple(n if k else 1 for n, k in zip(shape, keep, strict=False))
    for kernel in AVAILABLE:
        compare(kernel, case(dtype, shape, decay=shared, gate=shared, **options))


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(kernel):
    out, grads = run(kernel, case(shape=(3, 0, 4), gate=(3, 1, 1)))
    assert out.spikes.shape == out.v.shape == grads["current"].shape == (3, 0, 4)
    assert grads["decay"] == 0 and grads["gate"].tolist() == [[[0.0]]] * 3


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_a_tie_fires(kernel):
    """Without leak two halves sum to v_th = 1 exactly, and so does 0.25 four times."""
    for unit, pattern in ((0.5, [0, 1, 0, 1, 0, 1, 0, 1]), (0.25, [0, 0, 0, 1, 0, 0, 0, 1])):
        for reset in ("hard", "soft"):
            tied = Case(torch.full((8, 1), unit), 1.0, reset=reset)
            assert call(kernel, tied).spikes.flatten().tolist() == pattern


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_worked_by_hand(kernel):
    """Three steps of 0.8 with decay 0.5: v = 0.8, 1.2 (fires), then 0.8 (hard) or 0.9 (soft)."""
    current = torch.full((3,), 0.8, dtype=torch.float64)
    for reset, last in (("hard", 0.8), ("soft", 0.5 * 0.2 + 0.8)):
        out = call(kernel, Case(current, 0.5, reset=reset))
        assert out.spikes.tolist() == [0, 1, 0]
        assert out.v.tolist() == pytest.approx([0.8, 1.2, last])


@pytest.mark.parametrize(
    ("reset", "detach_reset", "expected"),
    [
        # L = s[1], I = (0.5, 0.5), decay 0.5: v = 0.5, 0.75; h(v - 1) = 1/2, 3/4.
        ("hard", False, 0.75 * 0.5 * (1 - 0.5 * 0.5)),  # du/dv = (1 - s) - v h
        ("hard", True, 0.75 * 0.5),  # du/dv = 1 - s
        ("soft", False, 0.75 * 0.5 * (1 - 0.5)),  # du/dv = 1 - v_th h
        ("soft", True, 0.75 * 0.5),  # du/dv = 1
    ],
)
@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_gradient_worked_by_hand(kernel, reset, detach_reset, expected):
    current = torch.full((2,), 0.5, requires_grad=True)
    call(kernel, Case(current, 0.5, reset=reset, detach_reset=detach_reset)).spikes[1].backward()
    assert current.grad.tolist() == pytest.approx([expected, 0.75])


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_gradient_of_v_is_the_true_one_where_no_gradient_passes_the_threshold(kernel, reset):
    """With h = 0 and no potential at the threshold, v is differentiable: finite differences."""
    c = leaves(case(shape=(4, 6), gate=(4, 1), noise=True, reset=reset, surrogate=torch.zeros_like))
    assert (call(kernel, c).v - 1).abs().min() > 1e-4
    assert call(kernel, c).spikes.mean() > 0.1

    def v(current, decay, gate, noise):
        return call(kernel, replace(c, current=current, decay=decay, gate=gate, noise=noise)).v

    assert torch.autograd.gradcheck(v, (c.current, c.decay, c.gate, c.noise), eps=1e-7)


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_memory_layout_does_not_matter(kernel):
    plain = case(shape=(4, 6, 5))
    expected, expected_grads = run(kernel, plain)
    for layout in ("transposed", "strided"):
        current = plain.current.detach()
        if layout == "transposed":
            current = current.transpose(0, 2).contiguous().transpose(0, 2)
        else:
            current = torch.stack([current, current], dim=-1)[..., 0]
        assert not current.is_contiguous()
        current.requires_grad_()
        out = call(kernel, replace(plain, current=current))
        assert torch.equal(out.spikes, expected.spikes) and torch.equal(out.v, expected.v)
        loss = (out.spikes * weights((4, 6, 5), "spikes")).sum()
        (loss + (out.v * weights((4, 6, 5), "v")).sum()).backward()
        torch.testing.assert_close(current.grad, expected_grads["current"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_an_expanded_current_is_not_copied_and_collects_the_gradients_of_all_steps(kernel):
    image = draw(1, 6, low=0.2, high=1.5, name="image").requires_grad_()
    copied = image.detach().repeat(5, 1).requires_grad_()
    for current in (image.expand(5, 6), copied):
        call(kernel, Case(current, 0.5)).spikes.sum().backward()
    torch.testing.assert_close(image.grad, copied.grad.sum(0, keepdim=True), rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_the_membrane_is_never_below_float32(kernel, dtype):
    """The same numbers as for the current in float32; only the outputs are rounded."""
    low = case(dtype, gate=SHARED["step"], noise=True)
    high = replace(
        low, **{n: getattr(low, n).float() for n in ("current", "decay", "gate", "noise")}
    )
    (out, grads), (expected, expected_grads) = run(kernel, low), run(kernel, high)
    assert out.spikes.dtype == dtype and out.v.dtype == torch.float32
    assert torch.equal(out.spikes.float(), expected.spikes) and torch.equal(out.v, expected.v)
    for name, grad in grads.items():
        assert grad.dtype == dtype
        assert torch.equal(grad, expected_grads[name].to(dtype)), name


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_noise_in_double_does_not_change_the_precision_of_the_membrane(kernel):
    c = case(torch.float32)
    noise = draw(*SHAPE, name="noise")
    out = call(kernel, replace(c, noise=noise))
    assert out.v.dtype == torch.float32
    assert torch.equal(out.v, call(kernel, replace(c, noise=noise.float())).v)


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_no_state_and_no_randomness(kernel, untouched_global_generator):
    c = case(torch.float32, noise=True, gate=SHARED["both"])
    first, first_grads = run(kernel, c)
    run(kernel, replace(c, current=c.current + 1))
    again, again_grads = run(kernel, c)
    assert torch.equal(first.spikes, again.spikes) and torch.equal(first.v, again.v)
    assert all(torch.equal(g, again_grads[n]) for n, g in first_grads.items())


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_potentials_are_returned_only_when_asked_for(kernel):
    c = case(torch.float32, read="spikes")
    asked, asked_grads = run(kernel, c)
    silent, silent_grads = run(kernel, c, potentials=False)
    assert asked.v is not None and silent.v is None
    assert torch.equal(asked.spikes, silent.spikes)
    assert all(torch.equal(g, silent_grads[n]) for n, g in asked_grads.items())


@pytest.mark.parametrize("kernel", EACH_KERNEL)
def test_the_inputs_are_left_unchanged(kernel):
    c = leaves(case(noise=True, gate=SHARED["step"]))
    before = [t.detach().clone() for t in (c.current, c.decay, c.gate, c.noise)]
    call(kernel, c).spikes.sum().backward()
    after = (c.current, c.decay, c.gate, c.noise)
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


def saved_for_backward(kernel, c):
    """Return the storages that the call saves for its backward pass, except for scalars."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = call(kernel, c)
    return out, {pointer: x for pointer, x in kept.items() if x.numel() > 1}


@pytest.mark.parametrize("potentials", [False, True])
def test_multistep_keeps_its_inputs_and_nothing_else(potentials):
    """Memory for the backward pass is the current (and gate, decay, noise), not the potentials."""
    plain = leaves(case(torch.float32))
    full = leaves(case(torch.float32, decay=(4, 1, 1, 1), gate=(4, 1, 1, 1), noise=True))
    for c, count in ((plain, 1), (full, 4)):
        inputs = [x for x in (c.current, c.decay, c.gate, c.noise) if x is not None]
        own = {x.untyped_storage().data_ptr() for x in inputs}
        with use_kernel("multistep"):
            out, kept = saved_for_backward(None, replace(c))
        assert out.spikes.requires_grad
        assert set(kept) <= own and len(kept) == count
    _, of_reference = saved_for_backward("reference", plain)
    assert len(of_reference) > plain.current.shape[0]  # the hook does see what a plain loop keeps


def test_second_derivatives_are_exact_on_the_reference_and_rejected_by_multistep():
    """One step: ds/dI = h(I - 1), and with h = I - 1 squared the second derivative is 2 (I - 1)."""
    current = draw(1, 4).requires_grad_()

    def slope():
        spikes = integrate_and_fire(current, decay=0.5, surrogate=torch.square).spikes
        return torch.autograd.grad(spikes.sum(), current, create_graph=True)[0]

    with use_kernel("reference"):
        (second,) = torch.autograd.grad(slope().sum(), current)
    torch.testing.assert_close(second, 2 * (current.detach() - 1))
    with pytest.raises(RuntimeError, match=r"differentiable once; .*use_kernel\('reference'\)"):
        slope()


# ------------------------------------------------------------------------- planted faults


def strict_threshold(current, decay, gate, noise, v_th, reset, detach, surrogate, *, potentials):
    """Fires at v > v_th, not at v >= v_th."""
    u, spikes, v = torch.zeros_like(current[0]), [], []
    for t in range(len(current)):
        v.append(decay * u + current[t])
        spikes.append((v[t] > v_th).to(current.dtype))
        u = v[t] * (1 - spikes[t])
    return Firing(torch.stack(spikes).requires_grad_(), torch.stack(v))


def no_reset_gradient(current, decay, gate, noise, v_th, reset, detach, surrogate, *, potentials):
    """Forgets the gradient that flows through the reset term."""
    return multistep(current, decay, gate, noise, v_th, reset, True, surrogate)


def no_decay_gradient(current, decay, gate, noise, v_th, reset, detach, surrogate, *, potentials):
    """Treats the decay as a constant, up to 1e-4 of its gradient."""
    decay = decay.detach() + 1e-4 * (decay - decay.detach())
    return multistep(current, decay, gate, noise, v_th, reset, detach, surrogate)


def half_precision(current, decay, gate, noise, v_th, reset, detach, surrogate, *, potentials):
    """Computes in float32 whatever it is given."""
    low = multistep(current.float(), decay.float(), gate, noise, v_th, reset, detach, surrogate)
    return Firing(low.spikes.to(current.dtype), low.v.to(current.dtype))


_carried: list[Tensor] = []


def stateful(current, decay, gate, noise, v_th, reset, detach, surrogate, *, potentials):
    """Starts where its last call ended."""
    start = _carried.pop().detach() if _carried else 0.1
    current = torch.cat([current[:1] + start, current[1:]])
    out = multistep(current, decay, gate, noise, v_th, reset, detach, surrogate)
    _carried.append(out.v[-1])
    return out


TIED = Case(torch.full((4, 1), 0.5), torch.tensor(1.0))


@pytest.mark.parametrize(
    ("faulty", "c"),
    [
        (strict_threshold, TIED),
        (no_reset_gradient, case()),
        (no_reset_gradient, case(reset="soft")),
        (no_decay_gradient, case(torch.float32)),
        (half_precision, case()),
        (stateful, case()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_comparison_fires_on_a_planted_fault(monkeypatch, faulty, c):
    compare("multistep", c)
    monkeypatch.setitem(KERNELS, "faulty", faulty)
    with pytest.raises(AssertionError):
        compare("faulty", c)


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"current": torch.zeros(0, 2)}, r"current is \[T, \*N\] with T >= 1, got shape \(0, 2\)"),
        ({"current": torch.tensor(1.0)}, r"got shape \(\)"),
        (
            {"current": torch.zeros(2, 2, dtype=torch.int64)},
            r"must be floating point, got torch.int64",
        ),
        ({"decay": torch.zeros(2)}, r"decay must be a scalar or broadcast .*\(4, 3\).* got \(2,\)"),
        ({"decay": torch.zeros(4, 2)}, r"got \(4, 2\)"),
        ({"gate": torch.zeros(4)}, r"gate must be a scalar or broadcast"),
        ({"noise": torch.zeros(4, 1)}, r"noise must be shaped like current \(4, 3\), got \(4, 1\)"),
        ({"reset": "none"}, r"reset is 'hard' or 'soft', got 'none'"),
        ({"kernel": "cuda"}, r"unknown kernel 'cuda'; known: reference, multistep, cpu, triton"),
    ],
)
def test_a_wrong_argument_is_rejected_in_one_line(change, message):
    arguments = {"current": torch.zeros(4, 3), "decay": 0.5, "surrogate": Triangular(), **change}
    with pytest.raises(ValueError, match=message) as caught:
        integrate_and_fire(**arguments)
    assert "\n" not in str(caught.value)


def test_use_kernel_swaps_the_default_and_puts_it_back(monkeypatch):
    calls = []

    def spy(*arguments, **options):
        calls.append(options)
        return multistep(*arguments, **options)

    monkeypatch.setitem(KERNELS, "spy", spy)
    for leave_by_error, _ in itertools.product((False, True), range(2)):
        try:
            with use_kernel("spy"):
                integrate_and_fire(torch.zeros(1), decay=0.5, surrogate=Triangular())
                if leave_by_error:
                    raise KeyError
        except KeyError:
            pass
        integrate_and_fire(torch.zeros(1), decay=0.5, surrogate=Triangular())
    assert len(calls) == 4
    with pytest.raises(ValueError, match="use_kernel: unknown kernel 'cuda'"), use_kernel("cuda"):
        pass
