"""Evaluation: the result of an evaluation, in memory and on disk."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spikeguard.attacks.model_access import DEFAULT_EOT
from spikeguard.evaluation.activity import ActivityCost
from spikeguard.evaluation.attack_records import success_text
from spikeguard.evaluation.result_files import (
    ADVERSARIAL,
    PARTS,
    RESERVED,
    WORST,
    WorstSet,
    reading,
    require_same_scores,
    stored_arrays,
    suffixed,
)
from spikeguard.evaluation.statistics import Score
from spikeguard.preflight.chance import guesses
from spikeguard.storage.atomic_files import write_json, write_npz
from spikeguard.storage.digests import FILES, IDENTITY, file_digest, is_sealed, sealed

if TYPE_CHECKING:
    import pandas

__all__ = ["Evaluation"]

_WIDTH = 120  # columns of a table; longer lines are wrapped


@dataclass(frozen=True)
class Evaluation:
    """Result of an evaluation. Robust accuracies are upper bounds: a stronger attack may go lower.

    In a cascade an attack's outcome is the accuracy after this attack *and all cheaper ones*; it
    is not the accuracy under this attack alone.

    Attributes:
        outcomes: For "clean", every attack and "worst_case": the share of fresh noise draws on
            which each sample is classified correctly, float64 [N]; 0 or 1 without noise.
        labels: True labels [N].
        index: Indices of the samples in the data set [N].
        settings: Every attack's settings, as plain data.
        seconds: Time spent in each attack.
        threat: The norm and eps that all attacks share.
        zero_gradient: Share of samples whose input gradient is exactly zero on the clean input; of
            a stochastic model, zero on every one of ``DEFAULT_EOT`` draws.
        stochastic: Whether the model draws noise.
        draws: Noise draws of every score.
        seed: Names the random streams.
        adversarial: The adversarial inputs of every attack, where they were stored; in a cascade,
            the worst inputs after each attack.
        worst: The inputs of the worst case; None where the result was loaded without them.
        cascade: Whether each attack ran only on the samples that survived the cheaper ones.
        precision: Precision of the attacks' passes, "32" or "bf16"; scores are float32.
        zero: Whether the input gradient is exactly zero, bool [N]; None where an older version
            stored only the share.
        search: Record of a converging search, see ``merged_record``; None if there was none.
        records: For attacks that say more than whether they succeeded, such as ``RawEvents``: the
            samples ``attacked``, and sums over them such as ``soft`` and ``hard`` successes.
        activity: Spikes and synaptic operations of an image, from the first clean images; None for
            a network where they cannot be counted, or for a result of an older version.
        classes: Number of classes K of the logits; None for a result of an older version.
        identity: What a stored result was made with, see ``identity_of``; None for a result that
            was not read from a file, or was stored without it by an older version.
    """

    outcomes: dict[str, Tensor]
    labels: Tensor
    index: Tensor
    settings: dict[str, Any]
    seconds: dict[str, float]
    threat: dict[str, Any]
    zero_gradient: float
    stochastic: bool
    draws: int
    seed: int
    adversarial: dict[str, Tensor] = field(default_factory=dict)
    worst: WorstSet | None = None
    cascade: bool = False
    precision: str = "32"
    zero: Tensor | None = None
    search: dict[str, Any] | None = None
    records: dict[str, dict[str, float]] = field(default_factory=dict)
    activity: ActivityCost | None = None
    classes: int | None = None
    identity: dict[str, Any] | None = None

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return len(self.labels)

    @property
    def clean(self) -> Score:
        """Accuracy without an attack."""
        return Score.of(self.outcomes["clean"])

    @property
    def worst_case(self) -> Score:
        """Accuracy when every sample gets the attack that is worst for it."""
        return Score.of(self.outcomes["worst_case"])

    @property
    def unmoved(self) -> float | None:
        """Share of samples that survive every attack and have a zero input gradient.

        In [0, worst case]: no gradient attack with the model's own surrogates can move these
        samples. Under noise a sample counts with its share of correct draws in the worst case. None
        where it is not known which samples have a zero gradient.
        """
        if self.zero is None:
            return None
        return float((self.outcomes["worst_case"] * self.zero).sum()) / self.samples

    @property
    def attacks(self) -> dict[str, Score]:
        """Accuracy under each attack; in a cascade, after it and all cheaper ones."""
        return {name: Score.of(self.outcomes[name]) for name in self.settings}

    @property
    def warning(self) -> str:
        """States that the clean accuracy is no better than guessing; empty if it is better.

        A guess is one of ``classes``; of an older result, one of 0 to the largest label.
        """
        right = float(self.outcomes["clean"].sum())
        return guesses(right, self.samples, self.classes or int(self.labels.max()) + 1)

    def table(self) -> str:
        """Return an aligned plain-text table, with warnings below it."""
        mark = "+ " if self.cascade else ""  # no line shows an attack alone
        attacks = [(f"{mark}{name}", score) for name, score in self.attacks.items()]
        rows = [("clean", self.clean), *attacks, ("worst case", self.worst_case)]
        first = "cascade" if self.cascade else "attack"
        wide = max(len(name) for name, _ in (*rows, (first, None)))
        head = f"{first:<{wide}}  accuracy  95 % interval   (n = {self.samples})"
        lines = [head, *(f"{name:<{wide}}   {score}" for name, score in rows)]
        if self.search is not None:
            lines.append(_search_in_words(self.search, self.samples))
        lines += filter(None, (success_text(name, each) for name, each in self.records.items()))
        if self.cascade and len(self.settings) > 1:
            lines.append("cascade: each accuracy is after this and all cheaper attacks")
        if self.precision != "32":
            lines.append(f"the attacks searched in {self.precision}; all scores are float32")
        if self.stochastic:
            lines.append(
                f"noisy model: scored on {self.draws} draws; others chose each worst input"
            )
        if self.zero_gradient > 0:
            lines.append(self._zero_in_words())
        if self.warning:
            lines.append(f"warning: {self.warning}")
        return "\n".join(part for line in lines for part in wrap(line, _WIDTH))

    def _zero_in_words(self) -> str:
        draws = f" on all of {DEFAULT_EOT} draws" if self.stochastic else ""
        share = f"{100 * self.zero_gradient:.1f} % of the input gradients are exactly zero{draws}"
        if self.unmoved is None:
            return share
        if self.unmoved == 0:
            return f"{share}; none of these samples survives every attack"
        return (
            f"{share}; {100 * self.unmoved:.1f} % of all samples have such a gradient and survive "
            "every attack, perhaps only because that gradient cannot move them"
        )

    def save(self, path: str | Path, **extra: Any) -> None:
        """Write the evaluation to three files, each atomically.

        ``path.npz`` has the per-sample outcomes, ``path.worst.npz`` the inputs of the worst case,
        and ``path.json``, written last, the scores, the settings, the digests of the other two
        files and a checksum of itself.

        Args:
            path: File name without a suffix.
            **extra: Further plain data for the JSON file, such as the ``identity``.
        """
        path = Path(path)
        arrays = {name: values.numpy() for name, values in self.outcomes.items()}
        arrays |= {f"{ADVERSARIAL}{name}": x.numpy() for name, x in self.adversarial.items()}
        arrays |= {"labels": self.labels.numpy(), "index": self.index.numpy()}
        if self.zero is not None:
            arrays["zero_gradient"] = self.zero.numpy()
        write_npz(suffixed(path, ".npz"), **arrays)
        files = {".npz": file_digest(suffixed(path, ".npz"))}
        if self.worst is not None:
            scored = np.float64(self.worst.accuracy)
            write_npz(suffixed(path, WORST), x=self.worst.x.numpy(), accuracy=scored)
            files[WORST] = file_digest(suffixed(path, WORST))
        write_json(suffixed(path, ".json"), sealed({**self.to_dict(), FILES: files, **extra}))
        if (path / PARTS).is_dir():
            shutil.rmtree(path / PARTS)
            if not any(path.iterdir()):
                path.rmdir()

    def to_dict(self) -> dict[str, Any]:
        """Return scores with 95 % intervals, settings and times as plain data, valid as JSON.

        As in the JSON file of :meth:`save`. Accuracies and interval ends are in [0, 1], times in
        seconds.
        """
        attacks = {
            name: {**vars(score), "settings": self.settings[name], "seconds": self.seconds[name]}
            for name, score in self.attacks.items()
        }
        return {
            "samples": self.samples,
            "seed": self.seed,
            "stochastic": self.stochastic,
            "draws": self.draws,
            "threat": self.threat,
            "clean": vars(self.clean),
            "attacks": attacks,
            "worst_case": vars(self.worst_case),
            "zero_gradient": self.zero_gradient,
            "unmoved": self.unmoved,
            "cascade": self.cascade,
            "precision": self.precision,
            **({} if self.search is None else {"search": self.search}),
            **({"records": self.records} if self.records else {}),
            **({} if self.activity is None else {"activity": self.activity.to_dict()}),
            **({} if self.classes is None else {"classes": self.classes}),
        }

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas table with one row for "clean", each attack and "worst_case".

        Columns: ``attack``; ``accuracy``, ``low`` and ``high`` (95 % interval), in [0, 1]; ``n``
        samples; ``seconds`` (not a number where nothing was timed); ``norm`` and ``eps``.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_frame() needs pandas: pip install pandas; to_dict() returns the same numbers."
            ) from error
        scores = {"clean": self.clean, **self.attacks, "worst_case": self.worst_case}
        rows = [
            {
                "attack": name,
                **vars(score),
                "seconds": self.seconds.get(name, math.nan),
                "norm": self.threat["norm"],
                "eps": self.threat["eps"],
            }
            for name, score in scores.items()
        ]
        return pandas.DataFrame(rows)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Load a saved evaluation, without the inputs of the worst case.

        Raises:
            ValueError: If a file is missing or damaged.
        """
        path = Path(path)
        with reading(path, ".json") as file:
            card = json.loads(file.read_text(encoding="utf-8"))
            is_sealed(card)
        with stored_arrays(path, ".npz", card) as stored:
            arrays = {name: torch.from_numpy(stored[name]) for name in stored}
            labels, index = arrays["labels"], arrays["index"]
        with reading(path, ".json"):
            require_same_scores(card, arrays)
            return cls(
                outcomes={
                    name: values
                    for name, values in arrays.items()
                    if name not in RESERVED and not name.startswith(ADVERSARIAL)
                },
                labels=labels,
                index=index,
                settings={name: entry["settings"] for name, entry in card["attacks"].items()},
                seconds={name: entry["seconds"] for name, entry in card["attacks"].items()},
                threat=card["threat"],
                zero_gradient=card["zero_gradient"],
                stochastic=card["stochastic"],
                draws=card["draws"],
                seed=card["seed"],
                adversarial={
                    name.removeprefix(ADVERSARIAL): values
                    for name, values in arrays.items()
                    if name.startswith(ADVERSARIAL)
                },
                cascade=card.get("cascade", False),
                precision=card.get("precision", "32"),
                search=card.get("search"),
                records=card.get("records", {}),
                activity=ActivityCost.from_dict(card["activity"]) if "activity" in card else None,
                classes=card.get("classes"),
                zero=arrays.get("zero_gradient"),
                identity=card.get(IDENTITY),
            )


def _search_in_words(record: Mapping[str, Any], samples: int) -> str:
    """Return what a converging search did, in one line; points are of all samples."""
    last, more = record["curve"][-1], record["estimate"]
    spent = f"{last['spent']:,.0f} gradients a sample and {last['cpu_s']:,.0f} CPU seconds"
    said = f"search: {record['ended']} after {spent}"
    if more is None:
        return said
    likely, low, high = (100 * more[name] / samples for name in ("more", "low", "high"))
    return (
        f"{said}; estimate: ten times as many would lower the accuracy by {likely:.1f} points "
        f"[{low:.1f}, {high:.1f}]"
    )
