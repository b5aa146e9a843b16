"""MembraneReadout: if outputs are spike counts, loss and gradient are those of the potentials."""

import pytest
import torch
from torch import nn

from spikeguard.attacks import PGD, Backprop, Linf, MembraneReadout, Watch, margin, suitable, suite
from spikeguard.attacks.gradients.membrane_readout import answers_in_spikes
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.models import MLP
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream

READOUT = MembraneReadout()


def counting(T=1, v_th=1.0, hidden=(), surrogate=None):
    """A network whose outputs are firing rates; without hidden layers v[0] is the linear layer."""
    neuron = LIF(0.5, v_th=v_th, surrogate=surrogate or Triangular(0.01))
    options = {"T": T, "hidden": hidden, "in_shape": (1, 2, 2), "readout": "rate"}
    return MLP(num_classes=3, neuron=neuron, generator=stream(0, "init"), **options).eval()


def inputs(n=16):
    x = torch.rand(n, 1, 2, 2, generator=stream(0, "x"))
    return x, torch.arange(n) % 3


def test_one_step_is_the_linear_layer_and_its_gradient():
    """T = 1: u = W x + b, so the margin's gradient is W_j - W_y, whatever the surrogate."""
    model, (x, y) = counting(v_th=100.0), inputs()
    linear = next(m for m in model.modules() if isinstance(m, nn.Linear))
    u = x.flatten(1) @ linear.weight.T + linear.bias
    others = u.scatter(1, y[:, None], -torch.inf)
    losses, grad = READOUT(model, x, y, margin)
    torch.testing.assert_close(losses, others.amax(1) - u.gather(1, y[:, None])[:, 0])
    expected = linear.weight[others.argmax(1)] - linear.weight[y]
    torch.testing.assert_close(grad.flatten(1), expected)
    assert not model(x).any()  # no neuron fires: all outputs tie, and the gradient is zero
    assert not Backprop()(model, x, y, margin)[1].any()


def test_misclassification_is_decided_by_the_counts():
    model, (x, y) = counting(v_th=100.0), inputs()
    watch = Watch(margin)
    READOUT(model, x, y, watch)
    assert torch.equal(watch.outcome(y), model(x).argmax(1) != y)


def test_it_fools_where_the_rates_have_no_gradient():
    model, (x, _) = counting(T=4, v_th=0.05, hidden=(8,)), inputs(40)
    y = model(x).argmax(1)
    left = {}
    for name, gradient in (("rates", Backprop()), ("potentials", MembraneReadout(Triangular(1.0)))):
        attack = PGD(Linf(0.3), steps=20, loss=margin, gradient=gradient)
        left[name] = evaluate(model, (x, y), {"pgd": attack}, seed=0).outcomes["pgd"].mean()
    assert left["potentials"] < left["rates"] - 0.2, left


@pytest.mark.parametrize("hidden", [4, 3])  # 3 is also the number of outputs
def test_a_network_that_answers_in_potentials_is_backpropagated_and_left_out_of_suites(hidden):
    model, (x, y) = MLP(num_classes=3, T=2, hidden=(hidden,), in_shape=(1, 2, 2)).eval(), inputs(4)
    for ours, theirs in zip(
        READOUT(model, x, y, margin), Backprop()(model, x, y, margin), strict=True
    ):
        assert torch.equal(ours, theirs)
    _, without = suitable(suite("snn-cascade", eps=0.1), model)
    assert without == ("apgd-margin/membrane",)
    assert suitable(suite("snn-cascade", eps=0.1), counting(hidden=(4,)))[1] == ()


def test_a_last_neuron_may_have_parts_of_its_own():
    """A layer that stores its surrogate as SpikingJelly's layers do."""
    model = counting()
    *_, last = model.modules()
    last.add_module("surrogate_function", nn.Identity())
    assert answers_in_spikes(model)
    assert not answers_in_spikes(nn.Sequential(model, nn.Linear(3, 3)))


class Population(nn.Module):
    """A counting network with several equal output neurons for each class, and their mean."""

    def __init__(self, base, size):
        super().__init__()
        self.base = base
        *_, last = (m for m in base.modules() if isinstance(m, nn.Linear))
        for name in ("weight", "bias"):
            value = getattr(last, name).detach().repeat_interleave(size, 0)
            setattr(last, name, nn.Parameter(value))
        self.vote = nn.AvgPool1d(size)

    def forward(self, x):
        return self.vote(self.base(x)[:, None])[:, 0]


def test_equal_neurons_of_a_class_give_the_gradient_of_one():
    (x, y), options = inputs(), {"T": 4, "hidden": (8,), "surrogate": Triangular(1.0)}
    one, several = counting(**options), Population(counting(**options), size=5)
    assert answers_in_spikes(several)
    torch.testing.assert_close(several(x), one(x))
    for ours, theirs in zip(
        READOUT(several, x, y, margin), READOUT(one, x, y, margin), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    assert READOUT(several, x, y, margin)[1].any()
    assert not torch.equal(READOUT(several, x, y, margin)[1], Backprop()(several, x, y, margin)[1])


def test_neurons_that_cannot_be_shared_out_are_backpropagated():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = counting(hidden=(4,))

        def forward(self, x):
            return self.base(x)[:, :2]

    x, y = inputs()
    model = Two()
    assert torch.equal(READOUT(model, x, y % 2, margin)[1], Backprop()(model, x, y % 2, margin)[1])
