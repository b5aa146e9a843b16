"""Checkpoints: exact, strict, verified, never unpickled, complete at any moment of a write."""

import errno
import json
import os
import pickle
import shutil
import struct

import pytest
import torch
from torch import nn

from spikeguard.models import CNN
from spikeguard.storage import atomic_folders as folders
from spikeguard.storage import checkpoints as checkpoint
from spikeguard.storage.checkpoints import CheckpointError, load_model
from spikeguard.training.checkpointing import optimizer_state, restore_optimizer
from spikeguard.training.options import TrainOptions


def cnn(seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=8, generator=generator, **kwargs)


def linear(value):
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, value)
    nn.init.zeros_(model.bias)
    return model


def weight_in(folder):
    found = checkpoint.load(folder)
    return None if found is None else found.model["weight"][0, 0].item()


def same(a, b):
    torch.testing.assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=0, atol=0)


def test_a_checkpoint_is_loaded_bit_for_bit(tmp_path):
    model, other = cnn(1), cnn(2)
    tensors = {"a/step": torch.tensor(3.0), "b": torch.arange(4).view(2, 2).t()}
    info = {"epoch": 3, "loss": 0.1 + 0.2, "names": ["x", None]}
    checkpoint.save(tmp_path / "last", model, state=tensors, info=info)
    load_model(tmp_path / "last", other)
    same(other, model)
    found = checkpoint.load(tmp_path / "last")
    assert found.info == info
    torch.testing.assert_close(found.state, tensors, rtol=0, atol=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]
    assert sorted(p.name for p in (tmp_path / "last").iterdir()) == [
        "model.safetensors",
        "state.json",
        "state.safetensors",
    ]


def test_the_weights_can_be_loaded_from_the_file_alone(tmp_path):
    checkpoint.save(tmp_path / "last", cnn(1))
    other = cnn(2)
    load_model(tmp_path / "last" / "model.safetensors", other)
    same(other, cnn(1))


def test_tied_and_strided_weights_are_stored(tmp_path):
    def tied():
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        model[1].weight = model[0].weight
        return model

    model, other = tied(), tied()
    with torch.no_grad():
        model[0].weight.set_(torch.arange(9.0).view(3, 3).t())
    checkpoint.save(tmp_path / "c", model)
    load_model(tmp_path / "c", other)
    same(other, model)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_restored_optimizer_continues_exactly(name, tmp_path):
    def step(model, optimizer, n):
        for i in range(n):
            optimizer.zero_grad()
            (model(torch.full((1, 2), 1.0 + i)) - 3).square().sum().backward()
            optimizer.step()

    options = TrainOptions(optimizer=name, lr=0.01)
    straight = linear(1.0)
    optimizer = options.build_optimizer(straight)
    step(straight, optimizer, 3)
    tensors, groups = optimizer_state(optimizer, straight)
    checkpoint.save(tmp_path / "c", straight, state=tensors, info={"groups": groups})
    step(straight, optimizer, 3)

    resumed = linear(0.0)
    found = checkpoint.load(tmp_path / "c")
    load_model(tmp_path / "c", resumed)
    optimizer = options.build_optimizer(resumed)
    restore_optimizer(optimizer, resumed, found.state, found.info["groups"])
    step(resumed, optimizer, 3)
    same(resumed, straight)


