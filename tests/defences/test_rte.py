"""RTE: its loss by hand, TRADES at one step, and a search on one step of every image."""

import math

import pytest
import torch
from torch import nn

from spikeguard.defences import AT, RTE, TRADES, Objective
from spikeguard.defences.piece import Pass, Step
from spikeguard.defences.rte import mean_divergence
from spikeguard.defences.trades import divergence
from spikeguard.models import CNN
from spikeguard.models.snn import SNN, TimeSequential
from spikeguard.models.step_outputs import collect_steps
from spikeguard.neurons import LIF
from spikeguard.rng import stream

X = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
Y = torch.tensor([0, 1, 2, 0, 1, 2])
HALF, QUARTER = (torch.tensor([p, 1 - p]).log()[None] for p in (0.5, 0.25))


def small_cnn(T):
    return CNN(1, 3, T=T, width=2, hidden=4, image_size=8, neuron=LIF(0.5, v_th=0.3)).train()


def outcome(piece, T):
    model = small_cnn(T)
    found = Objective.of(piece)(model, X, Y, progress=0.5, generator=stream(1, "o"))
    found.total.backward()
    return found, [p.grad for p in model.parameters()]


def test_the_term_is_the_mean_over_steps_worked_by_hand():
    """Steps without and with a change: (0 + ln(4/3) / 2) / 2, so the weights 1/T sum to one."""
    clean, perturbed = torch.stack([HALF, HALF]), torch.stack([HALF, QUARTER])
    passes = [Pass(X, steps.mean(0), None, steps) for steps in (clean, perturbed)]
    step = Step(nn.Identity(), *passes, Y[:1], 0.5, stream(0, "step"))
    assert RTE(beta=8.0).term(step).item() == pytest.approx(2 * math.log(4 / 3))
    same = torch.stack([QUARTER] * 5), torch.stack([HALF] * 5)
    assert mean_divergence(*same).item() == pytest.approx(divergence(QUARTER, HALF).item())


def test_a_change_that_the_ensemble_does_not_show_costs():
    """Two steps that swap their outputs leave the mean, and with it the loss of TRADES, alone."""
    clean, perturbed = torch.stack([HALF, QUARTER]), torch.stack([QUARTER, HALF])
    assert divergence(clean.mean(0), perturbed.mean(0)).item() == pytest.approx(0, abs=1e-7)
    assert mean_divergence(clean, perturbed) > 0.1


def test_at_one_time_step_it_is_trades():
    """The same images, loss and gradients, from the same random stream."""
    settings = {"eps": 0.1, "steps": 3, "step_size": 0.05, "beta": 2.0}
    model = small_cnn(1)
    first, second = (
        piece.perturb(model, X, Y, stream(5, "same"))
        for piece in (RTE(**settings), TRADES(**settings))
    )
    assert (first - X).abs().max() == pytest.approx(0.1)
    assert torch.equal(first, second)

    class Named(TRADES):
        name = "rte"

    rte, trades = outcome(RTE(**settings), 1), outcome(Named(**settings), 1)
    torch.testing.assert_close(rte[0].total, trades[0].total)
    torch.testing.assert_close(rte[1], trades[1])


class Selective(nn.Module):
    """Stage whose output at step t is (w[t].x, 0): every step sees another pixel."""

    def forward(self, drive, T):
        flat = drive.expand(T, *drive.shape[1:]).flatten(2)
        own = torch.stack([flat[t, :, t] for t in range(T)])
        return torch.stack([own, torch.zeros_like(own)], 2)


def test_the_search_changes_the_pixel_of_one_step_of_each_image():
    """Only that step's pixel has a gradient, so it alone reaches the corner of the ball."""
    model = SNN({"out": Selective()}, T=4, num_classes=2, in_shape=(4,))
    x = torch.full((64, 4), 0.5)
    found = RTE(eps=0.1, steps=5, step_size=0.05).perturb(
        model, x, torch.zeros(64, dtype=torch.int64), stream(0, "s")
    )
    moved = (found - x).abs() > 0.09
    assert (moved.sum(1) == 1).all()
    share = moved.float().mean(0)
    assert (share - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 64)


def test_steps_are_kept_for_it_alone():
    model = small_cnn(3)
    seen = Objective.of(RTE(eps=0.1, steps=1))(
        model, X, Y, progress=0.5, generator=stream(1, "o")
    ).seen
    assert seen.steps.shape == (3, 6, 3)
    plain = Objective.of(AT(eps=0.1))(model, X, Y, progress=0.5, generator=stream(1, "o")).seen
    assert plain.steps is None
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_time_steps_is_rejected_before_training():
    with pytest.raises(ValueError, match="rte: needs the output of every time step"):
        Objective.of(RTE()).require(nn.Linear(2, 2), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -1.0}, "beta is a weight >= 0, got -1"),
        ({"eps": -0.1}, "eps is a radius >= 0 in input units, got -0.1"),
        ({"eps": 8.0}, "RTE: "),
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"step_size": 0.0}, "step_size must be positive, got 0"),
    ],
)
def test_settings_out_of_range_are_rejected(settings, message):
    with pytest.raises(ValueError, match=message):
        RTE(**settings)


def test_the_steps_of_a_pass_have_the_gradient_of_the_weights():
    model = TimeSequential(nn.Flatten(), nn.Linear(64, 3))
    network = SNN({"out": model}, T=2, num_classes=3, in_shape=(1, 8, 8))
    with collect_steps(network) as found:
        network(X)
    found[0].sum().backward()
    assert model[1].weight.grad.abs().sum() > 0
