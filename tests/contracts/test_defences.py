"""Contract of every defence; the tests run on each entry of DEFENCES.

A defence is built by its ``example()`` where it has one, and by its defaults otherwise. Its first
field is its strength, and 0 is plain training; otherwise ``off()`` returns plain training.
"""

from dataclasses import asdict, fields, replace

import pytest
import torch
from torch import nn

from spikeguard.data import ImageSet, Splits
from spikeguard.defences import AT, DEFENCES, Objective, Vanilla
from spikeguard.defences.piece import AddsTerm, Fits
from spikeguard.models import CNN
from spikeguard.neurons import NoisyLIF, StoG
from spikeguard.rng import part_of_batch, randomness, stream
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import train


def switched_off(piece):
    """Return the piece without effect; None for a classification loss that has none."""
    if hasattr(piece, "off"):
        return piece.off()
    if isinstance(piece, Fits):
        return None
    return replace(piece, **{field.name: 0.0 for field in fields(piece)[:1]})


ON = {name: getattr(piece, "example", piece)() for name, piece in DEFENCES.items()}
OFF = {name: off for name, piece in ON.items() if (off := switched_off(piece)) is not None}
NAMES = sorted(DEFENCES)
NETWORKS = [
    ("logits", NoisyLIF(0.5, sigma=0.2, v_th=0.3)),
    ("rate", NoisyLIF(0.5, sigma=0.2, v_th=0.3)),
    ("logits", StoG(0.5, p=0.8, v_th=0.3)),
]


def whole(piece, eps=0.1):
    """The piece as an objective; one that compares with a perturbed pass gets an attack of eps."""
    return Objective.of(piece) | (AT(eps=eps) if piece.needs_perturbed else Vanilla())


def small_cnn(name):
    """The first of a few small networks that the defence accepts; noisy ones come first."""
    for readout, neuron in NETWORKS:
        options = {"readout": readout, "neuron": neuron}
        model = CNN(1, 3, T=2, width=2, hidden=4, image_size=8, **options).train()
        try:
            ON[name].require(model, TrainOptions(weight_decay=0.0))
        except ValueError as error:
            rejection = error
        else:
            return model
    raise rejection


def images(count, name):
    x = torch.rand(count, 1, 8, 8, generator=stream(0, name))
    return ImageSet(x, torch.arange(count) % 3, 3, name, peak=1.0)


def small_data():
    return Splits(images(12, "train"), images(6, "val"), images(6, "test"), (0.5,), (0.5,))


def outcome(objective, model):
    data = small_data().train
    with randomness(model, stream(1, "noise")):
        return Objective.of(objective)(
            model, *data.batch(slice(0, 6)), progress=0.5, generator=stream(1, "objective")
        )


def test_every_defence_is_under_contract():
    assert {name: type(piece) for name, piece in ON.items()} == DEFENCES
    assert {piece.name: name for name, piece in ON.items()} == {name: name for name in DEFENCES}
    fits = {name for name in ON if isinstance(ON[name], Fits)}
    assert set(DEFENCES) - set(OFF) == fits - {"label_smoothing"} != fits


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_finite_scalars_and_reach_every_weight(name):
    model = small_cnn(name)
    result = outcome(whole(ON[name]), model)
    assert next(iter(result.losses)) == (name if isinstance(ON[name], Fits) else "cross_entropy")
    assert all(loss.ndim == 0 and loss.isfinite() for loss in result.losses.values())
    result.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    weights = [p for name, p in model.named_parameters() if name.endswith("weight")]
    assert all(p.grad.abs().sum() > 0 for p in weights)


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(ON[name], AddsTerm)])
def test_its_term_is_logged_before_weighting_with_its_layers(name):
    """The unweighted value is that of twice the strength, and the layers bear its name."""
    piece = ON[name]
    strength = "beta" if name in ("trades", "rte") else fields(piece)[0].name
    double = replace(piece, **{strength: 2 * getattr(piece, strength)})
    first, second = (outcome(whole(each), small_cnn(name)) for each in (piece, double))
    assert first.unweighted[name].isfinite() and first.unweighted[name] > 0
    torch.testing.assert_close(second.unweighted, first.unweighted)
    torch.testing.assert_close(second.losses[name], 2 * first.losses[name])
    assert all(key == name or key.startswith(f"{name}/") for key in first.unweighted)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OFF))
def test_switched_off_it_is_plain_training_to_the_bit(name, tmp_path):
    options = TrainOptions(epochs=2, batch_size=5, lr=0.05)
    plain, off = small_cnn(name), small_cnn(name)
    train(plain, small_data(), Vanilla(), options, out=tmp_path / "plain")
    train(off, small_data(), whole(OFF[name], eps=0.0), options, out=tmp_path / "off")
    torch.testing.assert_close(dict(off.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)
    assert any(
        (a != b).any()
        for a, b in zip(plain.parameters(), small_cnn(name).parameters(), strict=True)
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "vanilla"])
def test_switched_on_it_is_not(name):
    def step(objective):
        model = small_cnn(name)
        loss = outcome(objective, model).total.item()
        Objective.of(objective).constrain(model, 0.5, stream(1, "constrain"))
        return loss, sum(p.sum().item() for p in model.parameters())

    assert step(whole(ON[name])) != step(AT(eps=0.1) if ON[name].needs_perturbed else Vanilla())


@pytest.mark.parametrize("name", NAMES)
def test_its_losses_are_the_means_over_the_parts_of_a_batch(name):
    """Two processes with three images each draw what one with six draws, and share its loss."""
    model, losses = small_cnn(name), []
    outcome(whole(ON[name]), model)
    for layer in model.modules():  # statistics of a batch are shared by other means
        layer.train(not isinstance(layer, nn.BatchNorm2d))
    for rows in (torch.arange(6), torch.arange(3), torch.arange(3, 6)):
        model.zero_grad()
        x, y = small_data().train.batch(rows)
        with part_of_batch(rows, 6), randomness(model, stream(1, "noise")):
            options = {"progress": 0.5, "generator": stream(1, "objective")}
            losses.append(Objective.of(whole(ON[name]))(model, x, y, **options).losses)
    for loss, expected in losses[0].items():
        close = torch.allclose((losses[1][loss] + losses[2][loss]) / 2, expected, atol=1e-5)
        assert close != (ON[name].of_whole_batch and loss == name)


@pytest.mark.parametrize("name", NAMES)
def test_same_streams_same_losses_and_the_global_generator_is_unused(name):
    before = torch.get_rng_state()
    first, again = (outcome(whole(ON[name]), small_cnn(name)).losses for _ in range(2))
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in again.items()}
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_keeps_its_modes_and_flags(name):
    model = small_cnn(name)
    model.classifier.eval()
    flags = {k: m.training for k, m in model.named_modules()}
    outcome(whole(ON[name]), model)
    assert {k: m.training for k, m in model.named_modules()} == flags
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_fields_build_it_again(name):
    assert DEFENCES[name](**asdict(ON[name])) == ON[name]


@pytest.mark.parametrize("name", NAMES)
def test_combining_with_vanilla_either_way_changes_nothing(name):
    assert Vanilla() | ON[name] == ON[name] | Vanilla() == Objective.of(ON[name])
