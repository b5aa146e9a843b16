"""Objectives: training batch, terms, constraints, and side effects that must not happen."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.defences import AT, TGO, GaussianNoise, MSERates, Objective, Piece, Vanilla
from spikeguard.models import CNN, MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import randomness, stream

X = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def small_cnn():
    neuron = NoisyLIF(0.5, sigma=0.2, v_th=0.3)
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=neuron).train()


def losses(objective, model, progress=0.5, seed=1):
    with randomness(model, stream(seed, "noise")):
        return Objective.of(objective)(
            model, X, Y, progress=progress, generator=stream(seed, "objective")
        )


@dataclass(frozen=True)
class Shrink(Piece):
    """A constraint: all weights are multiplied by a factor after each step."""

    name: ClassVar[str] = "shrink"
    factor: float = 0.5

    def constrain(self, model, progress, generator):
        for parameter in model.parameters():
            parameter.mul_(self.factor)


@dataclass(frozen=True)
class Constant(Piece):
    """A term with a known value and a given name."""

    name: ClassVar[str] = "constant"
    value: float = 2.0

    def term(self, step):
        return torch.tensor(self.value * step.progress)


def test_vanilla_is_cross_entropy_on_the_clean_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    outcome = losses(Vanilla(), model)
    assert list(outcome.losses) == ["cross_entropy"]
    expected = functional.cross_entropy(model(X), Y)
    torch.testing.assert_close(outcome.total, expected, rtol=0, atol=0)
    assert outcome.seen.x is X


def test_terms_are_added_and_named_with_cross_entropy_first():
    objective = Constant() | TGO(lambda_max=0.4)
    outcome = losses(objective, small_cnn())
    assert list(outcome.losses) == ["cross_entropy", "constant", "tgo"]
    assert outcome.losses["constant"].item() == 1.0
    torch.testing.assert_close(outcome.total, sum(outcome.losses.values()))
    alone = losses(TGO(lambda_max=0.4), small_cnn()).losses["tgo"]
    torch.testing.assert_close(outcome.losses["tgo"], alone, rtol=0, atol=0)
    model, kwargs = small_cnn(), {"progress": 0.5, "generator": stream(1, "objective")}
    with randomness(model, stream(1, "noise")):
        again = objective.losses(model, X, Y, **kwargs)
    assert {k: v.item() for k, v in again.items()} == {
        k: v.item() for k, v in outcome.losses.items()
    }


def test_order_of_the_pieces_does_not_matter():
    pieces = (AT(eps=0.1), TGO(lambda_max=0.4), Constant(0.7))
    first = losses(Objective(pieces), small_cnn())
    last = losses(Objective(pieces[::-1]), small_cnn())
    assert first.total.item() == last.total.item()


def test_at_moves_a_linear_model_by_eps_against_the_weights_and_trains_on_that_alone():
    """Logits (w.x, 0), label 0: the loss falls in w.x, so FGSM subtracts eps sign(w)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    w = torch.tensor([1.0, -2.0, 0.5, 3.0])
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([w, torch.zeros(4)]))
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    outcome = Objective.of(AT(eps=0.125))(model, x, y, progress=0.0, generator=stream(0, "o"))
    shown = (0.5 - 0.125 * w.sign()).expand(2, 4)
    torch.testing.assert_close(outcome.seen.x.flatten(1), shown, rtol=0, atol=0)
    expected = math.log(1 + math.exp(-(shown[0] @ w).item()))
    assert list(outcome.losses) == ["cross_entropy"]
    assert outcome.total.item() == pytest.approx(expected)
    assert all(p.grad is None for p in model.parameters())


def test_at_is_crafted_in_evaluation_mode_and_trained_on_in_training_mode():
    model = small_cnn()
    modes = []
    handle = model.features[1].register_forward_hook(lambda m, *_: modes.append(m.training))
    losses(AT(eps=0.1, steps=2, step_size=0.05), model)
    handle.remove()
    assert modes[-1] is True
    assert set(modes[:-1]) == {False}
    assert model.training
    assert all(m.training for m in model.modules())
    assert model.features[1].num_batches_tracked == 1  # the attack did not change the statistics


def test_a_perturbation_shifts_no_other_draw():
    """The neuron noise of the training pass is the same with and without adversarial training."""
    noises = []
    for objective in (TGO(), AT(eps=0.1, steps=2) | TGO(), GaussianNoise(0.1) | TGO()):
        trace = losses(objective, small_cnn()).seen.trace
        noises.append([layer.noise for layer in trace.values()])
    for other in noises[1:]:
        torch.testing.assert_close(other, noises[0], rtol=0, atol=0)


