"""Tests of train(): steps against formulas, files, rejected input, resume and divergence."""

import errno
import json
import math
import signal
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.attacks import NoGradientError
from spikeguard.data import ImageSet, RandomCrop, Splits
from spikeguard.defences import (
    AT,
    TGO,
    LabelSmoothing,
    MSERates,
    Objective,
    Piece,
    Vanilla,
)
from spikeguard.encoders import EventFrames
from spikeguard.encoders.input_space import InputSpace
from spikeguard.models import CNN, MLP
from spikeguard.neurons import LIF, NoisyLIF, Rectangular
from spikeguard.rng import stream
from spikeguard.storage import checkpoints as checkpoint
from spikeguard.storage.checkpoints import load_model
from spikeguard.storage.digests import file_digest, is_sealed
from spikeguard.system.out_of_memory import OutOfMemory
from spikeguard.training import engine
from spikeguard.training.checkpointing import difference, differences, identity, require_new_folder
from spikeguard.training.divergence import TrainingDiverged
from spikeguard.training.engine import Engine
from spikeguard.training.learner import Learner
from spikeguard.training.options import TrainOptions
from spikeguard.training.state import TrainState
from spikeguard.training.trainer import train

pytestmark = pytest.mark.slow

QUICK = TrainOptions(epochs=2, batch_size=4, lr=0.05)


def images(count, name, size=4):
    x = torch.rand(count, 1, size, size, generator=stream(0, name))
    return ImageSet(x, torch.arange(count) % 3, 3, name, peak=1.0)


def small_data(train=10, val=6, **kwargs):
    parts = (images(train, "train"), images(val, "val"), images(3, "test"))
    return Splits(*parts, mean=(0.0,), std=(1.0,), **kwargs)


def linear():
    """A linear classifier: the gradients of its cross-entropy are known."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream(0, "w")))
    return model


def mlp(neuron=None, **kwargs):
    neuron = NoisyLIF(0.5, sigma=0.3, v_th=0.3) if neuron is None else neuron
    return MLP(num_classes=3, T=2, hidden=(6, 5), in_shape=(1, 4, 4), neuron=neuron, **kwargs)


def cnn():
    neuron = NoisyLIF(0.5, sigma=0.2, v_th=0.3)
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=4, neuron=neuron)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b, tolerance=0.0):
    torch.testing.assert_close(dict(a), dict(b), rtol=tolerance, atol=tolerance)


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def timeless(history):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in history]


# Steps


def test_one_sgd_step_on_a_linear_model_is_the_formula(tmp_path):
    """W' = W - lr (mean (p - onehot) x^T + wd W); one batch, one epoch."""
    model, data = linear(), small_data()
    w, b = (p.detach().clone() for p in model.parameters())
    x, y = data.train.batch(slice(None))
    error = (x.flatten(1) @ w.t() + b).softmax(1) - functional.one_hot(y, 3)
    options = TrainOptions(epochs=1, batch_size=10, lr=0.1, weight_decay=0.01)
    train(model, data, Vanilla(), options, out=tmp_path / "run")
    same(
        weights(model),
        {
            "1.weight": w - 0.1 * (error.t() @ x.flatten(1) / 10 + 0.01 * w),
            "1.bias": b - 0.1 * (error.mean(0) + 0.01 * b),
        },
        1e-6,
    )


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_run_is_the_plain_torch_loop(name, tmp_path):
    """Bit for bit equal to a plain loop with the same shuffle, augmentation and schedule."""
    data = small_data(augment=RandomCrop(1))
    options = TrainOptions(epochs=3, batch_size=4, optimizer=name, lr=0.01, seed=5)
    model, other = linear(), linear()
    result = train(model, data, Vanilla(), options, out=tmp_path / "run")
    if name == "sgd":
        optimizer = torch.optim.SGD(other.parameters(), lr=1, momentum=0.9, weight_decay=5e-4)
    else:
        optimizer = torch.optim.Adam(other.parameters(), lr=1, weight_decay=5e-4)
    done = 0
    for epoch in range(3):
        order = torch.randperm(10, generator=stream(5, "shuffle", epoch))
        for step in range(3):
            x, y = data.train.batch(order[4 * step : 4 * step + 4])
            x = data.augment(x, stream(5, "augment", epoch, step))
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * 0.01 * (1 + math.cos(math.pi * done / 9))
            optimizer.zero_grad()
            functional.cross_entropy(other(x), y).backward()
            optimizer.step()
            done += 1
        assert result.history[epoch]["lr"] == optimizer.param_groups[0]["lr"]
    load_model(tmp_path / "run" / "checkpoints" / "last", model)
    same(weights(model), weights(other))


