"""Run folders with planted numbers, as the other parts of SpikeGuard write them."""

import json
import re
from dataclasses import replace

import numpy as np

from spikeguard.analysis import LayerCounts, MembraneHistogram, default_edges
from spikeguard.auditing.findings import REQUIRED, Finding, conclude
from spikeguard.auditing.numbers import judge
from spikeguard.evaluation.estimates import Estimate
from spikeguard.evaluation.statistics import Score, wilson
from spikeguard.storage.atomic_files import write_json, write_text

CHECKS = {
    "S1": "Same sample, same answer, alone or in a batch",
    "G15": "No sample has a zero input gradient",
    "G1": "Iterative attacks beat a single step",
    "G4": "Noise is weaker than the attack",
    "S4": "The attacker's choice of surrogate does not decide the result",
}
FAILED = {
    "G15": Finding(
        "G15",
        CHECKS["G15"],
        "fail",
        "42 of 100 samples",
        "0 samples",
        "gradient attacks cannot move on these samples",
        "attack with a wider surrogate",
    ),
    "S4": Finding(
        "S4",
        CHECKS["S4"],
        "fail",
        "own surrogate 63.0 %, worst of 5 54.8 %",
        "worst case >= own - 1.0 %",
        "the number is an artefact of the attacker's gradient",
        "report the per-sample worst case over surrogates (suite 'surrogates')",
    ),
}

# Accuracies in % at each eps: in the order of NAMES, then the worst case.
NAMES = ("noise", "fgsm", "pgd10", "pgd40", *(f"pgd20/width{w}" for w in ("0.5", "1", "2", "4")))
NETWORKS = {
    "Vanilla": {
        "clean": 99.4,
        0.1: (98.8, 70.2, 56.4, 55.0, 47.2, 55.4, 58.6, 66.4, 44.8),
        0.2: (97.2, 17.8, 1.4, 0.2, 0.0, 0.2, 0.6, 3.6, 0.0),
        "near": 0.106,
        "zero": 0.0,
        "failed": ("S4",),
    },
    "TGO": {
        "clean": 98.6,
        0.1: (97.8, 84.6, 66.2, 63.0, 71.4, 63.0, 60.2, 69.8, 54.8),
        0.2: (95.4, 69.0, 38.6, 30.0, 54.8, 30.0, 3.4, 12.4, 1.0),
        "near": 0.010,
        "zero": 0.42,
        "failed": ("G15", "S4"),
    },
    "AT": {
        "clean": 97.6,
        0.1: (97.4, 89.6, 86.2, 85.6, 85.0, 85.8, 86.4, 88.8, 84.4),
        0.2: (96.2, 74.8, 58.4, 52.6, 51.8, 53.0, 56.2, 63.8, 50.2),
        "near": 0.094,
        "zero": 0.0,
        "failed": (),
    },
    "AT + TGO": {
        "clean": 97.2,
        0.1: (97.0, 91.2, 88.4, 87.8, 86.6, 87.8, 84.4, 86.8, 82.2),
        0.2: (95.8, 81.4, 71.2, 66.4, 63.8, 66.4, 47.2, 55.6, 41.6),
        "near": 0.021,
        "zero": 0.08,
        "failed": ("S4",),
    },
}


def score(accuracy, n=500):
    low, high = wilson(accuracy / 100 * n, n)
    return {"accuracy": accuracy / 100, "low": low, "high": high, "n": n}


def settings(name, eps):
    """Settings as ``attacks.describe`` returns them, as far as the report reads them."""
    width = name.partition("/width")[2]
    gradient = {"kind": "Backprop"}
    if width:
        surrogate = {"kind": "Triangular", "width": float(width)}
        gradient = {"kind": "SwapSurrogate", "surrogate": surrogate}
    steps = re.fullmatch(r"pgd(\d+)", name.partition("/")[0])
    kind = {"kind": "PGD", "steps": int(steps[1])} if steps else {"kind": name.upper()}
    threat = {"kind": "Linf", "eps": eps}
    return {**kind, "threat": threat, "loss": "cross_entropy", "gradient": gradient}


