"""Max against average pooling: share of exact zeros in the gradient by each operation's input.

python benchmarks/pooling.py runs/mini/cifar10-sew18-max-s0 runs/mini/cifar10-sew18-avg-s0
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from spikeguard.analysis import operation_gradients
from spikeguard.runs.run import Run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("runs", type=Path, nargs="+")
parser.add_argument("--limit", type=int, default=200)
parser.add_argument("--data-root", type=Path)
parser.add_argument("--out", type=Path, help="a PNG to write")
args = parser.parse_args()

found = {}
for path in args.runs:
    run = Run.load(path, data_root=args.data_root)
    found[path.name] = operation_gradients(run.model, run.data.test, limit=args.limit)

names = list(next(iter(found.values())))
print(f"{'operation':<28} {'kind':<18}" + "".join(f"{name:>24}" for name in found))
for name in names:
    kind = next(iter(found.values()))[name].kind
    cells = (
        f"{100 * seen[name].zero_share:>13.1f} % {seen[name].norm:8.1e}" for seen in found.values()
    )
    print(f"{name:<28} {kind:<18}" + "".join(cells))

if args.out is not None:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(11, 6), sharex=True, layout="constrained")
    for label, seen in found.items():
        top.plot([100 * each.zero_share for each in seen.values()], "o-", ms=3, lw=1, label=label)
        bottom.semilogy([each.norm for each in seen.values()], "o-", ms=3, lw=1, label=label)
    top.set_ylabel("exact zeros in the\ngradient, %")
    bottom.set_ylabel("norm of the gradient")
    kinds = [seen.kind for seen in next(iter(found.values())).values()]
    bottom.set_xticks(range(len(kinds)), kinds, rotation=90, fontsize=7)
    figure.legend(
        *top.get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False
    )
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(args.out, dpi=150)
