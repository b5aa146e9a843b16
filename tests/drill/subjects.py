"""The kinds of files that the drill damages, the command that reads each, and what it must give."""

import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file

from spikeguard.storage.digests import CHECKSUM, FILES
from tests.toys.data_files import LABELS, PIXELS, write_cifar, write_mnist
from tests.toys.data_files import TINY as TINY_DATA

TINY = [
    "data.train_limit=60", "data.test_limit=12", "model.T=2", "model.width=2", "model.hidden=8",
    "train.epochs=2", "train.batch_size=12", "train.checkpoint_seconds=0", "evaluate.suite=quick",
    "evaluate.eps=0.1", "evaluate.limit=", "evaluate.batch_size=8", "evaluate.checkpoint=best",
]  # fmt: skip
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return torch.stack([self.layer(x.flatten(1)) for _ in range(2)])
"""
DIED = 77  # exit code of an interrupted command
RUN, ATTACK = "run", ["attack", "run", "--suite", "quick", "--eps", "0.1"]
CASCADE = [*ATTACK, "--cascade", "--limit", "10"]
FOREIGN = [
    "attack",
    "--model",
    "drill_nets:Net",
    "--T",
    "2",
    "--data",
    "digits",
    "--out",
    "foreign",
]
FOREIGN += ["--suite", "quick", "--eps", "0.1", "--limit", "4", "--weights"]


@dataclass(frozen=True)
class Subject:
    """One kind of file.

    Attributes:
        kind: Its name in the table.
        base: The prepared folder that is copied for each mutation.
        file: The file in it.
        words: The command that reads the file.
        outcome: Returns what the command gave, from its output; compared with the undamaged one.
        resumes: Whether the command continues unfinished work.
    """

    kind: str
    base: str
    file: str
    words: list[str]
    outcome: Callable[[str], object] = str
    resumes: bool = False


def training(_):
    """Weights and metrics of a finished training, without times and digests of times."""
    files = sorted(Path(RUN, "checkpoints").glob("*/model.safetensors"))
    lines = Path(RUN, "metrics.jsonl").read_text().splitlines()
    metrics = [{**json.loads(line), "seconds": 0} for line in lines]
    result = json.loads(Path(RUN, "result.json").read_text())
    result = {k: v for k, v in result.items() if k not in ("seconds", CHECKSUM, FILES)}
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files], metrics, result


def page(_):
    """The text of the report; identifiers and times left out."""
    return re.sub(r"\d+(\.\d+)? (s|min|h)\b", "", Path("page.html").read_text())


def content(text):
    """The answer, and what is in the data files: if it changed, the answer must have changed."""
    files = [file for file in sorted(Path().rglob("*")) if file.is_file()]
    read = [gzip.decompress(f.read_bytes()) if f.suffix == ".gz" else f.read_bytes() for f in files]
    return text, [hashlib.sha256(each).hexdigest() for each in read]


RESUME = ["train", "demo/vanilla", *TINY, "--out", RUN, "--resume"]
REPORT = ["report", RUN, "--out", "page.html"]
BEST, LAST, RESULT = "run/checkpoints/best", "run/checkpoints/last", "run/attacks/quick-linf-0.1"
MNIST, CIFAR10, CIFAR100 = (["data", "check", name] for name in ("mnist", "cifar10", "cifar100"))
PARTS = f"{RESULT}/.parts"
BEGUN = f"{RESULT}-first10-cascade/.parts/00000000.begun"
SUBJECTS = [
    Subject("recipe.yaml", "finished", "run/recipe.yaml", ATTACK),
    Subject("checkpoint weights", "finished", f"{BEST}/model.safetensors", ATTACK),
    Subject("checkpoint state.json", "finished", f"{BEST}/state.json", ATTACK),
    Subject("resumed weights", "begun", f"{LAST}/model.safetensors", RESUME, training, True),
    Subject("resumed optimiser", "begun", f"{LAST}/state.safetensors", RESUME, training, True),
    Subject("resumed state.json", "begun", f"{LAST}/state.json", RESUME, training, True),
    Subject("resumed recipe.yaml", "begun", "run/recipe.yaml", RESUME, training, True),
    Subject("attacks/*.json", "finished", f"{RESULT}.json", ATTACK),
    Subject("attacks/*.json, report", "finished", f"{RESULT}.json", REPORT, page),
    Subject("attacks/*.npz", "finished", f"{RESULT}.npz", ATTACK),
    Subject("attacks/*.worst.npz", "finished", f"{RESULT}.worst.npz", [*ATTACK, "--rescore"]),
    Subject("audit.json", "finished", "run/audit.json", REPORT, page),
    Subject("metrics.jsonl", "finished", "run/metrics.jsonl", REPORT, page),
    Subject(".parts identity", "parts", f"{PARTS}/identity.json", ATTACK, resumes=True),
    Subject(".parts shard", "parts", f"{PARTS}/00000000.npz", ATTACK, resumes=True),
    Subject(".parts cascade", "cascade", BEGUN, CASCADE, resumes=True),
    Subject("weights .pt", "foreign", "w.pt", [*FOREIGN, "w.pt"]),
    Subject("weights .safetensors", "foreign", "w.safetensors", [*FOREIGN, "w.safetensors"]),
    Subject("MNIST images", "data", "MNIST/raw/t10k-images-idx3-ubyte", MNIST, content),
    Subject("MNIST labels .gz", "data", "MNIST/raw/train-labels-idx1-ubyte.gz", MNIST, content),
    Subject("CIFAR-10 .bin", "data", "cifar-10-batches-bin/data_batch_2.bin", CIFAR10, content),
    Subject("CIFAR-100 pickle", "data", "cifar-100-python/train", CIFAR100, content),
]


def prepare(folder, names, main, alone):
    """Write the folders of runs that subjects name.

    Args:
        folder: Holds them.
        names: The folders to write.
        main: The command line.
        alone: Runs a function in another process and returns its exit code.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train = ["train", "demo/vanilla", *TINY, "--out", RUN]

    def finished():
        from spikeguard.auditing import CHECKS

        some = {code: CHECKS[code] for code in list(CHECKS)[:6]}
        code = main(train) or main(ATTACK)
        with mock.patch.dict(CHECKS, some, clear=True):  # the file is what matters
            return code or main(["audit", RUN, "--quick", "--limit", "8"])

    def begun():
        from spikeguard.training.checkpointing import Checkpointer

        with dying(Checkpointer, "save", after=6):
            return main(train)

    def parts():
        from spikeguard.evaluation import plan

        with dying(plan, "write_npz", after=1):
            return main(train) or main(ATTACK)

    def cascade():
        from spikeguard.evaluation import shard_runner

        with dying(shard_runner, "write_npz", after=2):
            return main(train) or main(CASCADE)

    def foreign():
        Path("drill_nets.py").write_text(NETS)
        torch.manual_seed(1)
        weights = {"layer.weight": torch.randn(10, 64), "layer.bias": torch.randn(10)}
        torch.save(weights, "w.pt")
        save_file(weights, "w.safetensors")
        return main([*FOREIGN, "w.pt"])

    for made, code in ((finished, 0), (begun, DIED), (parts, DIED), (cascade, DIED), (foreign, 0)):
        if made.__name__ not in names:
            continue
        place = folder / made.__name__
        place.mkdir()
        found = alone(made, place)
        assert found == code, f"{made.__name__}: {found}"


