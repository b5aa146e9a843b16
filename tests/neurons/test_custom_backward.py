"""Prescribed backward passes: equal to the kernels for their slope; else closed forms."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from spikeguard.attacks import ASSG, cross_entropy
from spikeguard.attacks.gradients.base import start_search
from spikeguard.kernels import custom_backward as slopes
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.models import CNN
from spikeguard.neurons import (
    DLIF,
    LIF,
    NEURONS,
    Analogue,
    ATan,
    EvolutionaryLIF,
    NoisyLIF,
    Prescription,
    StoG,
    Triangular,
    are_spikes,
    backward_rule,
    record,
)
from spikeguard.rng import SampleStreams, randomness, stream
from tests.toys.examples import example

T, B, N = 5, 3, 4
BUILD = {name: partial(example, NEURONS[name], T=T, shape=(N,)) for name in NEURONS} | {
    "lif": lambda **options: LIF(0.7, input_scale=0.8, **options),
    "noisy_lif": lambda **options: NoisyLIF(0.6, 0.3, **options),
    "dlif": lambda **options: bent(DLIF(T, **options)),
    "dlif/leak": lambda **options: bent(DLIF(T, gate="leak", **options)),
    "stog": lambda **options: StoG(0.8, 0.6, shape=(N,), **options),
    "evolutionary_lif": lambda **options: bent(EvolutionaryLIF(T, (N,), 0.7, **options)),
}
KERNEL = [name for name in KERNELS if name != "triton" and why_not(name) is None]


def bent(neuron):
    """Make the factors differ between steps and between neurons."""
    with torch.no_grad():
        for weight in neuron.parameters():
            weight.add_(0.4 * torch.rand(weight.shape, generator=stream(0, "factors")) - 0.2)
    return neuron


def current(steps=T, dtype=torch.float64):
    return -0.3 + 1.8 * torch.rand(steps, B, N, generator=stream(0, "current"), dtype=dtype)


def by_surrogate(surrogate, temporal=True, averaged=False):
    def rule(fired):
        return Prescription(surrogate(fired.v - fired.v_th), temporal, averaged)

    return rule


def gradient(neuron, x, rule=None, **options):
    """Return spikes, and the input gradient of a weighted sum of them."""
    leaf = x.clone().requires_grad_()
    weights = torch.randn(T, B, N, generator=stream(0, "weights"), dtype=torch.float64)
    with randomness(neuron, SampleStreams(0, range(B))):
        if rule is None:
            spikes = neuron(leaf, **options)
        else:
            with backward_rule(neuron, rule):
                spikes = neuron(leaf, **options)
    (grad,) = torch.autograd.grad((spikes * weights.to(x.dtype)).sum(), leaf)
    return spikes.detach(), grad


@pytest.mark.parametrize("surrogate", [Triangular(0.8), ATan(2.0)], ids=["triangular", "atan"])
@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("name", sorted(BUILD))
def test_the_full_recursion_with_the_own_slope_is_the_reference(name, reset, detach, surrogate):
    options = {"reset": reset, "detach_reset": detach, "surrogate": surrogate, "v_th": 0.6}
    neuron = BUILD[name](**options).double()
    with use_kernel("reference"):
        spikes, grad = gradient(neuron, current())
        same, prescribed = gradient(neuron, current(), by_surrogate(surrogate))
    assert torch.equal(same, spikes)
    torch.testing.assert_close(prescribed, grad, rtol=0, atol=1e-12)
    assert grad.abs().max() > 0


@pytest.mark.parametrize("kernel", KERNEL)
@pytest.mark.parametrize("name", sorted(BUILD))
def test_it_is_the_same_with_every_kernel_in_float32(name, kernel):
    neuron, x = BUILD[name](v_th=0.6), current(dtype=torch.float32)
    with use_kernel("reference"):
        expected_spikes, expected = gradient(neuron, x)
    with use_kernel(kernel):
        spikes, grad = gradient(neuron, x, by_surrogate(Triangular()))
    assert torch.equal(spikes, expected_spikes)
    torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(BUILD))
def test_one_step_that_stands_for_all_gets_the_sum_over_time(name):
    neuron, x = BUILD[name](v_th=0.6).double(), current(1)
    _, each = gradient(neuron, x.expand(T, B, N), by_surrogate(Triangular()))
    _, grad = gradient(neuron, x, by_surrogate(Triangular()), T=T)
    torch.testing.assert_close(grad, each.sum(0, keepdim=True))


def test_without_time_each_step_stands_alone():
    """ds[t]/dI[t'] is the slope of t for t' = t, times the gate, and 0 elsewhere."""
    neuron = bent(DLIF(T, v_th=0.6)).double()
    slopes = torch.rand(T, B, N, generator=stream(0, "slopes"), dtype=torch.float64)
    weights = torch.randn(T, B, N, generator=stream(0, "weights"), dtype=torch.float64)
    _, grad = gradient(neuron, current(), lambda fired: Prescription(slopes))
    per_step = neuron.a.detach().view(-1, 1, 1) * slopes * weights
    torch.testing.assert_close(grad, per_step)
    _, grad = gradient(neuron, current(), lambda fired: Prescription(slopes, averaged=True))
    torch.testing.assert_close(grad, per_step.mean(0, keepdim=True).expand_as(per_step))


@pytest.mark.parametrize("temporal", [False, True])
def test_one_slope_serves_all_steps(temporal):
    slope = torch.rand(1, B, N, generator=stream(0, "slopes"), dtype=torch.float64)
    neuron, x = LIF(0.7).double(), current()
    one = gradient(neuron, x, lambda fired: Prescription(slope, temporal))[1]
    each = gradient(neuron, x, lambda fired: Prescription(slope.expand(T, B, N), temporal))[1]
    assert torch.equal(one, each)


def test_a_rule_sees_what_the_layer_did():
    neuron, x = bent(DLIF(T, v_th=0.6)).double(), current()
    seen = []

    def rule(fired):
        seen.append(fired)
        return Prescription(torch.ones_like(fired.v))

    with record(neuron) as trace:
        neuron(x)
    gradient(neuron, x, rule)
    (fired,) = seen
    assert fired.neuron is neuron and fired.v_th == 0.6
    assert torch.equal(fired.v, trace[""].v) and torch.equal(fired.spikes, trace[""].spikes)
    torch.testing.assert_close(fired.current, x * neuron.a.detach().view(-1, 1, 1))
    assert not any(part.requires_grad for part in (fired.current, fired.v, fired.decay))


def test_a_pass_without_gradients_is_none_of_the_rules_business():
    def rule(fired):
        raise AssertionError

    with backward_rule(LIF(), rule):
        with torch.no_grad():
            LIF()(current().requires_grad_())
        LIF()(current())


def test_the_spikes_of_a_rule_are_marked_as_spikes():
    neuron = LIF()
    with backward_rule(neuron, by_surrogate(Triangular())):
        assert are_spikes(neuron(current().requires_grad_()))
    with backward_rule(neuron, Analogue()):
        assert not are_spikes(neuron(current()))


@pytest.mark.parametrize("shape", [(2, T, B, N), (2, B, N), (B + 1, N)])
def test_a_slope_that_does_not_fit_is_rejected(shape):
    with pytest.raises(ValueError, match=r"broadcast to the potentials \[5, 3, 4\], got") as error:
        gradient(LIF(), current(), lambda fired: Prescription(torch.ones(shape)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(), (N,), (B, 1), (T, 1, 1)])
@pytest.mark.parametrize("temporal", [False, True])
def test_a_slope_broadcasts(shape, temporal):
    slope = torch.rand(shape, generator=stream(0, "slopes"), dtype=torch.float64)
    neuron, x = LIF(0.7).double(), current()
    found = gradient(neuron, x, lambda fired: Prescription(slope, temporal))[1]
    full = slope.expand(T, B, N)
    expected = gradient(neuron, x, lambda fired: Prescription(full, temporal))[1]
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_rules_nest_and_are_restored_also_after_an_error():
    neuron, outer, inner = LIF(), by_surrogate(ATan()), by_surrogate(Triangular())
    with pytest.raises(ZeroDivisionError), backward_rule(neuron, outer):
        with backward_rule(neuron, inner):
            assert neuron.rule is inner
        assert neuron.rule is outer
        raise ZeroDivisionError
    assert neuron.rule is None


@pytest.mark.parametrize("kernel", KERNEL)
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_network_with_batch_norm_is_differentiated_as_by_its_kernel(kernel, training):
    """The normalisation in the pass of a fused kernel is differentiated too."""
    model = CNN(1, 3, T=3, width=4, hidden=6, image_size=8, neuron=LIF(0.5, 0.3)).double()
    model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics"), dtype=torch.float64))
    model.train(training)
    x = torch.rand(4, 1, 8, 8, generator=stream(0, "x"), dtype=torch.float64)
    other = copy.deepcopy(model)

    def differentiated(network):
        leaf = x.clone().requires_grad_()
        logits = network(leaf)
        return logits, torch.autograd.grad(logits.square().sum(), leaf)[0]

    with use_kernel(kernel):
        logits, grad = differentiated(model)
        with backward_rule(other, by_surrogate(Triangular())):
            same, prescribed = differentiated(other)
    assert torch.equal(same, logits)
    torch.testing.assert_close(prescribed, grad, rtol=1e-9, atol=1e-12)
    assert grad.abs().max() > 0
    torch.testing.assert_close(dict(other.state_dict()), dict(model.state_dict()), rtol=0, atol=0)


# ------------------------------------------------------------------------------- the analogue


@pytest.mark.parametrize(("levels", "taken"), [(4, 4), (None, 2)])
def test_the_analogue_is_the_staircase_of_the_mean_current(levels, taken):
    mean = torch.tensor([-0.4, 0.0, 0.3, 0.5, 0.9, 1.6, 3.0])
    x = torch.stack([mean - 0.2, mean + 0.2])[:, None].requires_grad_()
    neuron = LIF(0.5, v_th=2.0)
    with backward_rule(neuron, Analogue(levels)):
        found = neuron(x)
    stairs = (mean / 2 * taken + 0.5).floor().div(taken).clamp(0, 1)
    torch.testing.assert_close(found, stairs.expand(2, 1, 7))
    (grad,) = torch.autograd.grad(found.sum(), x)
    inside = (mean / 2 * taken + 0.5).floor().div(taken)
    expected = ((inside >= 0) & (inside <= 1)).float() / 2
    torch.testing.assert_close(grad, expected.expand(2, 1, 7))


@pytest.mark.parametrize("name", sorted(BUILD))
def test_every_neuron_has_an_analogue(name):
    neuron = BUILD[name](v_th=0.6)
    with backward_rule(neuron, Analogue(8)), randomness(neuron, SampleStreams(0, range(B))):
        full, one = neuron(current(dtype=torch.float32)), neuron(current(1).float(), T=T)
    assert full.shape == (T, B, N) and one.shape == (1, B, N)
    assert full.min() >= 0 and full.max() <= 1


def test_the_analogue_weighs_the_steps_as_the_gate_does():
    neuron, x = bent(DLIF(T)), current(dtype=torch.float32)
    with backward_rule(neuron, Analogue(1000)):
        found = neuron(x)
    mean = (x * neuron.a.detach().view(-1, 1, 1)).mean(0)
    torch.testing.assert_close(found[0], mean.clamp(0, 1), rtol=0, atol=6e-4)


def test_a_whole_network_has_an_analogue_that_runs_one_step():
    model = CNN(1, 3, T=4, width=4, hidden=6, image_size=8).eval()
    shapes = []
    handles = [
        layer.register_forward_hook(lambda m, i, out: shapes.append(len(out)))
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with backward_rule(model, Analogue()):
        assert model(torch.rand(2, 1, 8, 8, generator=stream(0, "x"))).shape == (2, 3)
    for handle in handles:
        handle.remove()
    assert set(shapes) == {2}


def test_a_staircase_has_steps():
    with pytest.raises(ValueError, match="levels"):
        Analogue(0)


# --------------------------------------------------------------------------- the compiled passes

compiled = pytest.mark.skipif(why_not("cpu") is not None, reason=f"cpu kernel: {why_not('cpu')}")
SIDES = {
    "number": lambda shape: (),
    "per step": lambda shape: (shape[0], *[1] * (len(shape) - 1)),
    "per channel": lambda shape: (1, 1, shape[2], *[1] * (len(shape) - 3)),
    "per element": lambda shape: (1, 1, *shape[2:]),
}


@compiled
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (4, 3, 6, 9, 11), (2, 600, 3)], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_the_compiled_way_back_is_the_definition(shape, reset, detach, side, last):
    generator = stream(0, "backward_through_time")
    draw = [torch.randn(shape, generator=generator) for _ in range(3)]
    if last and len(shape) == 5:
        folded = [x.flatten(0, 1).contiguous(memory_format=torch.channels_last) for x in draw]
        draw = [x.view(shape) for x in folded]
    grad, slope, v = draw
    decay = torch.rand(SIDES[side](shape), generator=generator)
    scale = torch.rand(shape[2], generator=generator)
    for factor in (None, scale):
        for one in (slope, slope[:1]):
            for total in (False, True):
                arguments = (grad, one, v, decay, 0.3, reset, detach, factor, total)
                expected = slopes.backward_reference(*arguments)
                fast = slopes.compiled_passes(v).backward_through_time(*arguments)
                assert torch.equal(fast, expected)
                assert torch.equal(slopes.backward_through_time(*arguments), expected)


SHAPES = [(3, 5, 7), (4, 3, 6, 9, 11), (2, 600, 3), (1, 3, 4), (3, 0, 4)]


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
def test_the_compiled_way_back_in_a_step_is_the_definition(shape, last, dtype):
    generator = stream(0, "backward_in_step")
    grad, slope = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    if last and len(shape) == 5:
        folded = slope.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        slope = folded.view(shape)  # the gradient is laid out otherwise
    scale = torch.rand(shape[2], generator=generator, dtype=dtype)
    for factor in (None, scale):
        for one in (slope, slope[:1]):
            for total in (False, True):
                expected = slopes.in_step_reference(grad, one, factor, total)
                found = slopes.backward_in_step(grad, one, factor, total)
                assert torch.equal(found, expected) and found.shape == expected.shape
                wide = factor.view(-1, *[1] * (len(shape) - 3)) if factor is not None else 1
                plain = grad * one * wide
                plain = plain.sum(0, keepdim=True) if total else plain
                torch.testing.assert_close(expected, plain, rtol=1e-5, atol=1e-6)


def test_the_sum_over_time_is_that_of_the_steps():
    grad, slope, v = (torch.randn(4, 2, 3, generator=stream(0, f"{i}")) for i in range(3))
    for detach in (False, True):
        arguments = (grad, slope, v, torch.tensor(0.5), 0.3, "hard", detach, None)
        steps = slopes.backward_reference(*arguments)
        total = slopes.backward_reference(*arguments, True)
        torch.testing.assert_close(total, steps.sum(0, keepdim=True))


@compiled
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_compiled_sharpness_is_the_definition(dtype):
    """Over four steps of a search, with a draw in between that does not update the moments."""
    model = CNN(1, 4, T=3, width=4, hidden=6, image_size=8, neuron=LIF(0.5, 0.3)).to(dtype).eval()
    x = torch.rand(5, 1, 8, 8, generator=stream(0, "x"), dtype=dtype)
    y = torch.arange(5) % 4

    def search(kernel):
        gradient_, found = start_search(ASSG()), []
        with use_kernel(kernel):
            for step in range(4):
                found.append(gradient_(model, x + 0.02 * step, y, cross_entropy)[1])
                found.append(gradient_.hold()(model, x, y, cross_entropy)[1])
        return torch.stack(found), gradient_.moments

    (grads, moments), (expected, remembered) = search("cpu"), search("reference")
    scale = expected.abs().amax()
    torch.testing.assert_close(grads / scale, expected / scale, rtol=0, atol=1e-5)
    for place, (M, D) in moments.items():
        torch.testing.assert_close((M, D), remembered[place])
        assert (M != 1).any() and (D != 0).any()


def test_a_layer_after_batch_normalisation_is_differentiated_through_it():
    """The scale of fixed statistics is applied separately; training statistics run in torch."""
    for training in (False, True):
        neuron = LIF(0.5, 0.3)
        model = CNN(1, 4, T=3, width=4, hidden=6, image_size=8, neuron=neuron).double()
        model.train(training)
        x = torch.rand(5, 1, 8, 8, generator=stream(0, "x"), dtype=torch.float64)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(0.3)
        found = []
        for kernel, rule in (("reference", None), (None, by_surrogate(Triangular()))):
            leaf = x.clone().requires_grad_()
            twin = copy.deepcopy(model)
            if rule is None:
                with use_kernel(kernel):
                    logits = twin(leaf)
            else:
                with backward_rule(twin, rule):
                    logits = twin(leaf)
            found.append(torch.autograd.grad(logits.square().sum(), leaf)[0])
        assert found[0].abs().max() > 0
        torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)
