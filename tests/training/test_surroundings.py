"""train() does not depend on torch's defaults, on types of numbers, or on addresses of objects."""

import json
import threading
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.data import ImageSet, Splits
from spikeguard.defences import GaussianNoise, Objective
from spikeguard.encoders import Phase, Poisson
from spikeguard.models import MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import stream
from spikeguard.training import divergence
from spikeguard.training.checkpointing import _known_before, difference, identity
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import train

pytestmark = pytest.mark.slow

QUICK = TrainOptions(epochs=1, batch_size=4, lr=0.05)


def data(peak=1.0, augment=None):
    def images(count, name):
        x = torch.rand(count, 1, 4, 4, generator=stream(0, name), dtype=torch.float32)
        return ImageSet(x * peak, torch.arange(count) % 3, 3, name, peak=peak)

    parts = images(10, "train"), images(6, "val"), images(3, "test")
    return Splits(*parts, mean=(0.0,), std=(1.0,), augment=augment)


def network(**options):
    neuron = NoisyLIF(0.5, sigma=0.3, v_th=0.3)
    return MLP(num_classes=3, T=2, hidden=(6, 5), in_shape=(1, 4, 4), neuron=neuron, **options)


def trained(model, folder, options=QUICK, objective=None):
    train(model, data(), objective, options, out=folder)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torch_s_default_dtype_changes_no_weight(tmp_path, dtype):
    before, ends = torch.get_default_dtype(), []
    for name, default in (("a", before), ("b", dtype)):
        models = network(), network(encoder=Poisson()), network(encoder=Phase(weighted=True))
        torch.set_default_dtype(default)
        try:
            ends.append(
                [
                    trained(model, tmp_path / f"{name}{number}", objective=GaussianNoise(0.1))
                    for number, model in enumerate(models)
                ]
            )
        finally:
            torch.set_default_dtype(before)
    assert all(map(torch.equal, *ends))


@pytest.mark.parametrize(
    "around", [torch.no_grad, torch.inference_mode, lambda: torch.device("meta")]
)
def test_grad_mode_and_default_device_change_no_weight(tmp_path, around):
    ends = []
    for name, context in (("plain", nullcontext), ("around", around)):
        model, splits = network(), data()
        with context():
            train(model, splits, None, QUICK, out=tmp_path / name)
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*ends)


def test_dropout_of_torch_draws_from_a_stream_of_the_run(tmp_path):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
            for parameter in self.parameters():
                nn.init.constant_(parameter, 0.1)

        def forward(self, x):
            return self.layers(x)

    ends = []
    for number in (0, 1):
        with torch.random.fork_rng(devices=[]):
            model = Plain()
            torch.manual_seed(number)
            before = torch.get_rng_state()
            ends.append(trained(model, tmp_path / str(number)))
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*ends)
    other = trained(Plain(), tmp_path / "seed", replace(QUICK, seed=1))
    assert not torch.equal(other, ends[0])


def test_numbers_of_numpy_are_options(tmp_path):
    options = TrainOptions(epochs=np.int64(1), batch_size=np.int32(4), lr=np.float32(0.05))
    assert options.epochs == 1 and type(options.epochs) is int and type(options.lr) is float
    json.dumps(options.identity())
    train(network(), data(), None, options, out=tmp_path / "run")


def flipper():
    def flip(x, generator):
        return x.flip(-1)

    return flip


def test_an_augmentation_of_the_user_s_own_has_the_same_identity_in_every_process():
    """Two objects at two addresses, as in two processes."""
    first, second = (
        identity(network(), data(augment=flipper()), Objective(), QUICK, None) for _ in range(2)
    )
    assert difference(first, second) is None
    assert "flip" in first["data"]["augment"]


def test_another_peak_is_another_run_and_one_that_was_not_saved_is_accepted():
    def of(peak):
        splits = data()
        train_set = replace(splits.train, peak=peak)
        return identity(network(), replace(splits, train=train_set), Objective(), QUICK, None)

    one, two = of(1.0), of(2.0)
    assert difference(one, two) == "data.train.peak was 1.0 and is now 2.0"
    for part in ("train", "val"):
        one["data"][part] = {k: v for k, v in one["data"][part].items() if k != "peak"}
    assert difference(one, _known_before(one, two)) is None


def test_a_network_in_float64_takes_the_images_of_a_data_set(tmp_path):
    for number, encoder in enumerate((None, Poisson())):
        model = network(**({} if encoder is None else {"encoder": encoder})).double()
        assert trained(model, tmp_path / str(number)).dtype == torch.float64


def test_divergence_is_reported_where_no_layer_can_be_recorded(monkeypatch):
    def fails(model, x):
        raise RuntimeError("record: no potentials")

    monkeypatch.setattr(divergence, "_bad_layer", fails)
    error = divergence.diagnose(
        network(), torch.zeros(1, 1, 4, 4), "the loss is inf", epoch=1, step=2
    )
    assert isinstance(error, divergence.TrainingDiverged) and "the loss is inf" in str(error)


def test_a_log_is_closed(tmp_path):
    pytest.importorskip("tensorboard")
    threads = []
    for number in range(3):
        train(network(), data(), None, QUICK, out=tmp_path / str(number), log="tensorboard")
        threads.append(threading.active_count())
    assert threads[2] <= threads[0]
