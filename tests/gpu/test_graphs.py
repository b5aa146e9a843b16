"""Graphed gradients on a GPU: a replay gives the same result as the model."""

import copy

import pytest
import torch

from spikeguard.attacks import PGD, Backprop, EoT, Linf, SwapSurrogate, cross_entropy, frozen
from spikeguard.attacks.gradients.cuda_graph import LARGEST, Graphed
from spikeguard.neurons import ATan
from spikeguard.rng import stream

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


@pytest.fixture
def on_gpu(snn, x, y):
    return copy.deepcopy(snn).cuda(), x.cuda(), y.cuda()


def gradient(of, model, x, y):
    with frozen(model):
        return of(model, x, y, cross_entropy)


def assert_close(graphed, model, x, y):
    """Kernels may be chosen anew for a graph, hence the tolerance."""
    found, expected = gradient(graphed, model, x, y), gradient(graphed.inner, model, x, y)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found[1].abs().max() > 0


def recorded(graphed):
    return len(graphed._graphs)


@pytest.mark.parametrize("inner", [Backprop(), SwapSurrogate(ATan())])
def test_a_replay_equals_the_inner_gradient(inner, on_gpu):
    model, x, y = on_gpu
    graphed = Graphed(inner)
    for shift in (0.0, 0.1, 0.2):
        assert_close(graphed, model, x * (1 - shift), y)
    assert recorded(graphed) == 1


def test_weights_are_read_afresh(on_gpu):
    model, x, y = on_gpu
    graphed = Graphed()
    before, _ = gradient(graphed, model, x, y)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.2)
    assert_close(graphed, model, x, y)
    assert recorded(graphed) == 1
    assert not torch.equal(gradient(graphed, model, x, y)[0], before)


def test_a_swapped_surrogate_is_recorded_anew(on_gpu):
    model, x, y = on_gpu
    graphed = Graphed()
    assert_close(graphed, model, x, y)
    for module in model.modules():
        if hasattr(module, "surrogate"):
            module.surrogate = ATan()
    assert_close(graphed, model, x, y)
    assert recorded(graphed) == 2


def test_results_are_not_overwritten(on_gpu):
    model, x, y = on_gpu
    graphed = Graphed()
    losses, grad = gradient(graphed, model, x, y)
    kept = losses.clone(), grad.clone()
    gradient(graphed, model, 1 - x, y)
    assert torch.equal(losses, kept[0]) and torch.equal(grad, kept[1])
    averaged = gradient(EoT(2, graphed), model, x, y)
    torch.testing.assert_close(averaged, kept, rtol=1e-4, atol=1e-6)


def test_large_batches_are_not_recorded(on_gpu):
    model, x, y = on_gpu
    graphed, rows = Graphed(), torch.arange(LARGEST + 1, device="cuda") % len(x)
    assert_close(graphed, model, x[rows], y[rows])
    assert recorded(graphed) == 0


def test_an_attack_through_it_stays_in_the_threat_set(on_gpu):
    model, x, y = on_gpu
    attack = PGD(Linf(0.1), steps=5, gradient=Graphed())
    x_adv = attack(model, x, y, generator=stream(0, "attack"))
    assert attack.threat.contains(x_adv, x)
    assert recorded(attack.gradient) == 1
