"""Stored worst-case inputs of one run, scored on another network: do its attacks transfer?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch import nn

from spikeguard.config.attack_lines import is_line
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import Plugins
from spikeguard.config.schema import EvaluateSection, eps_text, load_recipe
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.rescoring import Rescored, rescore
from spikeguard.runs.result_names import find_result
from spikeguard.runs.run import require_finished
from spikeguard.storage.run_folder import ATTACKS, RECIPE

__all__ = ["StoredInputs"]


@dataclass(frozen=True)
class StoredInputs:
    """The inputs of the worst case in the stored results of a run.

    Attributes:
        run: Folder of the run.
        plan: Settings that name its results.
        plugins: Packages from which an attack may be imported.
    """

    run: Path
    plan: EvaluateSection
    plugins: Plugins

    @classmethod
    def of(cls, run: Path, changes: Mapping[str, object], plugins: Plugins) -> Self:
        """Find the results of a run; ``changes`` are settings that differ from its recipe.

        Raises:
            ConfigError: If there is no finished run.
        """
        recipe = load_recipe(require_finished(run) / RECIPE, plugins=plugins)
        return cls(run, recipe.evaluate.changed(**changes), plugins)

    def result(self, suite: str, eps: float) -> Path:
        """Return the stored result of a suite or an attack line, without suffix.

        Raises:
            ConfigError: If there is none; the message has the command that makes it.
        """
        found = find_result(self.run / ATTACKS, suite, eps, self.plan, self.plugins)
        if found is not None:
            return found
        words = [f"spikeguard attack {self.run}", "--attack" if is_line(suite) else "--suite"]
        words += [f'"{suite}"' if is_line(suite) else suite, f"--eps {eps_text(eps)}"]
        words += [f"--norm {self.plan.norm}"] if self.plan.norm != "linf" else []
        words += [f"--limit {self.plan.limit}"] if self.plan.limit is not None else []
        raise ConfigError(
            f"--transfer: {self.run} has no result of {suite} at {self.plan.norm} eps "
            f"{eps_text(eps)}; make it with: {' '.join(words)}"
        )

    def score(self, model: nn.Module, images: ImageSet, suite: str, eps: float) -> Rescored:
        """Score the inputs on a network; ``agrees`` of the result has no meaning here.

        Args:
            model: The network.
            images: The images that the run was attacked on.
            suite: Attack suite or line.
            eps: Radius of the threat set.

        Raises:
            ValueError: If there is no such result, it is damaged, or it is of other images.
            ThreatViolation: If an input is outside the threat set.
        """
        return rescore(model, images, self.result(suite, eps))