def test_another_model_is_rejected_and_unchanged(tmp_path):
    checkpoint.save(tmp_path / "c", cnn(1))
    other = CNN(1, 4, T=2, width=2, hidden=4, image_size=8)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"another model: classifier.3.weight is float32\[3, 4\] where"
    ):
        load_model(tmp_path / "c", other)
    torch.testing.assert_close(dict(other.state_dict()), before, rtol=0, atol=0)
    with pytest.raises(
        CheckpointError, match=r"lacks 0.weight, 0.bias; it adds classifier.1.bias, .* and 17 more"
    ):
        load_model(tmp_path / "c", nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(CheckpointError, match=r"float32\[1, 2\] where the model has float64"):
        checkpoint.save(tmp_path / "d", linear(1.0))
        load_model(tmp_path / "d", linear(1.0).double())


def test_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere: there is no checkpoint\."):
        load_model(tmp_path / "nowhere", cnn())
    checkpoint.save(tmp_path / "run" / "checkpoints" / "best", cnn())
    with pytest.raises(CheckpointError, match=r"is a run folder; its checkpoint is .*best"):
        load_model(tmp_path / "run", cnn())


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors", "state.json"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_rejected(name, keep, tmp_path):
    checkpoint.save(tmp_path / "c", cnn(), state={"m": torch.ones(100)})
    path = tmp_path / "c" / name
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CheckpointError, match="truncated"):
        load_model(tmp_path / "c", cnn())


@pytest.mark.parametrize("name", ["model.safetensors", "state.safetensors"])
def test_a_flipped_bit_is_noticed(name, tmp_path):
    checkpoint.save(tmp_path / "c", cnn(), state={"m": torch.ones(100)})
    path = tmp_path / "c" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{name}: is damaged: its SHA-256"):
        checkpoint.load(tmp_path / "c")


@pytest.mark.parametrize(
    "card", [b"[]", b"{}", b'{"format": 1}', b'{"format": 2, "sha256": {}, "info": {}}', b"\xff"]
)
def test_an_invalid_header_is_rejected(card, tmp_path):
    checkpoint.save(tmp_path / "c", cnn())
    (tmp_path / "c" / "state.json").write_bytes(card)
    with pytest.raises(CheckpointError, match=r"damaged|format 2"):
        checkpoint.load(tmp_path / "c")


