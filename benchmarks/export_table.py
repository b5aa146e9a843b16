"""What survives the export: accuracies of the digits networks before and after, quantised or not.

    OMP_NUM_THREADS=1 python benchmarks/export_table.py --runs runs/demo --out build/export-table

For each network of --networks, trained by ``spikeguard demo``, the network itself and its NIR files
are attacked: clean accuracy, PGD-40 of suite papers (the number that a paper prints), the accuracy
on the stored worst-case inputs of the network itself, and the worst case for each image: of these
inputs and of suites papers and snn-short on the file. A network with noise is exported without it,
which is another network: it has a row of its own at full precision. Each attack is stored in --out
as it finishes; the next call continues there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.config.schema import EvaluateSection
from spikeguard.data.own import EvaluationImages
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.result_files import load_worst
from spikeguard.evaluation.statistics import Score
from spikeguard.export import export_nir, load_nir
from spikeguard.runs.attack_results import evaluate_once
from spikeguard.runs.result_names import find_result
from spikeguard.runs.run import Run
from spikeguard.storage.run_folder import ATTACKS

SUITES = ("papers", "snn-short")
VARIANTS: dict[str, dict[str, Any]] = {
    "full precision": {},
    "8 bits per tensor": {"bits": 8},
    "8 bits per channel": {"bits": 8, "per": "channel"},
    "4 bits per tensor": {"bits": 4},
    "4 bits per channel": {"bits": 4, "per": "channel"},
    "8 bits per channel, thresholds 0.9": {"bits": 8, "per": "channel", "threshold_grid": 0.3},
}
HEAD = ("network", "clean", "PGD-40", "inputs of the network", "worst case")


def subjects(run: Run, out: Path) -> Iterator[tuple[str, nn.Module]]:
    """Yield the rows of one network: the network, and what its files hold."""
    yield "as trained", run.model
    x, _ = run.data.test.batch(slice(128))
    noise = "off" if run.model.eval().stochastic else "on"
    without = ", without noise" if noise == "off" else ""
    for name, options in VARIANTS.items():
        file = out / f"{name.replace(' ', '-').replace(',', '')}.nir"
        found = export_nir(run.model, file, x, noise=noise, **options)
        print(f"  {name}: {found.file}", flush=True)
        yield f"NIR, {name}{without}", load_nir(file)


def attacked(
    model: nn.Module, images: EvaluationImages, folder: Path, plan: EvaluateSection, eps: float
) -> list[Evaluation]:
    """Attack a model with all suites, or load the results."""
    return [
        evaluate_once(model, images, suite, eps=eps, plan=plan, seed=0, folder=folder / ATTACKS)
        for suite in SUITES
    ]


def lowest(model: nn.Module, parts: list[Tensor], y: Tensor) -> Tensor:
    """Score a model on several inputs for each image, and return the worst for each."""
    scored = [evaluate(model, (x, y), {}, seed=0, check=False).outcomes["clean"] for x in parts]
    return torch.stack(scored).amin(0)


def rows(run: Run, out: Path, n: int, eps: float) -> Iterator[tuple[str, ...]]:
    """Yield the rows of one network."""
    plan = EvaluateSection().changed(limit=n)
    images = EvaluationImages(run.data.test)
    moved: list[Tensor] = []
    for number, (name, model) in enumerate(subjects(run, out)):
        papers, search = attacked(model, images, out / str(number), plan, eps)
        worst = torch.minimum(papers.outcomes["worst_case"], search.outcomes["worst_case"])
        transferred = ""
        if number == 0:
            files = (find_result(out / "0" / ATTACKS, suite, eps, plan) for suite in SUITES)
            moved = [load_worst(file).x for file in files if file is not None]
        else:
            same = lowest(model, moved, papers.labels)
            transferred, worst = str(Score.of(same)).strip(), torch.minimum(worst, same)
        clean, printed = (str(s).strip() for s in (papers.clean, papers.attacks["pgd40"]))
        yield name, clean, printed, transferred, str(Score.of(worst)).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"))
    parser.add_argument("--out", type=Path, default=Path("build/export-table"))
    parser.add_argument("--networks", default="vanilla,at,at-tgo")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--eps", type=float, default=0.1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for network in options.networks.split(","):
        run = Run.load(options.runs / network)
        print(network)
        found = list(rows(run, options.out / network, options.n, options.eps))
        print(f"\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        for row in found:
            print(f"| {' | '.join(row)} |", flush=True)
        print()


if __name__ == "__main__":
    main()
