"""Averages of the weights: closed forms on scalar weights, checkpoints, and resuming."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from spikeguard.data import ImageSet, Splits
from spikeguard.defences import AT
from spikeguard.models import CNN
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import stream
from spikeguard.storage import checkpoints as checkpoint
from spikeguard.storage.checkpoints import read_weights
from spikeguard.training.averaging import WeightAverage
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import train

SHORT = TrainOptions(epochs=2, batch_size=4, lr=0.05)


class Scalar(nn.Module):
    """One weight and one counter."""

    def __init__(self, value=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))

    def move(self, value):
        with torch.no_grad():
            self.weight.fill_(value)
            self.count += 1


def followed(values, **kind):
    """Return the average after each of these weights, of a model that begins with weight 5."""
    model, found = Scalar(5.0), []
    average = WeightAverage(model, **kind)
    for place, value in enumerate(values):
        model.move(value)
        average.update(model, place / len(values))
        found.append(float(average.tensors["weight"]))
        assert int(average.tensors["count"]) == place + 1
    return found


def test_an_exponential_average_of_a_constant_keeps_the_product_of_the_decays():
    """a_n = c + (a_0 - c) d_1 ... d_n, with d_n = min(0.5, n / (n + 9)): 1/10, 2/11, 3/12, ..."""
    found = followed([1.0] * 12, ema=0.5)
    left = 1.0
    for n, value in enumerate(found, start=1):
        left *= n / (n + 9) if n <= 9 else 0.5
        assert value == pytest.approx(1 + 4 * left, rel=1e-12)


def test_the_exponential_average_after_the_start_is_the_geometric_sum():
    """From step 9 on, d = 1/2: the weights 0, ..., 0, 1, 2, 3 give 1/8 + 2/4 + 3/2 = 17/8."""
    zeros = [0.0] * 60  # the first weight is forgotten
    assert followed([*zeros, 1.0, 2.0, 3.0], ema=0.5)[-1] == pytest.approx(17 / 8, abs=1e-12)


def test_the_uniform_average_is_the_mean_of_the_last_steps():
    """Of 8 steps the last 4 count, from share 1/2 on; before that it is the weight itself."""
    found = followed([9.0, 8.0, 7.0, 6.0, 1.0, 2.0, 6.0, 7.0], swa=0.5)
    assert found == pytest.approx([9, 8, 7, 6, 1, 1.5, 3, 4], rel=1e-12)


def test_the_average_is_in_the_model_inside_the_block_only():
    model = Scalar(5.0)
    average = WeightAverage(model, ema=0.9)
    model.move(2.0)
    with pytest.raises(KeyError), average.applied(model):
        assert model.weight.item() == 5
        raise KeyError
    assert (model.weight.item(), int(model.count)) == (2, 1)


# A whole run


def images(count, name):
    x = torch.rand(count, 1, 4, 4, generator=stream(0, name))
    return ImageSet(x, torch.arange(count) % 3, 3, name, peak=1.0)


def data():
    parts = (images(10, "train"), images(6, "val"), images(3, "test"))
    return Splits(*parts, mean=(0.0,), std=(1.0,))


def cnn():
    neuron = NoisyLIF(0.5, sigma=0.2, v_th=0.3)
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=4, neuron=neuron)


def different(a, b):
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"ema": 0.8}, {"swa": 0.3}])
def test_a_resumed_run_ends_as_an_unbroken_one(kind, tmp_path):
    """Stopped after the fifth of six steps; the checkpoint of the fourth is loaded."""
    options = replace(SHORT, checkpoint_seconds=0.0, **kind)
    train(cnn(), data(), AT(eps=0.1), options, out=tmp_path / "straight")

    def stop(done, total, text):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cnn(), data(), AT(eps=0.1), options, out=tmp_path / "run", progress=stop)
    train(cnn(), data(), AT(eps=0.1), options, out=tmp_path / "run", resume=True)
    one, two = (checkpoint.load(tmp_path / n / "checkpoints/last") for n in ("straight", "run"))
    assert different(one.model, two.model) == different(one.state, two.state) == []
    assert one.info["average"] == two.info["average"]


@pytest.mark.slow
def test_the_average_is_what_is_saved_validated_and_returned(tmp_path):
    """The weights in training are those of a run without an average, and lie beside it."""
    plain, averaged = cnn(), cnn()
    train(plain, data(), AT(eps=0.1), SHORT, out=tmp_path / "plain")
    result = train(averaged, data(), AT(eps=0.1), replace(SHORT, ema=0.8), out=tmp_path / "ema")
    last = checkpoint.load(tmp_path / "ema/checkpoints/last")
    raw = read_weights(tmp_path / "plain/checkpoints/last")
    assert all(torch.equal(last.state[f".raw/{name}"], tensor) for name, tensor in raw.items())
    assert different(last.model, raw) != []
    best = read_weights(tmp_path / "ema/checkpoints/best")
    assert different(best, dict(result.model.state_dict())) == []
    assert last.info["average"] == {"updates": 6}


@pytest.mark.slow
def test_a_mean_over_all_steps_of_one_step_is_the_weights(tmp_path):
    options = TrainOptions(epochs=1, batch_size=10, lr=0.05)
    for name, changed in {"plain": options, "swa": replace(options, swa=0.0)}.items():
        train(cnn(), data(), None, changed, out=tmp_path / name)
    one, two = (read_weights(tmp_path / name / "checkpoints/last") for name in ("plain", "swa"))
    assert different(one, two) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ema": 0.0}, r"ema is a decay in \(0, 1\), such as 0.999, got 0;"),
        ({"ema": 1.0}, r"ema is a decay in \(0, 1\), such as 0.999, got 1;"),
        ({"swa": 1.0}, r"swa is a share of the steps in \[0, 1\), got 1;"),
        ({"swa": -0.1}, r"swa is a share of the steps in \[0, 1\), got -0.1;"),
        ({"ema": 0.9, "swa": 0.5}, "one average of the weights, got ema=0.9 and swa=0.5"),
        ({"warmup": 1.0}, r"warmup is a share of the steps in \[0, 1\), got 1"),
    ],
)
def test_options_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions(**wrong)


@pytest.mark.slow
def test_an_edited_number_of_updates_is_named(tmp_path):
    options = replace(SHORT, ema=0.8)
    train(cnn(), data(), None, options, out=tmp_path / "run")
    place = tmp_path / "run/checkpoints/last"
    found = checkpoint.load(place)
    model = cnn()
    model.load_state_dict(found.model)
    info = {**found.info, "average": {"updates": -1}}
    checkpoint.save(place, model, state=found.state, info=info)
    with pytest.raises(checkpoint.CheckpointError, match=r"average.updates cannot be -1"):
        train(cnn(), data(), None, options, out=tmp_path / "run", resume=True)


# Learning rates and optimisers


def test_the_rate_rises_linearly_and_the_cosine_spans_the_rest():
    """Warm-up 1/5 of the steps: half of it gives lr / 2; p = 3/5 is half of the cosine."""
    options = TrainOptions(lr=0.4, warmup=0.2)
    rates = [options.learning_rate(p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.2, 0.0], abs=1e-15)
    assert TrainOptions(lr=0.4, warmup=0.2, schedule="constant").learning_rate(0.9) == 0.4


def test_adamw_decays_apart_from_the_gradient():
    """Gradient 0, weight 4: AdamW multiplies by 1 - lr decay, Adam steps by lr against the sign."""
    for name, expected in {"adam": 3.9, "adamw": 3.8}.items():
        model = Scalar(4.0)
        model.weight.grad = torch.zeros_like(model.weight)
        TrainOptions(optimizer=name, lr=0.1, weight_decay=0.5).build_optimizer(model).step()
        assert model.weight.item() == pytest.approx(expected)