class Malicious:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch-legacy"])
@pytest.mark.parametrize("place", ["file", "model", "state"])
def test_a_pickle_is_rejected_and_never_executed(kind, place, tmp_path):
    trap = tmp_path / "executed"
    if place == "file":
        target = path = tmp_path / "weights.pt"
    else:
        target = tmp_path / "c"
        checkpoint.save(target, cnn())
        path = target / f"{place}.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Malicious(trap)))
    else:
        torch.save(Malicious(trap), path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(CheckpointError, match=r"is a pickle or torch archive.*convert with"):
        load_model(target, cnn())
    assert not trap.exists()
    with path.open("rb") as handle:  # unpickling it does create the folder
        torch.load(handle, weights_only=False) if kind != "pickle" else pickle.load(handle)
    assert trap.exists()


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_safetensors_that_happen_to_begin_like_a_pickle_are_loaded(start, tmp_path):
    """The file starts with the length of its header, which can be any number."""
    header = {"weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}
    header["bias"] = {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}
    length = {b"\x80": 0x180, b"PK": 0x4B50}[start]
    text = json.dumps(header).encode().ljust(length)
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", length) + text + struct.pack("<3f", 1.0, 2.0, 3.0))
    assert path.read_bytes().startswith(start)
    model = linear(0.0)
    load_model(path, model)
    assert model.weight.tolist() == [[1.0, 2.0]]


def test_text_and_foreign_folders_are_rejected(tmp_path):
    (tmp_path / "notes.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="truncated, damaged or no safetensors file"):
        load_model(tmp_path / "notes.safetensors", cnn())
    (tmp_path / "theirs").mkdir()
    torch.save({"w": torch.ones(1)}, tmp_path / "theirs" / "checkpoint.pth")
    with pytest.raises(CheckpointError, match=r"model.safetensors is missing, it holds checkpoint"):
        load_model(tmp_path / "theirs", cnn())


def test_numbers_json_has_no_form_for_are_rejected_before_anything_is_touched(tmp_path):
    checkpoint.save(tmp_path / "c", linear(1.0))
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.save(tmp_path / "c", linear(2.0), info={"loss": float("nan")})
    assert weight_in(tmp_path / "c") == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def fail_at(monkeypatch, count, error):
    """Make the ``count``-th file operation of a save fail; return the number of operations."""
    seen = []

    def counted(call):
        def wrapper(*args, **kwargs):
            seen.append(call)
            if len(seen) == count:
                raise error
            return call(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(folders, "write_synced", counted(folders.write_synced))
    monkeypatch.setattr(checkpoint, "write_synced", folders.write_synced)
    for name in ("fsync", "rename", "mkdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return seen


@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_leaves_the_old_checkpoint(first, tmp_path):
    """Fail each operation in turn: afterwards there is only the old checkpoint, or none."""
    count = 0
    while True:
        count += 1
        folder = tmp_path / str(count) / "last"
        if not first:
            checkpoint.save(folder, linear(1.0))
        with pytest.MonkeyPatch.context() as patch:
            seen = fail_at(patch, count, OSError(errno.ENOSPC, "No space left on device"))
            try:
                checkpoint.save(folder, linear(2.0))
            except OSError as error:
                assert error.errno == errno.ENOSPC
                assert "No space left on device; the checkpoint was not written" in str(error)
                assert str(folder) in str(error)
        if len(seen) < count:
            break
        # The last operation flushes the parent folder; the new checkpoint is already in place.
        expected = {None, 2.0} if first else {1.0, 2.0}
        assert weight_in(folder) in expected
        if weight_in(folder) != 2.0 and folder.parent.exists():
            assert [p.name for p in folder.parent.iterdir()] == ([] if first else ["last"])
        checkpoint.save(folder, linear(3.0))
        assert weight_in(folder) == 3.0
    assert weight_in(folder) == 2.0
    assert count > 8


def test_ctrl_c_while_writing_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "last", linear(1.0))
    fail_at(monkeypatch, 4, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "last", linear(2.0))
    assert weight_in(tmp_path / "last") == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


@pytest.fixture
def versions(tmp_path):
    """Two complete checkpoints, 1 and 2, and a folder for them."""
    for value in (1.0, 2.0):
        checkpoint.save(tmp_path / f"v{value:.0f}", linear(value))
    torn = shutil.copytree(tmp_path / "v2", tmp_path / "torn")
    (torn / "state.json").unlink()
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arranged", "expected"),
    [
        ({".last.new": "torn"}, None),  # killed while writing the first one
        ({"last": "v1", ".last.new": "torn"}, 1.0),  # while writing the next
        ({"last": "v1", ".last.new": "v2"}, 1.0),  # before the first rename
        ({".last.old": "v1", ".last.new": "v2"}, 2.0),  # between the two
        ({".last.old": "v1", "last": "v2"}, 2.0),  # before the old one was removed
        ({".last.old": "torn", "last": "v2"}, 2.0),  # while it was being removed
        ({".last.old": "v1", ".last.new": "torn"}, 1.0),  # cannot happen, but is unambiguous
        ({}, None),
    ],
)
def test_every_state_a_kill_can_leave_is_read_and_tidied_up(versions, arranged, expected):
    run = versions / "run"
    for name, source in arranged.items():
        shutil.copytree(versions / source, run / name)
    before = sorted(run.iterdir())
    assert weight_in(run / "last") == expected
    assert sorted(run.iterdir()) == before  # a reader changes nothing
    checkpoint.recover(run / "last")
    assert weight_in(run / "last") == expected
    assert [p.name for p in run.iterdir()] == ([] if expected is None else ["last"])
    checkpoint.save(run / "last", linear(3.0))
    assert weight_in(run / "last") == 3.0


def test_a_damaged_checkpoint_is_an_error_not_a_fallback(versions):
    shutil.copytree(versions / "torn", versions / "run" / "last")
    shutil.copytree(versions / "v1", versions / "run" / ".last.old")
    with pytest.raises(CheckpointError, match=r"state\.json is missing"):
        checkpoint.load(versions / "run" / "last")
