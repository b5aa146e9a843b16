"""Score the stored worst-case inputs of one run on another network: do its attacks transfer?"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from spikeguard.config.attack_lines import is_line
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import NO_PLUGINS, Plugins
from spikeguard.config.schema import EvaluateSection, Recipe, eps_text
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.rescoring import Rescored, rescore
from spikeguard.runs.result_names import find_result
from spikeguard.storage.run_folder import ATTACKS

__all__ = ["transferred"]


def transferred(
    model: nn.Module,
    images: ImageSet,
    run: Path,
    recipe: Recipe,
    suite: str,
    *,
    eps: float,
    changes: dict[str, object],
    plugins: Plugins = NO_PLUGINS,
) -> Rescored:
    """Score the inputs of the worst case of a run's stored result on another network.

    Args:
        model: The network.
        images: The images that the run was attacked on.
        run: Folder of the run.
        recipe: Its recipe, whose evaluate section names its results.
        suite: Attack suite or line.
        eps: Radius of the threat set.
        changes: Settings of the evaluate section that are not those of the recipe.
        plugins: Packages from which an attack may be imported.

    Returns:
        ``reported`` is the accuracy of the run, ``found`` that of the network; ``agrees`` has no
        meaning here.

    Raises:
        ValueError: If there is no such result, or it belongs to other images.
    """
    plan: EvaluateSection = recipe.evaluate.changed(**changes)
    stem = find_result(run / ATTACKS, suite, eps, plan, plugins)
    if stem is None:
        option = "--attack" if is_line(suite) else "--suite"
        raise ConfigError(
            f"--transfer: {run} has no result of {suite} at {plan.norm} eps {eps_text(eps)}; make "
            f"it with: spikeguard attack {run} {option} {suite!r} --eps {eps_text(eps)}"
            + (f" --limit {plan.limit}" if plan.limit is not None else "")
        )
    return rescore(model, images, stem)
