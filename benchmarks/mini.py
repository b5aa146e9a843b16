"""Train and attack every mini recipe at several seeds, and print the table of docs/results.md.

    python benchmarks/mini.py --out runs/mini --data-root data

Finished stages are read back, so the command can be stopped and given again; --table only prints.
Run it twice with different --seeds to use two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from spikeguard.config import eps_text, load_recipe
from spikeguard.recipes import recipe_names
from spikeguard.runs import ATTACKS, RESULT, Run, attack_name, train_recipe
from spikeguard.scores import Evaluation, Score, wilson

OBJECTIVES = ("vanilla", "tgo", "at", "at-tgo")


def folder(out: Path, name: str, seed: int) -> Path:
    return out / f"{name.removeprefix('mini/')}-s{seed}"


def work(out: Path, names: list[str], seeds: list[int], data_root: Path | None) -> None:
    for seed in seeds:
        for name in names:
            path, began = folder(out, name, seed), time.monotonic()
            recipe = load_recipe(name, [f"seed={seed}"])
            train_recipe(recipe, path, resume=True, data_root=data_root)
            run = Run.load(path, data_root=data_root)
            for suite in recipe.evaluate.suite:
                for eps in recipe.evaluate.eps:
                    run.evaluate(suite, eps=eps)
            print(f"{path}  {time.monotonic() - began:.0f} s", flush=True)


def pooled(scores: list[Score]) -> str:
    """Pool the seeds: mean accuracy, the Wilson interval of all samples, and each seed's own."""
    n = sum(s.n for s in scores)
    low, high = wilson(sum(s.accuracy * s.n for s in scores), n)
    mean = sum(s.accuracy * s.n for s in scores) / n
    seeds = ", ".join(f"{100 * s.accuracy:.1f}" for s in scores)
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({seeds})"


def table(out: Path, names: list[str], seeds: list[int]) -> str:
    """One row for each recipe and radius whose seeds are all there; accuracies in per cent."""
    head = (
        "recipe",
        "eps",
        "n",
        "clean",
        "FGSM",
        "PGD-40, own surrogate",
        "worst case",
        "zero gradient",
        "train / attack, s",
    )
    rows = [head, ("---",) * len(head)]
    for name in names:
        plan = load_recipe(name).evaluate
        paths = [folder(out, name, seed) for seed in seeds]
        for eps in plan.eps:
            stems = [p / ATTACKS / attack_name(plan.suite[0], eps, plan) for p in paths]
            if not all(s.with_name(s.name + ".json").exists() for s in stems):
                continue
            results = [Evaluation.load(stem) for stem in stems]
            trained = [json.loads((p / RESULT).read_text())["seconds"] for p in paths]
            attacked = [sum(r.seconds.values()) for r in results]
            rows.append(
                (
                    name,
                    eps_text(eps),
                    f"{len(results)} x {results[0].samples}",
                    pooled([r.clean for r in results]),
                    pooled([r.attacks["fgsm"] for r in results]),
                    pooled([r.attacks["pgd40"] for r in results]),
                    f"**{pooled([r.worst_case for r in results])}**",
                    f"{100 * sum(r.zero_gradient for r in results) / len(results):.0f} %",
                    f"{sum(trained) / len(paths):.0f} / {sum(attacked) / len(paths):.0f}",
                )
            )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/mini"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--only", default="", help="recipes whose name contains this")
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
    args = parser.parse_args()
    found = [n for n in recipe_names() if n.startswith("mini/") and args.only in n]
    names = sorted(
        found, key=lambda n: (n.split("-")[0] != "mini/mnist", OBJECTIVES.index(n.split("-", 1)[1]))
    )
    if not args.table:
        work(args.out, names, args.seeds, args.data_root)
    print(table(args.out, names, args.seeds))


if __name__ == "__main__":
    main()
