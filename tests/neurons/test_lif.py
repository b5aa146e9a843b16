"""Each neuron against its closed form; ``record``, ``backward_mode`` and ``under_attack``."""

import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from spikeguard.kernels.dispatch import integrate_and_fire
from spikeguard.kernels.selection import use_kernel
from spikeguard.models.snn import TimeSequential
from spikeguard.neurons import (
    DLIF,
    IF,
    LIF,
    PLIF,
    ATan,
    NoisyLIF,
    Rectangular,
    StraightThrough,
    Triangular,
    backward_mode,
    record,
    under_attack,
)
from spikeguard.rng import SampleStreams, randomness, stream


def current(*shape, low=-0.3, high=1.5, name="current"):
    return low + (high - low) * torch.rand(*shape, generator=stream(0, name))


def trace_of(neuron, x):
    with record(neuron) as trace:
        neuron(x)
    return trace[""]


def same(a, b, x):
    """Whether two neurons agree to the bit: spikes, potentials and input gradient."""
    out = []
    for neuron in (a, b):
        leaf = x.clone().requires_grad_()
        seen = trace_of(neuron, leaf)
        (grad,) = torch.autograd.grad(seen.spikes.sum() + seen.v.square().sum(), leaf)
        out.append((seen.spikes, seen.v, grad))
    return all(torch.equal(p, q) for p, q in zip(*out, strict=True))


# ----------------------------------------------------------------------------- IF and LIF


def test_lif_worked_by_hand():
    assert LIF(0.5)(torch.full((3, 1), 0.6)).flatten().tolist() == [0, 0, 1]
    seen = trace_of(LIF(0.5), torch.tensor([0.6, 0.6, 0.6, -0.2]).view(4, 1))
    assert seen.v.flatten().tolist() == pytest.approx([0.6, 0.9, 1.05, -0.2])
    assert seen.u.flatten().tolist() == pytest.approx([0.6, 0.9, 0.0, -0.2])


@pytest.mark.parametrize("decay", [0.25, 0.5, 0.9])
def test_the_potential_settles_at_the_closed_form(decay):
    """Below threshold v[t] = I (1 - decay^(t+1)) / (1 - decay)."""
    drive = 0.99 * (1 - decay)
    v = trace_of(LIF(decay), torch.full((200, 1), drive, dtype=torch.float64)).v.flatten()
    t = torch.arange(1, 201, dtype=torch.float64)
    torch.testing.assert_close(v, drive * (1 - decay**t) / (1 - decay))
    assert v[-1].item() == pytest.approx(0.99)


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_lif_without_leak_is_if(reset):
    assert same(LIF(1.0, reset=reset), IF(reset=reset), current(8, 3, 4))


def test_soft_reset_keeps_what_is_above_the_threshold():
    """IF with soft reset fires floor of the summed input (below one spike a step)."""
    drive = torch.tensor([0.25, 0.375, 0.8125]).expand(64, 3)
    assert IF(reset="soft")(drive).sum(0).tolist() == [16, 24, 52]


OFFSETS = [-0.7, 0.25, 0.9]


@pytest.mark.parametrize("kernel", ["reference", "multistep", None])
@pytest.mark.parametrize("v_reset", OFFSETS)
@pytest.mark.parametrize("decay_input", [True, False])
def test_v_reset_is_that_of_equations_1_to_5_of_the_operational_space_study(
    kernel, v_reset, decay_input
):
    """H = V + (X - (V - V_reset)) / tau and V = H (1 - S) + V_reset S, from rest at V_reset.

    The loop is the paper's; potentials, spikes, the potential after reset and the gradient agree.
    """
    tau, v_th = 2.5, 1.0
    x = current(12, 5, low=-1, high=4).double()
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    V, h, s = torch.full((5,), v_reset, dtype=torch.float64), [], []
    for x_t in inputs[0]:
        H = V + ((x_t - (V - v_reset)) / tau if decay_input else x_t - (V - v_reset) / tau)
        spike = Spike.apply(H - v_th)
        V = H * (1 - spike) + v_reset * spike
        h.append(H)
        s.append(spike)
    neuron = LIF.from_tau(tau, decay_input=decay_input, v_th=v_th, v_reset=v_reset)
    with use_kernel(kernel) if kernel else nullcontext(), record(neuron) as trace:
        spikes = neuron(inputs[1])
    seen = next(iter(trace.values()))
    assert torch.equal(spikes, torch.stack(s)) and 0 < spikes.mean() < 1
    torch.testing.assert_close(seen.v, torch.stack(h))
    torch.testing.assert_close(seen.u[-1], V)
    slopes = torch.randn(12, 5, generator=stream(0, "slopes")).double()
    first, second = (
        torch.autograd.grad((each * slopes).sum(), x_in)[0]
        for each, x_in in ((torch.stack(s), inputs[0]), (spikes, inputs[1]))
    )
    torch.testing.assert_close(second, first)


