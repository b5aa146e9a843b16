"""Training on image files: worker processes change no bit, a broken file can be replaced."""

from dataclasses import replace

import pytest
import torch

from spikeguard.data import BadImage, load
from spikeguard.data.photos import reading_ahead
from spikeguard.models import CNN
from spikeguard.rng import stream
from spikeguard.training import TrainOptions, train
from tests.toys.photos import write_imagenet

pytestmark = pytest.mark.slow

OPTIONS = TrainOptions(epochs=2, batch_size=10, lr=0.05, checkpoint_seconds=0)


@pytest.fixture
def data(tmp_path):
    write_imagenet(tmp_path / "imagenet", train=30, val=6)
    return load("imagenet", tmp_path, size=8, val_fraction=0.2, augment=["resized_crop", "flip"])


def trained(data, out, resume=False, options=OPTIONS):
    model = CNN(3, 3, T=2, width=2, hidden=4, image_size=8, generator=stream(0, "init"))
    return train(model, data, options=options, out=out, resume=resume)


def weights(result):
    return torch.cat([each.flatten() for each in result.model.state_dict().values()])


def test_worker_processes_change_no_bit_and_read_ahead(data, tmp_path, monkeypatch):
    """The workers get a batch before the one that is needed now is waited for.

    An epoch has 24 images in batches a, b, c, then the 6 of the validation.
    """
    results, events = {}, []

    def watched(name, real):
        def call(part):
            events.append(name)
            return real(part)

        monkeypatch.setattr(f"spikeguard.data.photos.photo_set.{name}", call)

    watched("start", reading_ahead.start)
    watched("finish", reading_ahead.finish)
    for workers in ("0", "1"):
        monkeypatch.setenv(reading_ahead.WORKERS, workers)
        reading_ahead.close()
        events.clear()
        results[workers] = weights(trained(data, tmp_path / workers))
        b_a_then, c_then, nothing_then = (
            ["start", "start", "finish"],
            ["start", "finish"],
            ["finish"],
        )
        look = validation = ["start", "finish"]  # two images before, and those without an update
        assert events == look + (b_a_then + c_then + nothing_then + validation) * 2
        assert (reading_ahead._pool is not None) == (workers == "1")
    reading_ahead.close()
    assert torch.equal(results["0"], results["1"])
    plain = replace(data, train=replace(data.train, drawn=()))
    monkeypatch.setenv(reading_ahead.WORKERS, "0")
    assert not torch.equal(results["0"], weights(trained(plain, tmp_path / "plain")))


def test_a_broken_image_ends_the_training_and_an_intact_copy_continues_it(
    data, tmp_path, monkeypatch
):
    """The same weights as without the damage, bit for bit."""
    monkeypatch.setenv(reading_ahead.WORKERS, "0")
    wanted = weights(trained(data, tmp_path / "whole"))
    order = torch.randperm(len(data.train), generator=stream(OPTIONS.seed, "shuffle", 0))
    bad = data.train.root / data.train.files[int(order[-1])].decode()  # of the last step
    intact = bad.read_bytes()
    bad.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(BadImage, match=f"{bad.name}: not an image") as caught:
        trained(data, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "run" / "checkpoints" / "last").is_dir()
    with pytest.raises(BadImage):
        trained(data, tmp_path / "run", resume=True)
    bad.write_bytes(intact)
    assert torch.equal(weights(trained(data, tmp_path / "run", resume=True)), wanted)