def test_constant_schedule_keeps_the_rate(tmp_path):
    options = replace(QUICK, schedule="constant")
    result = train(linear(), small_data(), Vanilla(), options, out=tmp_path / "run")
    assert [line["lr"] for line in result.history] == [0.05, 0.05]


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts, tmp_path):
    """No batch normalisation, no noise: only rounding differs. The last batch has two images."""
    results = []
    for accumulate in (1, parts):
        model = mlp(LIF(0.5, v_th=0.3))
        objective = TGO(lambda_max=0.4) | AT(eps=0.05)
        options = replace(QUICK, accumulate=accumulate)
        result = train(model, small_data(), objective, options, out=tmp_path / str(accumulate))
        results.append((weights(model), result.history[-1]["terms"]))
    same(results[0][0], results[1][0], 1e-5)
    assert results[0][1] == pytest.approx(results[1][1], rel=1e-4)


def test_two_runs_are_equal_bit_for_bit_and_the_seed_matters(tmp_path):
    runs = []
    for number, seed in enumerate((1, 1, 2)):
        model = cnn()
        options = replace(QUICK, seed=seed)
        objective = AT(eps=0.1, steps=2) | TGO()
        train(model, small_data(), objective, options, out=tmp_path / str(number))
        runs.append(weights(model))
    same(runs[0], runs[1])
    assert any((runs[0][k] != runs[2][k]).any() for k in runs[0])