class Spike(torch.autograd.Function):
    """H(x) with the triangular surrogate of half-width 1."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * (1 - ctx.saved_tensors[0].abs()).clamp_min(0)


def test_a_current_of_zero_leaves_a_neuron_at_v_reset():
    neuron = LIF(0.5, v_th=1.0, v_reset=0.6)
    assert torch.equal(trace_of(neuron, torch.zeros(4, 3)).v, torch.full((4, 3), 0.6))
    assert "v_reset=0.6" in repr(neuron) and "v_reset" not in repr(LIF(0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"v_reset": 1.0}, "v_reset must be below v_th=1, got 1"),
        ({"v_reset": float("nan")}, "v_reset must be below v_th=1, got nan"),
        ({"v_reset": 0.5, "reset": "soft"}, "v_reset=0.5 needs reset='hard', got 'soft'"),
    ],
)
def test_a_v_reset_that_cannot_be_is_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        LIF(0.5, **options)


@pytest.mark.parametrize("decay_input", [True, False])
@pytest.mark.parametrize("tau", [1.5, 2.0, 10.0])
def test_from_tau_is_the_update_with_a_time_constant(tau, decay_input):
    """SpikingJelly: v += (x - v) / tau, or v += x - v / tau without input decay; hard reset."""
    x = current(12, 5, low=-1, high=2 * tau if decay_input else 2).double()
    v, expected = torch.zeros(5, dtype=torch.float64), []
    for x_t in x:
        v = v + (x_t - v) / tau if decay_input else v + x_t - v / tau
        expected.append(v)
        v = torch.where(v >= 1, 0.0, v)
    expected = torch.stack(expected)
    seen = trace_of(LIF.from_tau(tau, decay_input=decay_input), x)
    torch.testing.assert_close(seen.v, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(seen.spikes, (expected >= 1).double()) and seen.spikes.mean() > 0.1


def test_from_tau_worked_by_hand_and_with_its_options():
    """tau 2, x = 0.8: v = 0.4, 0.6, 0.7; without input decay 0.8, 1.2 and, after the reset, 0.8."""
    x = torch.full((3, 1), 0.8)
    for decay_input, v in ((True, [0.4, 0.6, 0.7]), (False, [0.8, 1.2, 0.8])):
        seen = trace_of(LIF.from_tau(2.0, decay_input=decay_input), x)
        assert seen.v.flatten().tolist() == pytest.approx(v)
    options = {"v_th": 0.5, "surrogate": ATan(), "detach_reset": True, "reset": "soft"}
    neuron = LIF.from_tau(4.0, decay_input=True, **options)
    assert neuron.decay == 0.75 and neuron.input_scale == 0.25
    assert {name: getattr(neuron, name) for name in options} == options
    assert "input_scale=0.25" in repr(neuron)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: LIF(2.0),
            r"LIF: decay is a leak factor in \(0, 1\], got 2\. .*pass 0\.5 .*from_tau",
        ),
        (lambda: LIF(0.0), r"LIF: decay is a leak factor in \(0, 1\], got 0\.$"),
        (lambda: LIF(math.nan), "got nan"),
        (lambda: LIF(input_scale=0.0), "LIF: input_scale must be positive, got 0"),
        (lambda: LIF.from_tau(1.0, decay_input=True), "from_tau: tau is .* > 1, got 1"),
        (lambda: LIF.from_tau(math.inf, decay_input=True), "> 1, got inf"),
        (lambda: PLIF(1.0), "PLIF: decay starts inside .* use IF"),
        (lambda: PLIF(3.0), "PLIF: decay is a leak factor"),
        (lambda: NoisyLIF(decay=-0.1), "NoisyLIF: decay is a leak factor"),
        (lambda: NoisyLIF(sigma=-1.0), "NoisyLIF: sigma is a standard deviation >= 0, got -1"),
        (lambda: NoisyLIF(sigma=math.inf), "sigma is a standard deviation >= 0, got inf"),
        (lambda: NoisyLIF(noise_in=("train", "eval")), "out of train, attack, test; got .*eval"),
        (lambda: NoisyLIF(noise_in="train"), "got 'train'"),
        (lambda: DLIF(0), "DLIF: T must be >= 1, got 0"),
        (lambda: DLIF(4, "both"), "DLIF: gate is 'input' or 'leak', got 'both'"),
        (lambda: DLIF(4, decay=1.1), "DLIF: decay is a leak factor"),
        (lambda: DLIF(4)(torch.zeros(5, 1)), "gates for T = 4 steps, got a current of 5; pass T=5"),
    ],
)
def test_a_wrong_argument_is_rejected_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------- PLIF


def test_plif_starts_as_lif():
    assert same(PLIF(0.5), LIF(0.5), current(8, 3, 4))  # sigmoid(0) is 0.5 exactly
    assert PLIF(0.9).decay.item() == pytest.approx(0.9)


def test_the_gradient_of_the_leak_is_a_finite_difference_of_v():
    """Without a spike v is a polynomial in the decay, so both must agree."""
    neuron, x = PLIF(0.6, detach_reset=True).double(), current(5, 7, low=0, high=0.35).double()

    def loss(shift=0.0):
        neuron.decay_logit.data += shift
        value = trace_of(neuron, x).v.square().sum()
        neuron.decay_logit.data -= shift
        return value

    assert neuron(x).sum() == 0
    (grad,) = torch.autograd.grad(loss(), neuron.decay_logit)
    step = 1e-5
    assert grad.item() == pytest.approx(((loss(step) - loss(-step)) / (2 * step)).item(), rel=1e-8)
    assert grad.abs() > 0.1


# ---------------------------------------------------------------------------------- DLIF


@pytest.mark.parametrize("gate", ["input", "leak"])
@pytest.mark.parametrize("decay", [0.99, 0.5])
def test_dlif_with_gates_one_is_lif(gate, decay):
    assert same(DLIF(8, gate, decay), LIF(decay), current(8, 3, 4))


@pytest.mark.parametrize(
    ("gate", "v"),
    [
        # I = 0.4, decay 0.5, a = (2, 0.5, 1)
        ("input", [0.8, 0.6, 0.7]),  # 0.5 u + a I
        ("leak", [0.4, 0.5, 0.65]),  # 0.5 a u + I; u[-1] = 0, so a[0] plays no part
    ],
)
def test_dlif_worked_by_hand(gate, v):
    neuron = DLIF(3, gate, 0.5)
    neuron.a.data = torch.tensor([2.0, 0.5, 1.0])
    seen = trace_of(neuron, torch.full((3, 2, 1), 0.4))
    assert seen.v[:, 1, 0].tolist() == pytest.approx(v)
    seen.v[2, 0, 0].backward()
    # dv[2]/da: input gates I decay^(2-t); leak decay u[t-1] carried on: a[1]: .5*.4*.5, a[2]: .5*.5
    by_hand = {"input": [0.1, 0.2, 0.4], "leak": [0.0, 0.1, 0.25]}[gate]
    quiet = Triangular(1.0)  # h at v - 1 is not 0 here: the reset term adds -u h
    reset = [1 - v_t * quiet(torch.tensor(v_t - 1)).item() for v_t in v[:2]]
    by_hand[0] *= reset[0] * reset[1]
    by_hand[1] *= reset[1]
    assert neuron.a.grad.tolist() == pytest.approx(by_hand)


# ------------------------------------------------------------------------------ NoisyLIF


def bound(neuron, x, seed=0):
    with randomness(neuron, SampleStreams(seed, range(x.shape[1]))):
        return trace_of(neuron, x)


def test_without_noise_it_is_lif():
    assert same(NoisyLIF(0.5, sigma=0.0), LIF(0.5), current(8, 3, 4))


def test_the_default_is_the_papers_variance():
    assert NoisyLIF().sigma ** 2 == pytest.approx(0.4) and NoisyLIF().decay == 0.5


@pytest.mark.parametrize("drive", [-0.2, 0.5, 1.0, 1.6])
@pytest.mark.parametrize("sigma", [0.2, math.sqrt(0.4)])
def test_firing_probability_is_the_normal_tail(drive, sigma):
    """At the first step P(fire) = Phi((I - v_th) / sigma); bound: 5 binomial standard errors."""
    n = 40_000
    expected = 0.5 * (1 + math.erf((drive - 1) / sigma / math.sqrt(2)))
    rate = bound(NoisyLIF(0.5, sigma), torch.full((1, 40, n // 40), drive)).spikes.mean().item()
    assert abs(rate - expected) < 5 * math.sqrt(expected * (1 - expected) / n) + 1 / n


def test_the_noise_has_the_stated_deviation_and_stays_in_the_membrane():
    """v[t] = decay u[t-1] + I[t] + noise[t], with u built from the noisy v."""
    x = current(6, 5, 400)
    seen = bound(NoisyLIF(0.5, sigma=0.3), x)
    assert seen.noise.std().item() == pytest.approx(0.3, rel=5 / math.sqrt(2 * seen.noise.numel()))
    before = torch.cat([torch.zeros(1, 5, 400), seen.u[:-1]])
    torch.testing.assert_close(seen.v, 0.5 * before + x + seen.noise)
    torch.testing.assert_close(seen.v_before_noise, 0.5 * before + x, rtol=1e-5, atol=1e-6)
    assert torch.equal(seen.spikes, (seen.v >= 1).float())


@pytest.mark.parametrize(
    "phases", [(), ("train",), ("attack", "test"), ("train", "attack", "test")]
)
def test_noise_is_on_in_the_phases_it_was_asked_for(phases):
    neuron, quiet, x = NoisyLIF(noise_in=phases), LIF(0.5), current(4, 3, 50)

    def check(phase):
        assert neuron.phase == phase and neuron.stochastic == (phase in phases)
        seen = bound(neuron, x)
        assert (seen.noise is not None) == (phase in phases)
        assert torch.equal(seen.spikes, quiet(x)) == (phase not in phases)

    check("train")
    for training in (True, False):
        neuron.train(training)
        with under_attack(neuron):
            check("attack")
    check("test")
    assert not NoisyLIF(sigma=0.0).stochastic


def test_noise_is_reproducible_per_sample_and_fresh_without_a_source(untouched_global_generator):
    neuron, x = NoisyLIF(), current(4, 3, 20)
    together = bound(neuron, x)
    assert torch.equal(bound(neuron, x).noise, together.noise)
    assert not torch.equal(bound(neuron, x, seed=1).noise, together.noise)
    order = torch.tensor([2, 0])
    with randomness(neuron, SampleStreams(0, order)):
        part = trace_of(neuron, x[:, order])
    assert torch.equal(part.noise, together.noise[:, order])
    assert torch.equal(part.spikes, together.spikes[:, order])
    assert not torch.equal(trace_of(neuron, x).noise, trace_of(neuron, x).noise)
    with randomness(neuron, stream(0, "g")):
        first = trace_of(neuron, x).noise
    with randomness(neuron, stream(0, "g")):
        assert torch.equal(trace_of(neuron, x).noise, first)


# ---------------------------------------------------------------------------------- record


def layers():
    """Two layers, built so that both fire: names "0.1" and "1"."""
    inner = TimeSequential(nn.Linear(4, 5, bias=False), LIF(0.5))
    outer = TimeSequential(inner, NoisyLIF(0.5, sigma=0.3, v_th=0.5, reset="soft"))
    nn.init.uniform_(inner[0].weight, -0.5, 1.5, generator=stream(0, "w"))
    return outer


def run(model, x):
    with randomness(model, SampleStreams(0, range(x.shape[1]))):
        return model(x, len(x))


def test_record_holds_what_each_layer_did_in_network_order():
    model, x = layers(), current(3, 2, 4)
    with record(model) as trace:
        assert len(trace) == 0
        spikes = run(model, x)
    assert list(trace) == ["0.1", "1"] and len(trace) == 2
    first, second = trace["0.1"], trace["1"]
    assert torch.equal(first.current, x @ model[0][0].weight.T)
    assert torch.equal(second.current, first.spikes) and torch.equal(second.spikes, spikes)
    assert (first.v_th, first.reset, first.noise) == (1.0, "hard", None)
    assert (second.v_th, second.reset, second.noise.shape) == (0.5, "soft", spikes.shape)
    assert torch.equal(first.v_before_noise, first.v)
    torch.testing.assert_close(first.u, torch.where(first.spikes == 1, 0.0, first.v))
    torch.testing.assert_close(second.u, second.v - 0.5 * second.spikes)
    for seen in trace.values():
        assert seen.surrogate == Triangular() and seen.v.shape == spikes.shape
        assert torch.equal(seen.spikes, (seen.v >= seen.v_th).float())


def test_record_keeps_the_last_pass_and_stays_readable_afterwards():
    model, x = layers(), current(3, 2, 4)
    with record(model) as trace:
        run(model, x)
        run(model, x + 1)
        last = {name: seen.v for name, seen in trace.items()}
    run(model, x)
    assert all(trace[name].v is v for name, v in last.items())
    with record(model) as again:
        run(model, x + 1)
    assert all(torch.equal(again[name].v, v) for name, v in last.items())


def test_recording_changes_neither_outputs_nor_gradients():
    model, x = layers(), current(3, 2, 4).requires_grad_()
    (plain,) = torch.autograd.grad(run(model, x).sum(), x)
    with record(model):
        spikes = run(model, x)
    (recorded,) = torch.autograd.grad(spikes.sum(), x)
    assert torch.equal(recorded, plain)


@pytest.mark.parametrize("detach_reset", [False, True])
def test_everything_recorded_is_differentiable(detach_reset):
    """One step: dv/dI = 1, and u = (1 - s) v has slope (1 - s) - v h, the last term cut or not."""
    x = torch.tensor([[0.7, 1.2]], dtype=torch.float64, requires_grad=True)
    seen = trace_of(LIF(0.5, detach_reset=detach_reset), x)
    assert torch.autograd.grad(seen.v.sum(), x, retain_graph=True)[0].tolist() == [[1, 1]]
    (slope,) = torch.autograd.grad(seen.u.sum(), x)
    h = [0.7, 0.8]
    through = 0 if detach_reset else 1
    expected = [1 - through * 0.7 * h[0], 0 - through * 1.2 * h[1]]
    assert slope[0].tolist() == pytest.approx(expected)


def test_the_potential_carries_gradients_to_the_weights():
    model, x = layers(), current(3, 2, 4)
    with record(model) as trace:
        run(model, x)
    sum(seen.v.square().mean() for seen in trace.values()).backward()
    assert (model[0][0].weight.grad != 0).any()


def test_recorders_nest_and_each_closes_itself_alone():
    """Also when both have seen the same pass: then they are equal as mappings, but not the same."""
    model, x = layers(), current(3, 2, 4)
    with record(model) as outer:
        run(model, x)
        with record(model) as inner:
            run(model, x + 1)
        with record(model) as empty:
            pass
        assert all(outer[name] is seen for name, seen in inner.items())
        run(model, x + 2)
        assert all(outer[name] is not seen for name, seen in inner.items())
        with record(model[0]) as part:
            run(model, x)
        assert list(part) == ["1"] and part["1"] is outer["0.1"]
    assert len(empty) == 0
    assert all(not m._recorders for m in (model[0][1], model[1]))


def test_record_closes_after_an_error():
    model = layers()
    with pytest.raises(RuntimeError), record(model):
        model(torch.zeros(3, 2, 99), 3)
    assert all(not m._recorders for m in (model[0][1], model[1]))


def test_a_name_that_was_not_recorded_is_an_error_that_helps():
    model, x = layers(), current(3, 2, 4)
    with record(model) as trace:
        with pytest.raises(KeyError, match="none: call the model inside the block first"):
            trace["1"]
        run(model, x)
    with pytest.raises(KeyError, match=r"no spiking layer 'conv' .* recorded: 0\.1, 1"):
        trace["conv"]
    assert "conv" not in trace and "1" in trace


# --------------------------------------------------------------- backward_mode, under_attack


def gradient(model, x):
    leaf = x.clone().requires_grad_()
    spikes = run(model, leaf)
    return spikes, torch.autograd.grad(spikes.sum(), leaf)[0]


def test_backward_mode_changes_the_gradient_and_nothing_else():
    model, x = layers(), current(3, 2, 4)
    own_surrogates = [model[0][1].surrogate, model[1].surrogate]
    spikes, plain = gradient(model, x)
    with backward_mode(model, StraightThrough()):
        assert model[0][1].surrogate == model[1].surrogate == StraightThrough()
        swapped_spikes, swapped = gradient(model, x)
    assert torch.equal(swapped_spikes, spikes) and not torch.equal(swapped, plain)
    assert [model[0][1].surrogate, model[1].surrogate] == own_surrogates
    assert torch.equal(gradient(model, x)[1], plain)


def test_a_factor_widens_each_layers_own_surrogate():
    model = layers()
    model[0][1].surrogate, model[1].surrogate = Rectangular(0.5), ATan(2.0)
    with backward_mode(model, 2):
        assert [model[0][1].surrogate, model[1].surrogate] == [Rectangular(1.0), ATan(1.0)]
        with backward_mode(model, 0.5):  # nested: the factor applies to the outer surrogate
            assert [model[0][1].surrogate, model[1].surrogate] == [Rectangular(0.5), ATan(2.0)]
        assert model[1].surrogate == ATan(1.0)
    assert [model[0][1].surrogate, model[1].surrogate] == [Rectangular(0.5), ATan(2.0)]


def test_one_neuron_with_another_surrogate_has_the_slope_of_that_surrogate():
    """One step: ds/dI = h(I - v_th)."""
    neuron, x = LIF(0.5), torch.tensor([[0.75]], requires_grad=True)
    for surrogate in (Triangular(), Triangular(4.0), Rectangular(2.0), ATan()):
        with backward_mode(neuron, surrogate):
            (slope,) = torch.autograd.grad(neuron(x).sum(), x)
        torch.testing.assert_close(slope, surrogate(x.detach() - 1))


@pytest.mark.parametrize("factor", [0, -1.0])
def test_a_bad_factor_is_rejected_and_leaves_the_model_unchanged(factor):
    model = layers()
    model[1].surrogate = ATan()
    with pytest.raises(ValueError, match="factor must be positive"), backward_mode(model, factor):
        pass
    assert [model[0][1].surrogate, model[1].surrogate] == [Triangular(), ATan()]


def test_both_modes_are_undone_after_an_error():
    model = layers()
    with pytest.raises(KeyError), backward_mode(model, 2.0), under_attack(model):
        assert model[1].phase == "attack"
        with under_attack(model[1]):
            pass
        assert model[1].phase == "attack"
        raise KeyError
    assert model[1].phase == "train" and model[1].surrogate == Triangular()


def test_integrate_and_fire_is_what_a_neuron_runs():
    x = current(4, 3)
    seen = trace_of(LIF(0.8, v_th=0.6), x)
    spikes, v = integrate_and_fire(x, decay=0.8, v_th=0.6, surrogate=Triangular())
    assert torch.equal(seen.spikes, spikes) and torch.equal(seen.v, v)
