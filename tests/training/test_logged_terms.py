"""What a training logs: terms before weighting, by layer, at weight 0, and the validation loss."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.data import ImageSet, Splits
from spikeguard.defences import AT, TGO, Objective
from spikeguard.defences.mpd_sgr import MPDSGR
from spikeguard.defences.mppd import MPPD
from spikeguard.defences.mse import MSERates
from spikeguard.defences.sr import SR
from spikeguard.defences.trades import TRADES
from spikeguard.models import CNN
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import stream
from spikeguard.training.engine import Engine
from spikeguard.training.learner import Learner
from spikeguard.training.options import TrainOptions
from spikeguard.training.state import TrainState
from spikeguard.training.trainer import train

ONE_STEP = TrainOptions(epochs=1, batch_size=12, lr=0.05)


def images(count, name):
    x = torch.rand(count, 1, 8, 8, generator=stream(0, name))
    return ImageSet(x, torch.arange(count) % 3, 3, name, peak=1.0)


def data(val=6):
    held = images(val, "val") if val else None
    return Splits(images(12, "train"), held, images(6, "test"), (0.5,), (0.5,))


def cnn(neuron=None, **options):
    neuron = LIF(0.5, v_th=0.3) if neuron is None else neuron
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=neuron, **options)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def history(objective, out, options=ONE_STEP, model=None):
    model = cnn() if model is None else model
    result = train(model, data(), objective, options, out=out)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == result.history
    return result.history, weights(model)


# Terms before weighting


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_mpd_sgr_is_logged_before_weighting_and_by_layer_also_at_weight_0(tmp_path, weight):
    """In one step from the same weights the unweighted term does not depend on its weight."""
    (line,), _ = history(MPDSGR(weight), tmp_path / "run")
    (other,), _ = history(MPDSGR(1.0), tmp_path / "other")
    assert line["unweighted"] == other["unweighted"]
    assert line["terms"]["mpd_sgr"] == pytest.approx(weight * line["unweighted"]["mpd_sgr"])
    layers = [v for k, v in line["unweighted"].items() if k.startswith("mpd_sgr/")]
    assert len(layers) == 4  # of a CNN
    assert sum(layers) / 4 == pytest.approx(line["unweighted"]["mpd_sgr"])


def test_tgo_is_logged_before_weighting_while_lambda_is_still_0(tmp_path):
    (line,), _ = history(TGO(4.0), tmp_path / "run")  # one step: progress 0, lambda 0
    assert line["terms"]["tgo"] == 0
    layers = [v for k, v in line["unweighted"].items() if k.startswith("tgo/")]
    assert line["unweighted"]["tgo"] == pytest.approx(sum(layers)) and min(layers) > 0


IDLE = {
    "mppd": (AT(eps=0.1) | MPPD(rho=0.0), AT(eps=0.1) | MPPD(rho=1.0)),
    "sr": (Objective.of(SR(0.0)), Objective.of(SR(1.0))),
}


@pytest.mark.parametrize("name", IDLE)
def test_a_term_of_weight_0_is_logged_on_request_and_has_the_value_of_weight_1(tmp_path, name):
    """Known by the run with weight 1: one step from the same weights, without noise."""
    idle, active = IDLE[name]
    (plain,), before = history(idle, tmp_path / "plain")
    assert not [key for key in plain["unweighted"] if key.startswith(name)]
    (line,), after = history(idle, tmp_path / "idle", replace(ONE_STEP, measure_idle=True))
    (expected,), _ = history(active, tmp_path / "active")
    assert line["unweighted"] == pytest.approx(expected["unweighted"])
    assert line["unweighted"][name] > 0
    assert line["terms"] == plain["terms"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("objective", [AT(eps=0.1) | MPPD(rho=0.0), TRADES(beta=0.0), SR(0.0)])
def test_measuring_idle_terms_leaves_weights_statistics_and_noise_as_they_are(tmp_path, objective):
    options = TrainOptions(epochs=2, batch_size=5, lr=0.05)
    ends = []
    for measured in (False, True):
        model = cnn(NoisyLIF(0.5, sigma=0.2, v_th=0.3))
        out = tmp_path / str(measured)
        lines, end = history(objective, out, replace(options, measure_idle=measured), model)
        ends.append(end)
        names = {piece.name for piece in Objective.of(objective).pieces if piece.idle}
        assert (names <= set(lines[-1]["unweighted"])) == measured
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)


def test_measuring_idle_terms_leaves_the_draws_of_dropout_to_the_training(tmp_path):
    """They come from torch's own generator, also in the second part of a batch."""
    ends = []
    for measured in (False, True):
        model = cnn()
        model.classifier.insert(1, nn.Dropout(0.5))
        options = TrainOptions(epochs=1, batch_size=6, lr=0.05, accumulate=2, measure_idle=measured)
        ends.append(history(AT(eps=0.1) | SR(0.0), tmp_path / str(measured), options, model)[1])
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)


def test_an_epoch_begun_by_an_earlier_version_has_the_means_of_the_images_measured():
    """5 of 8 images were counted without terms before weighting; 3 have the value 2."""
    state = TrainState(samples=5, correct=1, losses={"cross_entropy": 5.0})
    state.count({"cross_entropy": 1.0}, 2, 3)
    state.measure({"tgo": 2.0}, 3)
    again = TrainState(**json.loads(json.dumps(asdict(state))))
    line = again.next_epoch(2, 0.1, None, None).history[0]
    assert line["unweighted"] == {"tgo": 2.0}
    assert line["terms"] == {"cross_entropy": 1.0}


