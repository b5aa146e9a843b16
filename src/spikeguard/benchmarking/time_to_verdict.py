"""Time to a robustness verdict: seconds until the worst case of several attacks is known."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.suites import suite
from spikeguard.benchmarking.peers import peer
from spikeguard.data.datasets import load
from spikeguard.defences.adversarial import AT
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.kernels.selection import use_kernel
from spikeguard.models.feedforward import CNN
from spikeguard.models.snn import SNN
from spikeguard.neurons.lif import LIF
from spikeguard.neurons.surrogate import Triangular
from spikeguard.rng import SampleStreams, key, stream
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import train

__all__ = ["HEAD", "WAYS", "rows", "time_to_verdict", "trained"]

HEAD = ("way", "images", "seconds", "times faster", "worst case")
_SUITE, _EPS, _BATCH, _SEED = "papers", 0.1, 100, 0

Images = tuple[Tensor, Tensor]


def trained(images: int = 500) -> tuple[SNN, Images]:
    """Train a small network on the embedded digits; return it with images to attack.

    Args:
        images: Number of test images, at most 500.
    """
    data = load("digits")
    neuron = LIF(0.5, surrogate=Triangular(1.0))
    shape = {"in_channels": 1, "num_classes": 10, "T": 4, "image_size": 8}
    model = CNN(
        **shape,  # type: ignore[arg-type]
        width=16,
        hidden=128,
        neuron=neuron,
        mean=data.mean,
        std=data.std,
        generator=stream(_SEED, "init"),
    )
    options = TrainOptions(epochs=8, batch_size=32, optimizer="adam", lr=2e-3, weight_decay=0.0)
    with tempfile.TemporaryDirectory() as folder:
        train(model, data, AT(eps=0.05, steps=1), options, out=Path(folder) / "run")
    return model.eval(), data.test.batch(torch.arange(images))


def time_to_verdict(model: SNN, images: Images, way: str) -> dict[str, float]:
    """Attack all images in one of ``WAYS`` and measure the time.

    Returns:
        ``seconds``, ``worst_case`` (accuracy in [0, 1]) and ``images``.
    """
    run = WAYS[way]
    attacks = suite(_SUITE, eps=_EPS)
    began = time.perf_counter()
    worst = run(model, images, attacks)
    return {
        "seconds": time.perf_counter() - began,
        "worst_case": worst,
        "images": len(images[0]),
    }


def rows(cases: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the text of the table; a way with a higher worst case is "weaker", not faster."""
    found = {way: c for way in WAYS if (c := cases.get(f"verdict/{way}"))}
    baseline = found.get(_PLAIN)
    return [
        (
            way,
            f"{case['images']:g}",
            f"{case['seconds']:.1f}",
            "" if baseline is None else _faster(case, baseline),
            f"{case['worst_case']:.1%}",
        )
        for way, case in found.items()
    ]


def _faster(case: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    if case["worst_case"] > baseline["worst_case"]:
        return "weaker"
    return f"{baseline['seconds'] / case['seconds']:.2f}x"


def _plain(model: SNN, images: Images, attacks: Mapping[str, Attack]) -> float:
    """Run every attack on every image, in fixed batches, on the plain loop over time."""
    return _fixed_batches(peer("plain", model).eval(), images, attacks)


@torch.no_grad()
def _fixed_batches(model: nn.Module, images: Images, attacks: Mapping[str, Attack]) -> float:
    right = 0
    for start in range(0, len(images[0]), _BATCH):
        place = torch.arange(start, min(start + _BATCH, len(images[0])))
        x, y = (part[place] for part in images)
        still = model(x).argmax(1) == y
        for name, attack in attacks.items():
            streams = SampleStreams(key(_SEED, "attack", name), place)
            still &= model(attack(model, x, y, generator=streams)).argmax(1) == y
        right += int(still.sum())
    return right / len(images[0])


def _every(model: SNN, images: Images, attacks: Mapping[str, Attack]) -> float:
    with use_kernel("multistep"):
        found = evaluate(model, images, attacks, seed=_SEED, batch_size=_BATCH, progress=None)
    return found.worst_case.accuracy


def _cascade(model: SNN, images: Images, attacks: Mapping[str, Attack]) -> float:
    found = evaluate(
        model, images, attacks, seed=_SEED, batch_size=_BATCH, cascade=True, progress=None
    )
    return found.worst_case.accuracy


def _cascade_bf16(model: SNN, images: Images, attacks: Mapping[str, Attack]) -> float:
    found = evaluate(
        *(model, images, attacks),
        seed=_SEED,
        batch_size=_BATCH,
        cascade=True,
        precision="bf16",
        progress=None,
    )
    return found.worst_case.accuracy


_PLAIN = "plain loop, every attack on every image"
WAYS: dict[str, Callable[[SNN, Images, Mapping[str, Attack]], float]] = {
    _PLAIN: _plain,
    "evaluate, multistep kernel": _every,
    "evaluate, cascade": _cascade,
    "evaluate, cascade, bf16 search": _cascade_bf16,
}
