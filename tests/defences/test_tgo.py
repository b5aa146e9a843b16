"""TGO: closed forms of the hinge, its relation to the surrogate, its schedule and readings."""

import math

import pytest
import torch
from torch import nn

from spikeguard.defences import TGO
from spikeguard.defences.piece import Pass, Step
from spikeguard.models import MLP
from spikeguard.neurons import (
    LIF,
    ATan,
    LayerTrace,
    NoisyLIF,
    Rectangular,
    StraightThrough,
    Triangular,
    record,
)
from spikeguard.rng import randomness, stream


def layer(v, *, v_th=1.0, surrogate=None, noise=None):
    """A trace made by hand; only v, v_th, the surrogate and the noise matter to TGO."""
    surrogate = Triangular() if surrogate is None else surrogate
    return LayerTrace(v, v, (v >= v_th).to(v.dtype), noise, v_th, surrogate, "hard")


def test_hinge_by_hand():
    """delta = 1/2, v_th = 1: potentials 1.0, 0.7, 1.4, 2.0 are penalised by 0.5, 0.2, 0.1, 0."""
    v = torch.tensor([1.0, 0.7, 1.4, 2.0]).view(2, 1, 2)  # T = 2, one sample, two neurons
    assert TGO(delta=0.5).penalty(layer(v)).item() == pytest.approx(0.8 / 4)
    assert TGO(delta=0.5, reduction="sum").penalty(layer(v)).item() == pytest.approx(0.8 / 2)


