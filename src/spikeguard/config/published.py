"""Published numbers of the papers, for comparison with measured ones."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files

__all__ = ["PAPERS", "PRINTED_N", "Paper", "Row", "printed_samples", "row", "rows"]


@dataclass(frozen=True)
class Paper:
    """A paper whose numbers are compared with measured ones.

    Attributes:
        title: The paper.
        protocol: What to know about its numbers that the suites cannot express.
        suite: The suite whose attacks are those of its tables, by the names of the tables' columns;
            without the suite's own ``eot``, one gradient a step.
        tables: Suites of single tables.
        undefined: Columns whose attack the paper does not define, and what it says.
    """

    title: str
    protocol: str
    suite: str = "papers"
    tables: Mapping[str, str] = field(default_factory=dict)
    undefined: Mapping[str, str] = field(default_factory=dict)

    def suite_of(self, table: str) -> str:
        """Return the suite of a table."""
        return self.tables.get(table, self.suite)


PRINTED_N = 10_000  # test images of CIFAR and MNIST, on which the tables are measured
_OTHER_N = {"cifar10-dvs": 1_000}  # the usual tenth; the papers do not say

PAPERS = {
    "tgo": Paper(
        "TGO (arXiv:2602.20548)",
        "PGD step 0.01 at every length, one gradient a step (Table 3: three); its R+FGSM is not "
        "defined",
        "tgo-table1",
        {"3": "tgo-table3"},
        {"rfgsm": "the paper defines its R+FGSM only as a small random step before FGSM"},
    ),
    "stable-snn": Paper(
        "Ding et al., Robust Stable Spiking Neural Networks, ICML 2024",
        "its APGD returns the clean image where it fails; weights of the best epoch on the test "
        "set; single runs",
        "stable-snn",
    ),
    "gradient-trail": Paper(
        "Luu, Accuracy-robustness trade off via SNN gradient sparsity trail (arXiv:2509.23762)",
        "the text attacks pixels at 8/255, its code the bits of the code at 6/255, with batch "
        "statistics of the attacked batch; ours attacks pixels; best epoch on the test set",
    ),
    "operational-space": Paper(
        "Mazurek et al., Analyzing internal activity and robustness of SNNs across neuron "
        "parameter space",
        "clean accuracy only",
    ),
}


def printed_samples(dataset: str) -> int:
    """Return the number of test samples behind the printed numbers of a data set."""
    return _OTHER_N.get(dataset, PRINTED_N)


_PLACE = ("paper", "table", "dataset", "network", "defence")


@dataclass(frozen=True)
class Row:
    """One network of a published table.

    Attributes:
        paper: A key of ``PAPERS``.
        table: Number of the table.
        dataset: Name of the data set in the table.
        network: Name of the architecture in the table.
        defence: Name of the method in the table, or other text that identifies the row.
        accuracies: In per cent, by attack: "clean", "fgsm", "pgd7", "apgd-ce10".
        notes: Known errors or inconsistencies of a number, by attack.
    """

    paper: str
    table: str
    dataset: str
    network: str
    defence: str
    accuracies: Mapping[str, float]
    notes: Mapping[str, str]

    @property
    def key(self) -> str:
        """The key in recipes: "tgo/1/cifar10/wrn16-4/at+tgo"."""
        return "/".join(getattr(self, part) for part in _PLACE)

    @property
    def short(self) -> str:
        """Paper and table in a few words: "operational-space, Table II"."""
        return f"{self.paper}, Table {self.table.partition(' ')[0]}"


def row(key: str) -> Row:
    """Return a row by its key.

    Raises:
        ValueError: If there is no such row.

    Example:
        >>> row("tgo/1/cifar10/wrn16-4/at+tgo").accuracies["pgd40"]
        20.11
    """
    if key not in rows():
        close = difflib.get_close_matches(key, rows(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no published row {key!r}.{hint} Rows are paper/table/data/network/name")
    return rows()[key]


@cache
def rows() -> Mapping[str, Row]:
    """Return all rows by key, in the order of the papers."""
    text = (files("spikeguard.recipes") / "reported_results.csv").read_text(encoding="utf-8")
    found: dict[str, Row] = {}
    for line in csv.DictReader(text.splitlines()):
        paper, table, dataset, network, defence = (line[part] for part in _PLACE)
        blank = Row(paper, table, dataset, network, defence, {}, {})
        made = found.setdefault(blank.key, blank)
        found[blank.key] = replace(
            made,
            accuracies={**made.accuracies, line["attack"]: float(line["accuracy_percent"])},
            notes={**made.notes, **({line["attack"]: line["note"]} if line["note"] else {})},
        )
    return found
