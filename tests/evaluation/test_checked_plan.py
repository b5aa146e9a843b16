"""evaluate() and audit() check a model first: nothing wrong is measured silently."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import PGD, Linf
from spikeguard.data import as_image_set
from spikeguard.evaluation import checked_plan as module
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.plan import plan_evaluation
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.preflight.quick import PreflightWarning
from spikeguard.rng import stream
from tests.toys.small_evaluations import same

ATTACKS = {"pgd": PGD(Linf(0.1), steps=3)}


class Leaking(nn.Module):
    """Keeps a moving mean of its logits from call to call; its twin does not."""

    def __init__(self, leak=True):
        super().__init__()
        self.inner, self.leak, self.mem = network(), leak, 0.0

    def forward(self, x):
        out = self.inner(x)
        if self.leak:
            self.mem = 0.5 * self.mem + out.detach().mean(0)
        return out + self.mem


class Chance(nn.Module):
    """Ignores its input and is wrong one time in four, by chance."""

    def __init__(self, y):
        super().__init__()
        self.y = y

    def forward(self, x):
        right = (torch.rand(len(x)) < 0.75).float()
        return torch.stack([right, 0.5 + 0 * right, 0 * right], 1) + 0 * x.sum(1, keepdim=True)


def vectors(n=60):
    """Inputs that the spiking network classifies correctly nine times in ten."""
    x = torch.rand(n, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = network()(x).argmax(1)
    y[::10] = (y[::10] + 1) % 3
    return x, y


def network(neuron=None):
    neuron = neuron or LIF(0.5, v_th=0.3)
    return MLP(16, 3, T=3, hidden=(12,), neuron=neuron, generator=stream(0, "w"))


def test_a_leaking_network_is_stopped_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="leak into the second"):
        evaluate(Leaking(), vectors(), ATTACKS, out=tmp_path / "result")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="leak into the second"):
        sg.audit(Leaking(), vectors(), threat=Linf(0.1), budget="quick")
    evaluate(Leaking(leak=False), vectors(), ATTACKS, out=tmp_path / "result")


def test_a_worst_case_that_is_luck_is_not_measured():
    x, y = vectors()
    with pytest.raises(ValueError, match="would be luck"):
        evaluate(Chance(y), (x, 0 * y), ATTACKS)
    with pytest.raises(ValueError, match="would be luck"):
        sg.audit(Chance(y), (x, 0 * y), threat=Linf(0.1), budget="quick")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wrong = evaluate(Chance(y), (x, 0 * y), ATTACKS, check=False)
    assert wrong.worst_case.accuracy < wrong.clean.accuracy  # though no input has any effect


@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("neuron", [LIF(0.5, v_th=0.3), NoisyLIF(0.5, v_th=0.3, sigma=0.3)])
def test_a_healthy_network_gives_the_same_bits_with_and_without_the_check(neuron, cascade):
    found = [
        evaluate(network(neuron), vectors(), ATTACKS, cascade=cascade, check=check)
        for check in (True, False)
    ]
    same(*found)


class Turned(nn.Module):
    """A classifier whose gradient points down."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        return self.inner(2 * x.detach() - x)


def test_a_suspicion_warns_and_the_result_is_the_same():
    with pytest.warns(PreflightWarning, match="the gradient is not that of the loss") as seen:
        found = evaluate(Turned(), vectors(), ATTACKS)
    assert seen[0].filename == __file__
    same(found, evaluate(Turned(), vectors(), ATTACKS, check=False))


def test_an_evaluation_that_continues_is_not_checked_again_and_warns_again(tmp_path, monkeypatch):
    calls = []

    def counting(*given):
        calls.append(len(given[1]))
        return ("check: of a kind",)

    monkeypatch.setattr(module, "quick_check", counting)
    images, model, options = as_image_set(vectors()), network(), EvaluationOptions(out=tmp_path)
    for _ in range(2):
        with pytest.warns(PreflightWarning, match="of a kind"):
            module.checked_plan(model, images, ATTACKS, options)
    assert calls == [32]
    with pytest.raises(ValueError, match="holds an unfinished evaluation with other"):
        module.checked_plan(Turned(), images, ATTACKS, options)
    plan_evaluation(model, images, ATTACKS, EvaluationOptions(out=tmp_path / "unchecked"))
    with pytest.warns(PreflightWarning):
        module.checked_plan(
            model, images, ATTACKS, EvaluationOptions(out=tmp_path / "unchecked", limit=None)
        )
    assert calls == [32, 32]