@pytest.mark.parametrize("width", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("v_th", [0.7, 1.0])
def test_penalty_is_the_squared_width_times_the_mean_triangular_surrogate(width, v_th):
    v = torch.randn(4, 3, 5, 2, generator=stream(0, "v")) + v_th
    surrogate = Triangular(width)
    expected = width**2 * surrogate(v - v_th).mean()
    trace = layer(v, v_th=v_th, surrogate=surrogate)
    torch.testing.assert_close(TGO().penalty(trace), expected)
    torch.testing.assert_close(TGO(delta=width).penalty(trace), expected)


def test_gradient_descent_pushes_potentials_away_from_the_threshold_on_both_sides():
    v = torch.tensor([0.2, 0.8, 1.2, 1.8, -0.5, 2.5]).view(1, 1, 6).requires_grad_()
    (grad,) = torch.autograd.grad(TGO(delta=1.0).penalty(layer(v)), v)
    below, above, outside = grad.flatten().split(2)
    assert (below > 0).all()
    assert (above < 0).all()
    assert (outside == 0).all()
    torch.testing.assert_close(grad.abs().flatten()[:4], torch.full((4,), 1 / 6))


def test_sum_is_mean_times_the_number_of_neurons():
    v = torch.randn(3, 4, 2, 5, generator=stream(1, "v"))
    mean, total = (TGO(reduction=r).penalty(layer(v)) for r in ("mean", "sum"))
    torch.testing.assert_close(total, mean * 10)


def vgg5_trace(value):
    """The traces of VGG5's five spiking layers with potentials of one value; one sample, T = 2."""
    sizes = (4, 3, 2, 5, 6)
    traces = [layer(torch.full((2, 1, size), value)) for size in sizes]
    return {f"layer{n}": trace for n, trace in enumerate(traces)}, sum(sizes)


@pytest.mark.parametrize("reduction", ["mean", "mean_of_layers", "sum", "sum_of_layers"])
def test_reductions_are_those_of_equation_12(reduction):
    """Every neuron has the hinge 0.3: by hand for five layers of 20 neurons in all.

    Eq. 12 sums over neurons and divides by time steps and the number of layers.
    """
    trace, neurons = vgg5_trace(0.3)
    tgo = TGO(lambda_max=2.0, delta=1.0, reduction=reduction)
    measured = tgo.measured(at_half(Pass(torch.zeros(1), torch.zeros(1), trace), None))
    expected = {
        "mean": 0.3 * 5,
        "mean_of_layers": 0.3,
        "sum": 0.3 * neurons / 5,
        "sum_of_layers": 0.3 * neurons,
    }
    assert neurons == 20
    assert measured.value.item() == pytest.approx(expected[reduction], rel=1e-6)
    assert measured.weight == pytest.approx(1.0)
    assert measured.loss.item() == pytest.approx(expected[reduction], rel=1e-6)
    assert list(measured.layers) == list(trace)


def test_with_updates_by_epoch_lambda_is_constant_within_an_epoch():
    """Eq. 14 with epoch 1 of 4 finished: 0.5 * 0.4 * (1 - cos(pi / 4)), at every step."""
    trace, _ = vgg5_trace(0.3)
    seen = Pass(torch.zeros(1), torch.zeros(1), trace)
    for progress in (0.25, 0.3, 0.49):
        step = Step(nn.Identity(), seen, None, torch.zeros(1), progress, stream(0, "s"), 0.25)
        by_epoch, by_step = (
            TGO(0.4, delta=1.0, updates=each).measured(step).weight for each in ("epoch", "step")
        )
        assert by_epoch == pytest.approx(0.2 * (1 - math.sqrt(0.5)))
        assert by_step == pytest.approx(0.2 * (1 - math.cos(math.pi * progress)))


def test_the_repr_leaves_out_new_options_at_their_default():
    """A run of an earlier version is resumed only if its objective has the same text."""
    assert repr(TGO()) == ("TGO(lambda_max=4.0, delta=None, reduction='mean', noise='after')")
    assert "updates='epoch'" in repr(TGO(updates="epoch"))


def test_weight_follows_half_a_cosine():
    tgo = TGO(lambda_max=0.4)
    assert tgo.weight(0.0) == 0
    assert tgo.weight(0.5) == pytest.approx(0.2)
    assert tgo.weight(1.0) == 0.4
    assert tgo.weight(0.25) == pytest.approx(0.2 * (1 - math.sqrt(0.5)))


def at_half(clean, perturbed):
    """The step data halfway through a training."""
    return Step(nn.Identity(), clean, perturbed, torch.zeros(2), 0.5, stream(0, "step"))


def test_term_is_the_weight_times_the_sum_over_all_spiking_layers():
    model = MLP(6, 3, T=4, hidden=(5, 4), neuron=LIF(0.5, surrogate=Triangular(0.8)))
    x = torch.rand(2, 6, generator=stream(2, "x"))
    with record(model) as trace:
        logits = model(x)
    seen = Pass(x, logits, trace)
    tgo = TGO(lambda_max=0.6)
    assert len(trace) == 2
    expected = 0.3 * sum(0.64 * s.surrogate(s.v - s.v_th).mean() for s in trace.values())
    torch.testing.assert_close(tgo.term(at_half(seen, None)), expected)
    torch.testing.assert_close(tgo.term(at_half(None, seen)), expected)


def test_the_margin_is_each_layers_own_surrogate_half_width():
    v = torch.tensor([[[1.3]]])
    assert TGO().penalty(layer(v, surrogate=Rectangular(0.5))).item() == pytest.approx(0.2)
    width = 2 / (math.pi * 2)  # ATan(2): half-width at half maximum
    assert TGO().penalty(layer(v, surrogate=ATan(2.0))).item() == pytest.approx(
        width - 0.3, rel=1e-5
    )


def test_a_surrogate_without_end_needs_an_explicit_margin():
    v = torch.ones(1, 1, 1)
    with pytest.raises(ValueError, match=r"TGO: features\.2 uses StraightThrough.*pass delta"):
        TGO().penalty(layer(v, surrogate=StraightThrough()), "features.2")
    assert TGO(delta=1.0).penalty(layer(v, surrogate=StraightThrough())).item() == 1


def test_noise_of_the_step_can_be_left_out_of_the_constraint():
    noise = torch.tensor([[[0.3]]])
    trace = layer(torch.tensor([[[1.4]]]), noise=noise)
    assert TGO(delta=0.5, noise="after").penalty(trace).item() == pytest.approx(0.1)
    assert TGO(delta=0.5, noise="before").penalty(trace).item() == pytest.approx(0.4)


def test_before_and_after_differ_by_exactly_the_recorded_noise():
    neuron = NoisyLIF(0.5, sigma=0.3)
    current = torch.rand(3, 2, 4, generator=stream(3, "current"))
    with record(neuron) as trace, randomness(neuron, stream(3, "noise")):
        neuron(current)
    (seen,) = trace.values()
    quiet = (1.0 - (seen.v - seen.noise - 1).abs()).clamp_min(0).mean()
    torch.testing.assert_close(TGO(noise="before").penalty(seen), quiet)
    assert TGO(noise="before").penalty(seen) != TGO(noise="after").penalty(seen)


def test_a_model_without_spiking_layers_is_rejected():
    with pytest.raises(ValueError, match="no spiking layer"), record(nn.Linear(2, 2)) as trace:
        TGO().term(at_half(Pass(torch.zeros(1), torch.zeros(1), trace), None))


def test_presets_are_as_many_times_the_papers_weights():
    assert TGO.preset("vgg11").lambda_max == TGO().lambda_max
    ratio = TGO.preset("vgg11").lambda_max / 0.6
    assert TGO.preset("wrn16_4").lambda_max == pytest.approx(0.4 * ratio, abs=0.05)
    with pytest.raises(ValueError, match="presets are vgg11, wrn16_4; got 'mlp'"):
        TGO.preset("mlp")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lambda_max": -0.1}, "lambda_max is a weight >= 0, got -0.1"),
        ({"lambda_max": math.inf}, "lambda_max is a weight >= 0, got inf"),
        ({"delta": 0.0}, "delta is a margin > 0"),
        ({"delta": math.inf}, "delta is a margin > 0"),
        ({"reduction": "max"}, "mean_of_layers, sum, sum_of_layers; got 'max'"),
        ({"updates": "batch"}, "updates is 'step' or 'epoch', got 'batch'"),
        ({"noise": "during"}, "noise is 'after' or 'before', got 'during'"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        TGO(**wrong)