def plant_run(path, title, *, objective="Vanilla()", epochs=15, neuron="lif", seed=0):
    """Write the files of a finished training, without attacks, audit or membranes."""
    recipe = {
        "name": path.name,
        "title": title,
        "source": "planted for tests",
        "seed": seed,
        "data": {"name": "digits"},
        "model": {"name": "cnn", "T": 4, "width": 16, "neuron": {"name": neuron, "decay": 0.5}},
        "objective": [],
        "train": {"epochs": epochs, "batch_size": 32, "optimizer": "adam", "lr": 0.002},
        "evaluate": {"eps": [0.1, 0.2], "suite": ["demo"], "limit": 500},
    }
    write_json(path / "recipe.yaml", recipe)  # JSON is YAML
    environment = {"spikeguard": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.1"}
    environment |= {"python": "3.11.7", "commit": "0123abc", "platform": "Linux x86_64"}
    environment |= {"cpu": "Planted CPU", "cores": 2, "threads": 1, "gpu": None, "seed": seed}
    environment["kernel"] = "multistep"
    environment |= {"command": f"spikeguard train {path.name}", "date": "2026-01-02T03:04:05+00:00"}
    write_json(path / "environment.json", environment)
    terms = ["cross_entropy", *(["tgo"] if "TGO" in objective else [])]
    hardness = 1 + 0.6 * len(objective) / 50
    lines = [_epoch(epoch, epochs, terms, hardness) for epoch in range(1, epochs + 1)]
    write_text(path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    result = {"best_epoch": epochs - 1, "val_accuracy": lines[-2]["val_accuracy"], "epochs": epochs}
    result |= {"parameters": 58_906, "train_samples": 1167, "val_samples": 130, "seconds": 83.4}
    write_json(path / "result.json", {**result, "objective": objective})
    return path


def plant_attacks(path, eps, clean, accuracies, *, zero=0.0, n=500, names=NAMES, norm="linf"):
    """Write one evaluation; ``accuracies`` in %, one for each name, then the worst case."""
    *each, worst = accuracies
    attacks = {
        name: {**score(accuracy, n), "settings": settings(name, eps), "seconds": 1.5}
        for name, accuracy in zip(names, each, strict=True)
    }
    card = {"samples": n, "seed": 0, "stochastic": False, "draws": 1}
    card |= {"threat": {"norm": norm, "eps": eps}, "clean": score(clean, n), "attacks": attacks}
    card |= {"worst_case": score(worst, n), "zero_gradient": zero, "suite": "demo", "eot": 1}
    file = path / "attacks" / f"demo-{norm}-{eps:g}-first{n}.json"
    write_json(file, {**card, "limit": n})
    return file


LAYERS = ("features.2", "features.6", "classifier.2")


def curves(own=0.63, worst=0.6, dead=(0.5, 0.6, 0.9)):
    """The evidence that the report draws, as the checks write it."""
    steps = range(50)
    curve = {
        "loss": [1 - 0.9**step for step in steps],
        "low": [0.8 - 0.9**step for step in steps],
        "high": [1.3 - 0.9**step for step in steps],
        "right": [own + (0.95 - own) * 0.8**step for step in steps],
    }
    widths = {
        "a triangle of half-width 0.25": 0.25,
        "a triangle half as wide": 0.5,
        "a triangle of half-width 5": 5.0,
        "its own 5 times as wide": 3.5,
    }
    sweep = {"own": own - 0.02, "own_once": own, "tries": 5, "worst": worst, "half_width": widths}
    sweep |= {"accuracy": dict.fromkeys(widths, own + 0.1) | {"a triangle of half-width 5": worst}}
    return {
        "G10": {"late": 0.01, "steps": 50, "last": 10, "resisting": 12, "curve": curve},
        "G8": {"steps": 50, "once": own, "twice": own - 0.01},
        "G7": {"curve": [[0.05, 0.9], [0.1, own], [0.2, 0.2]]},
        "G6": {"eps": 0.5, "accuracy": 0.05, "chance": 0.1},
        "G5": {"eps": 1.0, "accuracy": 0.0},
        "G31": {"clean": 0.97, "healed": 0.0},
        "S4": sweep | {"own_half_width": 0.7},
        "S7": {"dead_surrogate": dict(zip(LAYERS, dead, strict=True))},
        "S8": {"zero": dict(zip(LAYERS, (0.4, 0.3, 0.2), strict=True))},
    }


def plant_audit(path, failed=(), evidence=None, refuted=False):
    """Write an audit in which the named checks failed and the others passed.

    ``evidence`` is by code; that of :func:`curves` when left out. ``refuted`` plants a printed
    number that is 40 points too high.
    """
    kept = curves() if evidence is None else evidence
    titles = dict.fromkeys((*REQUIRED, *kept), "Another question") | CHECKS
    findings = [
        FAILED[code]
        if code in failed
        else Finding(code, title, "pass", "as it should be", "always")
        for code, title in titles.items()
    ]
    findings = [replace(found, evidence=kept.get(found.code, {})) for found in findings]
    settings = {"samples": 100, "threat": {"norm": "linf", "eps": 0.1}}
    bound = Score.from_share(0.5, 100)
    score = Score.from_share(0.9 if refuted else 0.51, 100)
    gap = Estimate(score.accuracy - 0.5, *wilson(100 * score.accuracy - 50, 100))
    printed = judge("PGD-40, own surrogate", score, bound, gap, paired=True, max_gap=0.02)
    verdict = conclude(findings, bound=bound, printed=printed, settings=settings)
    write_json(path / "audit.json", verdict.to_json())  # as an older version: tests edit it


def plant_membrane(path, near=0.1, layers=("features.2", "features.6", "classifier.2")):
    """Write histograms with a known share near the threshold; all others are in two humps."""
    edges, total = default_edges(), 1_000_000
    centres = np.concatenate([[-4.5], (edges[2:-1] + edges[1:-2]) / 2, [4.5]])
    inside = np.abs(centres) < 0.2
    found = {}
    for place, name in enumerate(layers):
        humps = np.exp(-(((centres + 0.9 - 0.1 * place) / 0.4) ** 2))
        humps += 0.25 * np.exp(-(((centres - 0.7) / 0.5) ** 2))
        humps = np.where(inside, 0.0, humps)
        counts = (total * (1 - near) * humps / humps.sum()).astype(np.int64)
        counts[inside] = round(total * near) // int(inside.sum())
        counts[0] += total - counts.sum()
        spikes = int(counts[centres > 0].sum())
        found[name] = LayerCounts(counts, round(total * near), total // 2, spikes)
    MembraneHistogram(found, edges, 256).save(path / "analysis" / "membrane.npz")


def plant_demo(root):
    """Write four complete run folders and return their paths."""
    paths = []
    for title, numbers in NETWORKS.items():
        path = root / title.lower().replace(" + ", "-")
        pieces = {"AT": "AT(eps=0.1, steps=3)", "TGO": "TGO(lambda_max=20.0, delta=1.0)"}
        objective = " | ".join(pieces[word] for word in title.split(" + ") if word in pieces)
        neuron = "noisy_lif" if "TGO" in title else "lif"
        plant_run(path, title, objective=objective or "Vanilla()", neuron=neuron)
        for eps in (0.1, 0.2):
            plant_attacks(path, eps, numbers["clean"], numbers[eps], zero=numbers["zero"])
        plant_audit(path, numbers["failed"], refuted=title == "AT")
        plant_membrane(path, numbers["near"])
        paths.append(path)
    return paths


def truncate(path):
    """Cut a file in half, as a copy that broke off."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _epoch(epoch, epochs, terms, hardness):
    share = epoch / epochs
    losses = {"cross_entropy": hardness * (0.08 + 2.2 * (1 - share) ** 3)}
    losses |= dict.fromkeys(terms[1:], 6.0 * (0.05 + (1 - share) ** 2))
    accuracy = 1 - 0.55 * hardness * (0.03 + (1 - share) ** 3)
    return {
        "epoch": epoch,
        "step": 37 * epoch,
        "lr": 0.002 * (1 - share),
        "progress": share,
        "train_loss": sum(losses.values()),
        "train_accuracy": accuracy,
        "terms": losses,
        "val_loss": 0.1 + 0.7 * losses["cross_entropy"],
        "val_accuracy": accuracy + (0.015 if epoch < epochs else 0.01),
        "seconds": 5.5,
    }