def test_nothing_is_printed_and_the_global_generator_is_unchanged(tmp_path, capfd):
    before = torch.get_rng_state()
    options = replace(QUICK, precision="bf16")
    train(cnn(), small_data(), AT(eps=0.1), options, out=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_detaches_its_input_is_not_called_divergent(tmp_path):
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            return self.inner(x.detach())

    with pytest.raises(NoGradientError):
        train(Detached(), small_data(), AT(eps=0.1), QUICK, out=tmp_path / "run")


def test_constraints_are_applied_after_each_step(tmp_path):
    model, calls = linear(), []

    @dataclass(frozen=True)
    class Count(Piece):
        name: ClassVar[str] = "count"

        def constrain(self, model, progress, generator):
            calls.append(torch.is_grad_enabled())

    train(model, small_data(), Count(), QUICK, out=tmp_path / "run")
    assert calls == [False] * 6


# Progress and files


def test_metrics_result_and_progress(tmp_path):
    out, heard = tmp_path / "run", []
    data, objective = small_data(), AT(eps=0.05) | TGO(lambda_max=0.4)
    result = train(cnn(), data, objective, QUICK, out=out, progress=lambda *a: heard.append(a))
    history = lines(out)
    assert history == result.history
    assert [line["epoch"] for line in history] == [1, 2]
    assert [line["step"] for line in history] == [3, 6]
    assert [line["progress"] for line in history] == [0.5, 1.0]
    for line in history:
        assert list(line["terms"]) == ["cross_entropy", "tgo"]
        assert line["train_loss"] == pytest.approx(sum(line["terms"].values()))
        assert line["train_accuracy"] * 10 == pytest.approx(round(line["train_accuracy"] * 10))
        assert 0 <= line["val_accuracy"] <= 1
    stored = json.loads((out / "result.json").read_text())
    assert is_sealed(stored) and stored.pop("checksum")
    assert stored.pop("files") == {"metrics.jsonl": file_digest(out / "metrics.jsonl")}
    assert stored == {
        "best_epoch": result.best_epoch,
        "val_accuracy": result.val_accuracy,
        "epochs": 2,
        "parameters": sum(p.numel() for p in cnn().parameters()),
        "train_samples": 10,
        "val_samples": 6,
        "seconds": sum(line["seconds"] for line in history),
        "objective": repr(objective),
    }
    assert [(done, total) for done, total, _ in heard] == [(n, 6) for n in (1, 2, 3, 3, 4, 5, 6, 6)]
    assert heard[0][2].startswith("epoch 1/2  loss ")
    assert heard[-1][2].startswith("epoch 2/2  validation ")
    assert sorted(p.name for p in out.iterdir()) == ["checkpoints", "metrics.jsonl", "result.json"]
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["best", "last"]


def test_the_measured_loss_is_the_mean_over_the_images(tmp_path):
    """With one step per epoch its loss is that of the initial weights."""
    model, data = linear(), small_data()
    x, y = data.train.batch(slice(None))
    expected = functional.cross_entropy(model(x), y).item()
    right = (model(x).argmax(1) == y).float().mean().item()
    options = TrainOptions(epochs=1, batch_size=10)
    result = train(model, data, Vanilla(), options, out=tmp_path / "run")
    assert result.history[0]["train_loss"] == pytest.approx(expected)
    assert result.history[0]["train_accuracy"] == pytest.approx(right)
    x, y = data.val.batch(slice(None))
    after = functional.cross_entropy(model(x), y).item()
    assert result.history[0]["val_loss"] == pytest.approx(after, rel=1e-5)
    assert result.val_accuracy == (model(x).argmax(1) == y).sum().item() / 6


def test_the_best_epoch_is_the_earliest_of_the_best():
    history = [{"epoch": e, "val_accuracy": a} for e, a in enumerate((0.5, 0.7, 0.6, 0.7), 1)]
    assert TrainState(history=history).best()["epoch"] == 2


def test_the_returned_model_has_the_weights_of_the_best_epoch(tmp_path):
    out, seen = tmp_path / "run", {}
    model = cnn()

    def keep(done, total, text):
        if "validation" in text:
            seen[done // 3] = weights(model)

    options = TrainOptions(epochs=5, batch_size=4, lr=0.2)
    result = train(model, small_data(val=30), AT(eps=0.1), options, out=out, progress=keep)
    accuracies = [line["val_accuracy"] for line in result.history]
    assert result.best_epoch == 1 + accuracies.index(max(accuracies))
    assert not model.training
    same(weights(model), seen[result.best_epoch])
    load_model(out / "checkpoints" / "last", model)
    same(weights(model), seen[5])


def test_validation_draws_the_same_noise_whatever_the_batch_size():
    model, data, at = mlp(), small_data(val=7), TrainState()
    scores = []
    for size in (1, 3, 7, 7):
        options = replace(QUICK, batch_size=size)
        learner = Learner.create(model, data, Objective(), options, Engine())
        scores.append(learner.validate(at))
    assert scores[2] == scores[3]
    assert all(score == pytest.approx(scores[3], rel=1e-5) for score in scores)
    other = Learner.create(model, data, Objective(), replace(QUICK, seed=1), Engine())
    assert other.validate(at)[0] != scores[0][0]  # the noise is on


# Precision


def test_attacks_and_training_run_under_the_same_autocast(tmp_path):
    model, types = mlp(), set()

    def note(module, _, y):
        if torch.is_grad_enabled():  # not the look at the outputs before the training
            types.add((module.training, y.dtype))

    model.classifier[1].register_forward_hook(note)
    options = replace(QUICK, precision="bf16")
    result = train(model, small_data(), AT(eps=0.1, steps=2), options, out=tmp_path / "run")
    assert types == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(math.isfinite(line["train_loss"]) for line in result.history)


def test_float16_needs_a_gpu():
    if torch.cuda.is_available():
        assert Engine("16").overflow_is_normal
    else:
        with pytest.raises(ValueError, match="'16' needs a CUDA device; use 'bf16' or '32'"):
            Engine("16")
    with pytest.raises(ValueError, match="precision is one of 32, bf16, 16; got '64'"):
        Engine("64")


@pytest.fixture
def half_precision(monkeypatch):
    """Make engines use precision "16" on the CPU, whose autocast supports it."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision import MixedPrecision

    def fabric(accelerator, precision, loggers, world):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
        plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
        return Fabric(accelerator="cpu", devices=1, plugins=[plugin])

    monkeypatch.setattr(engine, "_quiet_fabric", fabric)


def test_overflow_under_float16_skips_a_step_and_lowers_the_scale(half_precision):
    model, data = mlp(LIF(0.5, v_th=0.3)), small_data()
    options = replace(QUICK, batch_size=10)
    half = Engine()
    learner = Learner.create(model, data, Objective(), options, half)
    assert half.overflow_is_normal
    before, scale, at = weights(model), 2.0**120, TrainState()
    learner.step(torch.arange(10), at, 0.0)
    same(weights(model), before)
    assert half.state()["scale"] == scale / 2
    steps = 1
    while all((weights(model)[k] == before[k]).all() for k in before):
        learner.step(torch.arange(10), at, 0.0)
        steps += 1
    assert half.state()["scale"] == scale / 2 ** (steps - 1)  # the last step did not overflow
    assert 1 < half.state()["scale"] < 2.0**100

    other = Engine()
    assert other.state() != half.state()
    other.load_state(half.state())
    assert other.state() == half.state()

    half.load_state(half.state() | {"scale": 1.0})  # the scale cannot be lowered: divergence
    model.classifier[3].weight.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(TrainingDiverged, match="a gradient is not finite"):
        learner.step(torch.arange(10), at, 0.0)


# Stop and resume


def stop_after(steps, error):
    def progress(done, total, text):
        if done == steps:
            raise error

    return progress


@pytest.mark.parametrize("steps", [1, 3, 4, 5])
@pytest.mark.parametrize("seconds", [0.0, 300.0])
def test_ctrl_c_and_resume_end_where_an_unbroken_run_does(steps, seconds, tmp_path):
    options = replace(QUICK, checkpoint_seconds=seconds)
    objective, data = AT(eps=0.1) | TGO(), small_data(augment=RandomCrop(1))
    straight = cnn()
    expected = train(straight, data, objective, options, out=tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        stop = stop_after(steps, KeyboardInterrupt())
        train(cnn(), data, objective, options, out=tmp_path / "run", progress=stop)
    model, heard = cnn(), []
    result = train(
        model,
        data,
        objective,
        options,
        out=tmp_path / "run",
        resume=True,
        progress=lambda *a: heard.append(a[0]),
    )
    same(weights(model), weights(straight))
    assert timeless(lines(tmp_path / "run")) == timeless(expected.history)
    assert timeless(result.history) == timeless(expected.history)
    # A stop comes before the checkpoint of its own step, so that step is repeated.
    assert heard[0] == (max(steps, 1) if seconds == 0 else 1 if steps <= 3 else 4)


def test_time_triggered_checkpoints_change_nothing(tmp_path):
    models = []
    for seconds in (0.0, 1e9):
        models.append(cnn())
        options = replace(QUICK, checkpoint_seconds=seconds)
        train(models[-1], small_data(), AT(eps=0.1), options, out=tmp_path / str(seconds))
    same(weights(models[0]), weights(models[1]))


def test_a_finished_run_gives_its_result_without_training(tmp_path):
    first = train(cnn(), small_data(), TGO(), QUICK, out=tmp_path / "run")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def never(*_):
        raise AssertionError("a finished run was trained")

    model = cnn()
    again = train(
        model, small_data(), TGO(), QUICK, out=tmp_path / "run", resume=True, progress=never
    )
    assert (again.best_epoch, again.val_accuracy, again.history) == (
        first.best_epoch,
        first.val_accuracy,
        first.history,
    )
    same(weights(model), weights(first.model))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_lost_metrics_and_result_are_written_again_on_resume(tmp_path):
    out = tmp_path / "run"
    train(cnn(), small_data(), TGO(), QUICK, out=out)
    metrics, result = ((out / n).read_bytes() for n in ("metrics.jsonl", "result.json"))
    (out / "metrics.jsonl").write_bytes(metrics + metrics[:20])  # one truncated extra line
    (out / "result.json").unlink()
    (out / ".metrics.jsonl.0f0f.tmp").write_text("left by a killed writer")
    train(cnn(), small_data(), TGO(), QUICK, out=out, resume=True)
    assert (out / "metrics.jsonl").read_bytes() == metrics
    assert (out / "result.json").read_bytes() == result
    assert not list(out.glob(".*"))


def test_resume_without_a_checkpoint_starts(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text("name: mine\n")
    half = out / "checkpoints" / ".last.new"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    model, other = cnn(), cnn()
    train(model, small_data(), TGO(), QUICK, out=out, resume=True)
    train(other, small_data(), TGO(), QUICK, out=tmp_path / "fresh")
    same(weights(model), weights(other))
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["best", "last"]


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text("name: mine\n")
    (out / "environment.json").write_text("{}")
    train(cnn(), small_data(), TGO(), QUICK, out=out)
    message = r"run exists; resume it with resume=True \(--resume\) or choose another folder"
    with pytest.raises(ValueError, match=message):
        train(cnn(), small_data(), TGO(), QUICK, out=out)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file; choose a folder"):
        require_new_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": replace(QUICK, epochs=3)}, "options.epochs was 2 and is now 3"),
        ({"options": replace(QUICK, lr=0.1)}, "options.lr was 0.05 and is now 0.1"),
        ({"objective": Vanilla()}, r"objective was TGO\(.*\) and is now Vanilla\(\)"),
        ({"recipe": {"a": {"b": 2}}}, "recipe.a.b was 1 and is now 2"),
        ({"recipe": None}, "recipe was .* and is now None"),
        ({"data": small_data(train=11)}, "data.train.images was 10 and is now 11"),
        (
            {"data": small_data(augment=RandomCrop(1))},
            r"data.augment was None and is now RandomCrop\(",
        ),
        ({"model": mlp(NoisyLIF(0.9))}, r"model.layers\[\d+\] was \(2\): NoisyLIF\(decay=0.5"),
    ],
)
def test_a_run_is_resumed_only_as_itself(change, message, tmp_path):
    def run(**changed):
        settings = {
            "model": mlp(),
            "data": small_data(),
            "objective": TGO(),
            "options": QUICK,
            "recipe": {"a": {"b": 1}},
        }
        return train(out=tmp_path / "run", **(settings | changed))

    run()
    with pytest.raises(ValueError, match=message):
        run(resume=True, **change)
    run(resume=True)


def test_other_pixels_and_another_number_of_steps_are_another_run(tmp_path):
    data = small_data()
    train(mlp(), data, TGO(), QUICK, out=tmp_path / "run")
    changed = replace(data, train=replace(data.train, images=1 - data.train.images))
    with pytest.raises(ValueError, match=r"data\.train\.digest was"):
        train(mlp(), changed, TGO(), QUICK, out=tmp_path / "run", resume=True)
    longer = mlp()
    longer.T = 3
    with pytest.raises(ValueError, match=r"model\.T was 2 and is now 3"):
        train(longer, data, TGO(), QUICK, out=tmp_path / "run", resume=True)


def test_images_of_any_type_have_a_fingerprint():
    """The same pixels in another dtype are different data; unusual dtypes are supported."""
    seen = set()
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.uint8):
        part = ImageSet(torch.zeros(3, 1, 4, 4, dtype=dtype), torch.zeros(3).long(), 3, "z")
        splits = Splits(part, part, part, (0.0,), (1.0,))
        seen.add(identity(linear(), splits, Objective(), QUICK, None)["data"]["train"]["digest"])
    assert len(seen) == 4


def test_data_that_are_no_splits_are_rejected_before_anything_is_written(tmp_path):
    pair = (torch.rand(4, 1, 4, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"data must be Splits, got tuple; write sg\.data\.load"):
        train(mlp(), pair, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


EVENTS = InputSpace(whole=True, temporal=True)
COUNTS = InputSpace(math.inf, whole=True, temporal=True)


def recordings(space):
    """Splits of recordings [2, 2, 4, 4] with as many frames as a batch has samples."""
    part = ImageSet(torch.ones(6, 2, 2, 4, 4), torch.arange(6) % 3, 3, "events", space=space)
    return Splits(part, part, part, mean=(0.0, 0.0), std=(1.0, 1.0))


@pytest.mark.parametrize(
    ("encoder", "data", "message"),
    [
        (None, recordings(EVENTS), "the network takes images in .* data are frames"),
        (EventFrames(), recordings(COUNTS), r"takes values in \[0, 1\], the data lie in \[0, inf"),
        (EventFrames(), small_data(), "the network takes frames .* data are images"),
    ],
)
def test_data_that_the_network_does_not_take_are_rejected(encoder, data, message, tmp_path):
    """With two frames and batches of two, direct coding would take time for the batch."""
    model = MLP(num_classes=3, T=2, hidden=(4,), in_shape=(2, 4, 4), encoder=encoder)
    with pytest.raises(ValueError, match="^train: .*" + message):
        train(model, data, options=replace(QUICK, batch_size=2), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def two_rates():
    return MLP(num_classes=2, T=2, hidden=(4,), in_shape=(1, 4, 4), readout="rate")


def two_logits():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


@pytest.mark.parametrize(
    ("model", "objective"),
    [
        *[(two_rates, each) for each in (Vanilla(), MSERates(), AT(eps=0.1), LabelSmoothing(0.1))],
        *[(two_logits, each) for each in (Vanilla(), AT(eps=0.1), LabelSmoothing(0.1))],
    ],
)
def test_a_model_with_fewer_outputs_than_classes_is_rejected(model, objective, tmp_path):
    with pytest.raises(ValueError, match=r"^train: labels go up to 2, but the model has 2 classes"):
        train(model(), small_data(), objective, QUICK, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_differences_are_named():
    assert difference({"a": 1}, {"a": 1}) is None
    both = differences({"a": 1, "b": [2], "c": 3}, {"a": 0, "b": [1], "c": 3})
    assert list(both) == ["a was 1 and is now 0", "b[0] was 2 and is now 1"]
    assert difference({"a": [1, 2]}, {"a": [1, 3]}) == "a[1] was 2 and is now 3"
    assert difference({"a": [1]}, {"a": [1, 3]}) == "a was [1] and is now [1, 3]"
    assert difference({"a": {}}, {"a": {"b": 0}}) == "a.b was None and is now 0"
    assert difference({"a": {"b": 0}}, {"a": 3}) == "a was {'b': 0} and is now 3"


def test_a_full_disk_stops_the_run_and_spares_the_checkpoint(tmp_path, monkeypatch):
    out, saves, write = tmp_path / "run", [], checkpoint.write_synced

    def full(path, data):
        if path.parent.name == ".last.new":
            saves.append(path.name)
        if len(saves) > 3:  # the first checkpoint has three files
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_synced", full)
        with pytest.raises(OSError, match=r"No space left.*the previous one is kept.*last'"):
            train(cnn(), small_data(), TGO(), QUICK, out=out)
    assert checkpoint.load(out / "checkpoints" / "last").info["position"]["epoch"] == 1
    model, other = cnn(), cnn()
    train(model, small_data(), TGO(), QUICK, out=out, resume=True)
    train(other, small_data(), TGO(), QUICK, out=tmp_path / "straight")
    same(weights(model), weights(other))


def test_the_checkpoint_says_how_to_go_on(tmp_path):
    train(mlp(), small_data(), TGO(), QUICK, out=tmp_path / "run")
    card = json.loads((tmp_path / "run/checkpoints/last/state.json").read_text())
    assert "resume=True" in card["info"]["resume"]
    assert "--resume" in card["info"]["resume"]


# Numbers that are not finite


@dataclass(frozen=True)
class Plant(Piece):
    """A fault at a given share of the training: a non-finite loss, gradient or weight."""

    name: ClassVar[str] = "plant"
    what: str
    at: float
    model: nn.Module

    def term(self, step):
        seen = step.seen
        if step.progress < self.at or self.what not in ("loss", "gradient"):
            return seen.logits.sum() * 0
        if self.what == "loss":
            return seen.logits.sum() * math.inf
        return (
            (self.model.classifier[3].weight * 0).sqrt().sum()
        )  # 0, but its gradient is not finite


def run_with(what, at, out, neuron=None, objective=None, options=QUICK, heal=True):
    """Train with a fault; a bad weight is set in the progress callback, after a step."""
    model = mlp(neuron)
    before = {}

    def progress(done, total, text):
        before.update(weights(model))
        if what in ("weight", "statistic") and done / total >= at and "loss" in text:
            with torch.no_grad():
                model.classifier[3].weight[0, 0] = math.nan

    plant = Plant(what, at, model)
    objective = plant if objective is None else plant | objective
    with pytest.raises(TrainingDiverged) as caught:
        train(model, small_data(), objective, options, out=out, progress=progress)
    return caught.value, model, before


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_bad_loss_or_gradient_stops_before_the_step(what, tmp_path):
    out = tmp_path / "run"
    error, model, before = run_with(what, 0.6, out)
    assert (error.epoch, error.step) == (2, 2)  # steps 0 to 5; 4 is the first at 0.6 or later
    text = str(error)
    assert "\n" not in text
    assert "epoch 2, step 2" in text
    assert "checkpoints/last is kept" in text
    assert "Try a smaller lr than 0.05" in text
    if what == "loss":
        assert error.term == "plant"
        assert "loss term 'plant' is " in text
    else:
        assert error.term is None
        assert error.layer == "classifier.3"
        assert "gradients are not finite from classifier.3.weight backwards" in text
    same(weights(model), before)  # the weights were not updated
    found = checkpoint.load(out / "checkpoints" / "last")
    assert found.info["position"]["epoch"] == 1
    assert all(t.isfinite().all() for t in found.model.values() if t.is_floating_point())


@pytest.mark.parametrize("objective", [None, TGO(), AT(eps=0.1, steps=2)])
@pytest.mark.parametrize("neuron", [None, LIF(0.5, v_th=0.3, surrogate=Rectangular(0.5))])
def test_a_bad_weight_is_found_although_spikes_hide_it(objective, neuron, tmp_path):
    """NaN fires no spike, so logits and loss can stay finite; the weight is found anyway."""
    error, _, _ = run_with("weight", 0.6, tmp_path / "run", neuron, objective)
    assert (error.epoch, error.step) == (2, 2)
    assert error.layer == "classifier.3"
    assert "classifier.3.weight is not finite" in str(error)
    assert "non-finite potentials or outputs is classifier.3" in str(error)
    found = checkpoint.load(tmp_path / "run" / "checkpoints" / "last")
    assert found.info["position"]["epoch"] == 1


def test_a_weight_that_broke_in_the_last_step_is_not_stored(tmp_path):
    """Set after the last step of the epoch: found before validation or saving."""
    error, _, _ = run_with("weight", 0.5, tmp_path / "run")
    assert "a weight or a statistic is not finite" in str(error)
    assert "no checkpoint was written yet" in str(error)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_bad_weight_is_not_stored_by_a_timed_checkpoint(tmp_path):
    options = replace(QUICK, checkpoint_seconds=0.0)
    error, _, _ = run_with("weight", 0.6, tmp_path / "run", options=options)
    assert error.epoch == 2
    found = checkpoint.load(tmp_path / "run" / "checkpoints" / "last")
    assert (found.info["position"]["epoch"], found.info["position"]["batch"]) == (1, 0)


def test_out_of_memory_says_the_batch_size_and_how_to_go_on(tmp_path):
    def full(done, total, text):
        if text.startswith("epoch 2"):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    size = QUICK.batch_size
    with pytest.raises(OutOfMemory) as caught:
        train(cnn(), small_data(), Vanilla(), QUICK, out=tmp_path / "run", progress=full)
    said = str(caught.value)
    assert f"out of memory with batch_size {size}; {tmp_path / 'run'}" in said
    assert "is kept" in said
    assert f"in a new folder with batch_size {size // 2}" in said
    assert "\n" not in said
    train(cnn(), small_data(), Vanilla(), QUICK, out=tmp_path / "run", resume=True)


def test_bad_statistics_of_a_batch_norm_are_found(tmp_path):
    model = cnn()

    def progress(done, total, text):
        if done == 2:
            model.features[1].running_var.fill_(math.inf)

    with pytest.raises(TrainingDiverged, match=r"features\.1\.running_var is not finite"):
        train(model, small_data(), Vanilla(), QUICK, out=tmp_path / "run", progress=progress)


def test_the_first_bad_layer_is_named_when_potentials_overflow(tmp_path):
    """The weights are finite, their products are not."""
    model = mlp()
    with torch.no_grad():
        model.classifier[3].weight.fill_(3e38)
        model.classifier[3].bias.fill_(3e38)
    with pytest.raises(TrainingDiverged) as caught:
        train(model, small_data(), TGO(delta=1.0), QUICK, out=tmp_path / "run")
    assert caught.value.layer == "classifier.3"
    assert caught.value.epoch == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


# Options


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "epochs is a whole number >= 1, got 0"),
        ({"batch_size": 1.5}, "batch_size is a whole number >= 1, got 1.5"),
        ({"accumulate": 5, "batch_size": 4}, "accumulate=5 parts need a batch_size of at least 5"),
        ({"optimizer": "lion"}, "optimizer is one of sgd, adam, adamw; got 'lion'"),
        ({"schedule": "step"}, "schedule is one of cosine, constant; got 'step'"),
        ({"precision": "64"}, "precision is one of 32, bf16, 16; got '64'"),
        ({"lr": 0.0}, "lr must be positive, got 0"),
        ({"lr": math.inf}, "lr must be positive, got inf"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        ({"weight_decay": -1.0}, "weight_decay is >= 0, got -1"),
        ({"checkpoint_seconds": -1.0}, "checkpoint_seconds is >= 0, got -1"),
    ],
)
def test_options_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions(**wrong)


class Terminated(Exception):
    """SIGTERM took effect."""


@pytest.mark.parametrize("after", [2, 3, 4])  # of 3 steps in an epoch: within, at its end, later
def test_sigterm_finishes_the_step_and_saves_it(tmp_path, after):
    def stop(number, frame):
        raise Terminated

    def progress(done, total, text):
        if done == after and not text.startswith("epoch 1/2  validation"):
            signal.raise_signal(signal.SIGTERM)

    def run(name, **options):
        return train(mlp(), small_data(), options=QUICK, out=tmp_path / name, **options)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Terminated):
            run("stopped", progress=progress)
    finally:
        signal.signal(signal.SIGTERM, before)
    position = checkpoint.load(tmp_path / "stopped/checkpoints/last").info["position"]
    assert 3 * position["epoch"] + position["batch"] == after
    resumed, unbroken = run("stopped", resume=True), run("unbroken")
    same(weights(resumed.model), weights(unbroken.model))
    assert timeless(resumed.history) == timeless(unbroken.history)
