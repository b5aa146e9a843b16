"""The device of a command, with GPUs that are only said to be there."""

import pytest
import torch

from spikeguard.cli.device import device_of
from spikeguard.config.errors import ConfigError


def set_up(monkeypatch, gpus):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    return taken


@pytest.mark.parametrize(("place", "gpu"), [("0", 0), ("3", 1), (None, None)])
def test_ranks_of_a_host_take_its_gpus_in_turn(place, gpu, monkeypatch):
    taken = set_up(monkeypatch, gpus=2)
    if place is not None:
        for name, value in (("RANK", place), ("WORLD_SIZE", "4"), ("LOCAL_RANK", place)):
            monkeypatch.setenv(name, value)
    assert device_of(None) == "cuda"
    assert taken == ([] if gpu is None else [gpu])
    assert device_of("cpu") == "cpu"


def test_without_a_gpu_it_is_the_cpu_and_cuda_is_rejected(monkeypatch):
    set_up(monkeypatch, gpus=0)
    assert device_of(None) == "cpu"
    with pytest.raises(ConfigError, match="--device cuda: torch sees no CUDA device"):
        device_of("cuda")
