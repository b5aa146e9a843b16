"""RAT: closed forms of the retraction and the projection, and the rows and layers they change."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from spikeguard.data import ImageSet, Splits
from spikeguard.defences import AT, RAT, Objective, Piece, Vanilla
from spikeguard.defences.rat import project_simplex, retract
from spikeguard.models import CNN, WRN16_4
from spikeguard.rng import stream
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import train


def matrix(*shape, name="w"):
    return torch.randn(shape, generator=stream(0, name), dtype=torch.float64)


def constrain(model, beta=0.1, seed=0):
    Objective.of(RAT(beta)).constrain(model, 0.5, stream(seed, "constrain"))
    return model


# ------------------------------------------------------------------------- the retraction


def test_a_single_weight_by_hand():
    """W = (2), beta = 0.1: 1.1 * 2 - 0.1 * 8 = 1.4."""
    assert retract(torch.tensor([[2.0]]), 0.1).item() == pytest.approx(1.4)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_singular_values_move_by_beta_times_s_minus_s_cubed(shape):
    w = matrix(*shape)
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    expected = u @ torch.diag(s + 0.05 * (s - s**3)) @ v
    torch.testing.assert_close(retract(w, 0.05), expected)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_orthonormal_rows_or_columns_stay_what_they_are(shape):
    q, _ = torch.linalg.qr(matrix(9, 4))
    w = q if shape == (9, 4) else q.T
    torch.testing.assert_close(retract(w, 0.3), w)


def test_repeated_it_makes_the_rows_orthonormal():
    w = matrix(3, 12) / 4
    for _ in range(200):
        w = retract(w, 0.2)
    torch.testing.assert_close(w @ w.T, torch.eye(3, dtype=torch.float64))


def test_a_kernel_is_a_matrix_of_its_output_channels():
    conv = nn.Conv2d(3, 4, 3)
    before = conv.weight.detach().clone()
    rows = before.view(4, 27)
    expected = 1.1 * rows - 0.1 * rows @ rows.T @ rows
    torch.testing.assert_close(constrain(conv).weight.detach(), expected.view(4, 3, 3, 3))
    assert not torch.equal(conv.weight, before)


def test_a_wide_linear_layer_is_retracted_in_30_percent_of_its_rows_as_their_own_matrix():
    layer = nn.Linear(20, 250)
    before = layer.weight.detach().clone()
    after = constrain(layer).weight.detach()
    touched = (after != before).any(1)
    assert touched.sum() == 75
    torch.testing.assert_close(after[touched], retract(before[touched], 0.1))


@pytest.mark.parametrize(("outputs", "rows"), [(199, 199), (200, 60)])
def test_wide_begins_at_200_outputs(outputs, rows):
    layer = nn.Linear(8, outputs)
    before = layer.weight.detach().clone()
    assert (constrain(layer).weight != before).any(1).sum() == rows


def test_new_rows_are_drawn_at_each_step_from_the_given_stream():
    layer = nn.Linear(20, 300)
    before = layer.weight.detach().clone()
    state = torch.get_rng_state()

    def rows(seed):
        with torch.no_grad():
            layer.weight.copy_(before)
        return (constrain(layer, seed=seed).weight != before).any(1)

    assert torch.equal(rows(0), rows(0))
    assert not torch.equal(rows(0), rows(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_another_constraint_shifts_no_draw():
    @dataclass(frozen=True)
    class Draws(Piece):
        name: ClassVar[str] = "draws"  # comes before "rat"

        def constrain(self, model, progress, generator):
            torch.rand(7, generator=generator)

    torch.manual_seed(0)
    layers = [nn.Linear(20, 300) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer, objective in zip(layers, (Objective.of(RAT(0.1)), RAT(0.1) | Draws()), strict=True):
        objective.constrain(layer, 0.5, stream(0, "constrain"))
    assert torch.equal(layers[0].weight, layers[1].weight)


def test_biases_and_batch_normalisation_are_unchanged():
    model = CNN(1, 3, T=2, width=4, hidden=8, image_size=8)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    constrain(model)
    matrices = {
        f"{k}.weight" for k, m in model.named_modules() if type(m) in (nn.Conv2d, nn.Linear)
    }
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == matrices


# ------------------------------------------------------------------------- the projection


@pytest.mark.parametrize(
    ("point", "nearest"),
    [
        ([0.5, 0.5], [0.5, 0.5]),
        ([2.0, 0.0], [1.0, 0.0]),
        ([-1.0, -1.0], [0.5, 0.5]),
        ([0.75, 0.5], [0.625, 0.375]),
        ([-3.0, 0.2], [0.0, 1.0]),
        ([0.25, 0.25, 2.0], [0.0, 0.0, 1.0]),
    ],
)
def test_projection_on_the_simplex_by_hand(point, nearest):
    assert project_simplex(torch.tensor(point)).tolist() == nearest


@pytest.mark.parametrize("seed", range(5))
def test_no_point_of_the_simplex_is_nearer_than_the_projection(seed):
    """Against all points of a grid of 1/50 in three dimensions."""
    point = 1.5 * torch.randn(3, generator=stream(seed, "p"), dtype=torch.float64)
    found = project_simplex(point)
    assert found.min() >= 0
    assert found.sum().item() == pytest.approx(1)
    a, b = torch.meshgrid(torch.arange(51.0), torch.arange(51.0), indexing="ij")
    grid = torch.stack([a, b, 50 - a - b], dim=-1)[a + b <= 50].double() / 50
    distance = (grid - point).norm(dim=1).min()
    assert (found - point).norm() <= distance + 1e-12
    assert (found - point).norm() >= distance - 0.03  # the spacing of the grid


def test_every_residual_join_ends_on_the_simplex():
    model = WRN16_4(1, 3, T=1, width=1 / 16, image_size=8)
    joins = [m.coefficients for m in model.modules() if hasattr(m, "coefficients")]
    with torch.no_grad():
        for c in joins:
            c.copy_(torch.tensor([1.25, 0.5]))
    constrain(model, beta=1e-3)
    assert len(joins) == 6
    for c in joins:
        assert c.tolist() == [0.875, 0.125]


# --------------------------------------------------------------------------- in a training


def images(count, name):
    x = torch.rand(count, 1, 8, 8, generator=stream(0, name))
    return ImageSet(x, torch.arange(count) % 3, 3, name, peak=1.0)


def test_it_acts_after_the_optimiser_step(tmp_path):
    """One step with RAT equals one step without it followed by a retraction."""
    data = Splits(images(4, "train"), images(3, "val"), images(3, "test"), (0.5,), (0.5,))
    options = TrainOptions(epochs=1, batch_size=4, weight_decay=0.0)
    nets = [CNN(1, 3, T=2, width=4, hidden=8, image_size=8) for _ in range(2)]
    for net, piece in zip(nets, (Vanilla(), RAT(0.1)), strict=True):
        train(net, data, piece, options, out=tmp_path / piece.name)
    plain, rat = nets
    torch.testing.assert_close(constrain(plain).state_dict(), rat.state_dict())


def test_each_step_of_a_training_has_a_stream_of_its_own(tmp_path):
    drawn = []

    @dataclass(frozen=True)
    class Draws(Piece):
        name: ClassVar[str] = "draws"

        def constrain(self, model, progress, generator):
            drawn.append(torch.rand(1, generator=generator).item())

    data = Splits(images(4, "train"), images(3, "val"), images(3, "test"), (0.5,), (0.5,))
    options = TrainOptions(epochs=2, batch_size=2)
    for name in "ab":
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        train(model, data, Draws(), options, out=tmp_path / name)
    assert len(set(drawn[:4])) == 4
    assert drawn[4:] == drawn[:4]


def test_a_killed_run_draws_its_rows_again(tmp_path):
    """The wide layer is retracted in random rows; the resumed run ends with the same weights."""
    data = Splits(images(8, "train"), images(3, "val"), images(3, "test"), (0.5,), (0.5,))
    options = TrainOptions(epochs=2, batch_size=4, weight_decay=0.0, checkpoint_seconds=0.0)

    def fresh():
        return CNN(1, 3, T=1, width=2, hidden=200, image_size=8)

    class Killed(Exception):
        pass

    def kill(done, total, text):
        if done == 3:
            raise Killed

    whole, resumed = fresh(), fresh()
    train(whole, data, RAT(0.1), options, out=tmp_path / "whole")
    with pytest.raises(Killed):
        train(fresh(), data, RAT(0.1), options, out=tmp_path / "killed", progress=kill)
    train(resumed, data, RAT(0.1), options, out=tmp_path / "killed", resume=True)
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_weight_decay_is_rejected_with_a_hint():
    model, objective = nn.Linear(2, 2), AT(eps=2 / 255) | RAT()
    with pytest.raises(ValueError, match=r"got weight_decay=0\.0005; write train\.weight_decay: 0"):
        objective.require(model, TrainOptions())
    objective.require(model, TrainOptions(weight_decay=0.0))
    Objective.of(RAT(beta=0.0)).require(model, TrainOptions())


def test_switched_off_it_leaves_the_joins_alone_too():
    model = WRN16_4(1, 3, T=1, width=1 / 16, image_size=8)
    with torch.no_grad():
        for c in (m.coefficients for m in model.modules() if hasattr(m, "coefficients")):
            c.fill_(3.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    constrain(model, beta=0.0)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_presets_are_the_published_strengths():
    published = {
        ("cifar10", "vgg11"): 5e-4,
        ("cifar10", "wrn16_4"): 4e-3,
        ("cifar100", "vgg11"): 1e-3,
        ("cifar100", "wrn16_4"): 4e-3,
    }
    assert {names: RAT.preset(*names).beta for names in published} == published
    with pytest.raises(ValueError, match=r"presets are cifar10 vgg11, .*; got mnist vgg11"):
        RAT.preset("mnist", "vgg11")


@pytest.mark.parametrize("beta", [-0.1, 1.0, math.nan, math.inf])
def test_settings_are_checked(beta):
    with pytest.raises(ValueError, match=r"beta is a strength in \[0, 1\), got"):
        RAT(beta)