def test_a_subclass_with_a_term_of_its_own_is_trained_with_that_term(tmp_path):
    class Constant(TGO):
        def term(self, step):
            return 0 * step.seen.logits.sum() + 2.5

    (line,), _ = history(Constant(4.0), tmp_path / "run")
    assert line["terms"]["tgo"] == 2.5
    assert line["unweighted"] == {}


def test_options_at_their_default_do_not_change_the_identity_of_a_run():
    assert not {"patience", "measure_idle"} & set(TrainOptions().identity())
    assert TrainOptions(patience=0, measure_idle=True).identity()["patience"] == 0


# Validation


def test_the_validation_loss_is_the_objectives(tmp_path):
    """With the mean squared error of rates it is that error of the trained network."""
    model = cnn(readout="rate")
    options = TrainOptions(epochs=1, batch_size=4, lr=0.01)
    (line,), _ = history(MSERates(), tmp_path / "run", options, model)
    x, y = data().val.batch(slice(None))
    wanted = functional.mse_loss(model.eval()(x), functional.one_hot(y, 3).float()).item()
    assert line["val_loss"] == pytest.approx(wanted, rel=1e-6)
    assert line["val_loss"] != pytest.approx(functional.cross_entropy(model(x), y).item())


def test_without_validation_images_the_last_epoch_is_returned(tmp_path):
    options = TrainOptions(epochs=3, batch_size=4, lr=0.05)
    out, model, heard = tmp_path / "run", cnn(), []
    result = train(model, data(0), None, options, out=out, progress=lambda *a: heard.append(a[2]))
    assert (result.best_epoch, result.val_accuracy) == (3, None)
    assert all(line["val_loss"] is None is line["val_accuracy"] for line in result.history)
    assert [folder.name for folder in (out / "checkpoints").iterdir()] == ["last"]
    card = json.loads((out / "result.json").read_text())
    assert (card["best_epoch"], card["val_accuracy"], card["val_samples"]) == (3, None, 0)
    assert heard[-1].startswith("epoch 3/3  loss ")
    # the same bits as with validation images, which are never trained on
    other = cnn()
    train(other, data(), None, options, out=tmp_path / "other")
    last = tmp_path / "other" / "checkpoints" / "last" / "model.safetensors"
    assert last.read_bytes() == (out / "checkpoints" / "last" / "model.safetensors").read_bytes()
    again = train(cnn(), data(0), None, options, out=out, resume=True)
    assert again.history == result.history


# Early stopping


def planted(losses):
    lines = [
        {"epoch": n, "val_loss": loss, "val_accuracy": 0.1 * n} for n, loss in enumerate(losses, 1)
    ]
    return TrainState(epoch=len(lines), history=lines)


@pytest.mark.parametrize(
    ("losses", "patience", "stops"),
    [
        ((3.0, 2.0, 2.0, 2.5, 2.1), 2, True),  # 3 epochs without improvement are more than 2
        ((3.0, 2.0, 2.0, 2.5), 2, False),
        ((3.0, 2.0, 2.5, 1.9), 0, False),
        ((3.0, 3.0), 0, True),
        ((3.0, 3.0, 3.0), None, False),
        ((), 0, False),
    ],
)
def test_stops_when_the_loss_has_not_fallen_for_more_than_patience_epochs(losses, patience, stops):
    assert planted(losses).stopped(patience) == stops


def test_the_best_epoch_of_a_stopped_run_has_the_lowest_validation_loss(tmp_path):
    """A learning rate that diverges slowly: the first epochs are best, so the run stops early."""
    assert planted((3.0, 1.0, 1.0, 2.0)).best(by_loss=True)["epoch"] == 2
    assert planted((3.0, 1.0, 1.0, 2.0)).best()["epoch"] == 4
    options = TrainOptions(epochs=40, batch_size=4, lr=1.0, schedule="constant", patience=1)
    out = tmp_path / "run"
    result = train(cnn(), data(), None, options, out=out)
    losses = [line["val_loss"] for line in result.history]
    best = 1 + losses.index(min(losses))
    assert result.best_epoch == best
    assert len(losses) == best + 2 < 40
    assert json.loads((out / "result.json").read_text())["epochs"] == len(losses)
    again = train(cnn(), data(), None, options, out=out, resume=True)
    assert again.history == result.history


def test_early_stopping_needs_validation_images(tmp_path):
    options = replace(ONE_STEP, patience=5)
    with pytest.raises(ValueError, match="patience=5 needs validation images"):
        train(cnn(), data(0), None, options, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"patience is a whole number of epochs >= 0, got -1"):
        TrainOptions(patience=-1)


def test_lambda_by_epoch_is_that_of_the_training_loop():
    """Two epochs of three steps: the steps of the second epoch all have p = 1/2."""
    model, seen = cnn(), []

    class Watched(TGO):
        def measured(self, step):
            seen.append((step.progress, step.epoch_progress))
            return super().measured(step)

    options = TrainOptions(epochs=2, batch_size=4)
    learner = Learner.create(model, data(), Objective.of(Watched()), options, Engine())
    for epoch in (0, 1):
        for batch in range(3):
            at = TrainState(epoch=epoch, batch=batch)
            learner.step(torch.arange(4), at, progress=(3 * epoch + batch) / 6)
    assert [epoch for _, epoch in seen] == [0, 0, 0, 0.5, 0.5, 0.5]
    assert [step for step, _ in seen] == [n / 6 for n in range(6)]