def test_pieces_draw_from_streams_of_their_own():
    """Adding a term does not change the perturbation."""
    alone = losses(AT(eps=0.1, steps=2), small_cnn()).seen.x
    joined = losses(AT(eps=0.1, steps=2) | TGO() | Constant(), small_cnn()).seen.x
    torch.testing.assert_close(joined, alone, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_at_stays_in_its_ball(norm):
    shown = losses(AT(eps=0.05, steps=3, norm=norm), small_cnn()).seen.x
    change = (shown - X).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (size <= 0.05 * (1 + 1e-5)).all()
    assert size.max() > 0.01
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_one_step_is_fgsm_and_more_are_pgd_with_a_random_start():
    assert type(AT(eps=0.1).attack).__name__ == "FGSM"
    pgd = AT(eps=0.1, steps=2, step_size=0.05).attack
    assert (type(pgd).__name__, pgd.steps, pgd.step_size, pgd.random_start) == (
        "PGD",
        2,
        0.05,
        True,
    )
    assert not AT(eps=0.1, steps=2, random_start=False).attack.random_start
    started = AT(eps=0.1, steps=1, step_size=0.1, random_start=True).attack
    assert (type(started).__name__, started.steps, started.random_start) == ("PGD", 1, True)


def test_gaussian_noise_has_its_deviation_and_is_not_clamped():
    x = torch.ones(64, 1, 16, 16)
    shown = GaussianNoise(0.25).perturb(nn.Identity(), x, Y, stream(0, "g"))
    change = shown - x
    n = change.numel()
    assert abs(change.mean().item()) < 5 * 0.25 / math.sqrt(n)
    assert abs(change.std().item() / 0.25 - 1) < 5 / math.sqrt(2 * n)
    assert shown.max() > 1
    again = GaussianNoise(0.25).perturb(nn.Identity(), x, Y, stream(0, "g"))
    torch.testing.assert_close(again, shown, rtol=0, atol=0)


def test_constraints_run_after_a_step_without_gradients():
    model = nn.Linear(2, 2)
    before = [p.clone() for p in model.parameters()]
    (Shrink() | TGO()).constrain(model, 0.5, stream(0, "constrain"))
    torch.testing.assert_close(list(model.parameters()), [p * 0.5 for p in before])


def test_two_perturbations_are_rejected():
    with pytest.raises(ValueError, match=r"perturbed once, got AT\(.*\) and GaussianNoise\("):
        AT(eps=0.1) | GaussianNoise(0.1)
    with pytest.raises(ValueError, match="'tgo' occurs twice"):
        TGO(0.1) | TGO(0.2)
    with pytest.raises(ValueError, match="combines defences"):
        AT(eps=0.1) | "tgo"


def test_vanilla_adds_nothing():
    assert Vanilla() | TGO() == Objective((TGO(),))
    assert Objective.of(Vanilla()) == Objective()
    assert repr(Objective()) == "Vanilla()"


def test_repr_builds_the_objective_again():
    objective = AT(eps=2 / 255, steps=2, step_size=1 / 255) | TGO(lambda_max=0.4)
    assert "AT(eps=0.00784" in repr(objective)
    assert eval(repr(objective)) == objective


def test_progress_is_a_share():
    with pytest.raises(ValueError, match=r"progress is a share in \[0, 1\], got 1.5"):
        losses(Vanilla(), small_cnn(), progress=1.5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AT(eps=-0.1), "eps is a radius >= 0"),
        (lambda: AT(eps=math.nan), "eps is a radius >= 0"),
        (lambda: AT(eps=0.1, steps=0), "steps must be >= 1, got 0"),
        (lambda: AT(eps=0.1, norm="l3"), "norm is one of linf, l2, l1; got 'l3'"),
        (lambda: AT(eps=0.1, steps=2, step_size=0.0), "step_size must be positive"),
        (lambda: AT(eps=0.1, step_size=0.1), "is FGSM, whose step is eps, got step_size=0.1"),
        (lambda: GaussianNoise(-1.0), "sigma is a standard deviation >= 0, got -1"),
        (lambda: GaussianNoise(math.inf), "sigma is a standard deviation >= 0, got inf"),
    ],
)
def test_settings_are_checked(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_rates_are_compared_with_the_one_hot_label():
    """(0.5^2 + 0.25^2 + 0 + 1) / 4."""
    rates = torch.tensor([[0.5, 0.25], [0.0, 0.0]])
    assert MSERates().fit(rates, torch.tensor([0, 1])) == (0.25 + 0.0625 + 0 + 1) / 4


def test_mse_rates_needs_a_network_with_rate_readout():
    with pytest.raises(ValueError, match="set model"):
        Objective.of(MSERates()).require(MLP(4, 2, T=2), None)
    Objective.of(MSERates()).require(MLP(4, 2, T=2, readout="rate"), None)


def test_two_classification_losses_are_rejected():
    @dataclass(frozen=True)
    class Other(Piece):
        name = "other"

        def fit(self, logits, y):
            return logits.sum()

    with pytest.raises(ValueError, match="one classification loss, got mse_rates and other"):
        MSERates() | Other()


@pytest.mark.parametrize(
    ("word", "name"),
    [("LabelSmoothing", "label_smoothing"), ("TGO2", "tgo2"), ("MPDReach", "mpd_reach")],
)
def test_a_piece_is_named_after_its_class_unless_it_says_otherwise(word, name):
    assert type(word, (Piece,), {}).name == name
    assert type(word, (AT,), {}).name == "at"
    assert type(word, (Piece,), {"name": "mine"}).name == "mine"
