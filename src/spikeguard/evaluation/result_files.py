"""Files of a stored result: the card, the outcomes and the worst inputs, read and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeguard.evaluation.statistics import Score
from spikeguard.storage.digests import FILES, IDENTITY, file_digest, is_sealed
from spikeguard.storage.npz_files import DEFLATE, read_npz

__all__ = [
    "PARTS",
    "ADVERSARIAL",
    "RESERVED",
    "UNUSABLE",
    "WORST",
    "DamagedResult",
    "WorstSet",
    "load_worst",
    "reading",
    "require_consistent",
    "require_same_scores",
    "stored_arrays",
    "suffixed",
]

PARTS = ".parts"  # folder of the finished shards of an unfinished evaluation
WORST = ".worst.npz"
RESERVED = ("labels", "index", "zero_gradient")  # arrays stored with the outcomes
UNUSABLE = ("file", "allow_pickle")  # arguments of numpy.savez_compressed
ADVERSARIAL = "adversarial:"  # before the name of an attack: its inputs
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class WorstSet:
    """The inputs of the worst case, stored so that they can be scored again.

    Attributes:
        x: For each sample the input with the fewest correct draws; the clean one where no attack
            lowered them [N, ...].
        accuracy: Accuracy scored on these inputs, in [0, 1].
    """

    x: Tensor
    accuracy: float


class DamagedResult(ValueError):
    """A file of a stored result is not what was written; the message is a clause."""


def load_worst(path: str | Path) -> WorstSet:
    """Load the inputs of the worst case of a saved evaluation.

    Args:
        path: File name without a suffix.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    with reading(Path(path), ".json") as file:
        card = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        is_sealed(card)
    with stored_arrays(Path(path), WORST, card) as stored:
        return WorstSet(torch.from_numpy(stored["x"]), float(stored["accuracy"]))


def require_consistent(path: str | Path, card: Mapping[str, Any]) -> bool:
    """Compare the JSON file of a saved evaluation with its checksum and its per-sample outcomes.

    Args:
        path: File name without a suffix.
        card: Content of the JSON file.

    Returns:
        Whether the file says what it was made with; files of older versions do not, and their
        outcomes may be missing.

    Raises:
        ValueError: If they differ, or the outcomes are missing or damaged.
    """
    path = Path(path)
    with reading(path, ".json"):
        of_this_version = is_sealed(card)
    if of_this_version or suffixed(path, ".npz").exists():
        with stored_arrays(path, ".npz", card) as stored:
            names = [name for name in stored if not name.startswith(ADVERSARIAL)]
            arrays = {name: torch.from_numpy(stored[name]) for name in names}
        with reading(path, ".json"):
            require_same_scores(card, arrays)
    return of_this_version and IDENTITY in card


def require_same_scores(card: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Reject a card whose accuracies are not those of the outcomes.

    Raises:
        DamagedResult: If they differ.
    """
    scores = {"clean": card["clean"], **card["attacks"], "worst_case": card["worst_case"]}
    for name, entry in scores.items():
        if name not in arrays:
            raise DamagedResult(f"the .npz file has no outcomes of {name}")
        found = Score.of(arrays[name])
        if (found.n, card["samples"]) != (entry["n"], entry["n"]) or any(
            not math.isclose(getattr(found, each), entry[each], abs_tol=1e-9)
            for each in ("accuracy", "low", "high")
        ):
            said, held = f"{100 * entry['accuracy']:g}", f"{100 * found.accuracy:g}"
            raise DamagedResult(
                f"it says {said} % of {entry['n']} for {name}, the outcomes in the .npz file are "
                f"{held} % of {found.n}"
            )
    if "zero_gradient" in arrays:
        share = float(arrays["zero_gradient"].double().mean())
        if not math.isclose(share, card["zero_gradient"], abs_tol=1e-6):
            raise DamagedResult("its share of zero gradients is not that in the .npz file")


@contextmanager
def stored_arrays(path: Path, suffix: str, card: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the arrays of a file, compared with the digest that the card has for it."""
    with reading(path, suffix) as file:
        wanted = card.get(FILES, {}).get(suffix)
        if wanted is not None and file_digest(file) != wanted:
            raise DamagedResult("its SHA-256 is not the one in the .json file")
        yield read_npz(file, ratio=DEFLATE)


@contextmanager
def reading(path: Path, suffix: str) -> Iterator[Path]:
    """Yield a file of a finished evaluation; turn any error into one line that names the file."""
    file, card = suffixed(path, suffix), suffixed(path, ".json")
    try:
        yield file
    except (OSError, *_DAMAGE) as error:
        problem = "damaged, not what an attack wrote"
        if isinstance(error, DamagedResult) or "checksum" in str(error):
            problem = f"damaged, {error}"
        if isinstance(error, FileNotFoundError):
            problem = "no such file"
        elif isinstance(error, OSError) and error.filename is not None:
            raise ValueError(f"{file}: {error.strerror}.") from error
        first = f"move {card.name} away and " if card.exists() else ""  # else it is loaded
        raise ValueError(f"{file}: {problem}; {first}run the attack again.") from error


def suffixed(path: Path, suffix: str) -> Path:
    """Append a suffix to a name that may contain dots."""
    return path.with_name(path.name + suffix)