def dying(owner, name, after):
    """Let the process die after a function has been called a number of times."""
    calls, real = [], getattr(owner, name)

    def call(*args, **kwargs):
        result = real(*args, **kwargs)
        calls.append(name)
        if len(calls) == after:
            os._exit(DIED)
        return result

    return mock.patch.object(owner, name, call)


def data(folder):
    """Write small data sets, and let them count as the official files in this process."""
    from spikeguard.data import datasets
    from spikeguard.data.official import OFFICIAL, digest

    raw = folder / "MNIST" / "raw"
    write_mnist(raw, images=np.concatenate([PIXELS] * 4), labels=np.concatenate([LABELS] * 4))
    for file in raw.iterdir():
        OFFICIAL["mnist"][file.name] = digest(file)
    labels = raw / "train-labels-idx1-ubyte"
    labels.with_name(f"{labels.name}.gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    for name, version, method in (("cifar10", "binary", "sha256"), ("cifar100", "python", "md5")):
        release = replace(TINY_DATA[name], train_rows=20)
        setattr(datasets, name.upper(), release)
        for file in write_cifar(release, folder, version).iterdir():
            OFFICIAL[name][file.name] = digest(file, method)


def fresh(folder, scratch):
    """Copy a prepared folder to the place where its command runs."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(folder, scratch)
