"""``spikeguard train``: train the network of a recipe."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from spikeguard.cli.console import Plugin, allowed_plugins, note, progress, say
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.system.launch_place import Place, this_place

if TYPE_CHECKING:
    from spikeguard.config.schema import Recipe
    from spikeguard.training.world import World

__all__ = ["train"]


def joined(place: Place) -> AbstractContextManager[World]:
    """Meet the other ranks; imports torch."""
    from spikeguard.training.engine import joined as meet

    return meet(place)


def train(
    recipe: str,
    /,
    *changes: str,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    data: str | None = None,
    log: Literal["tensorboard"] | None = None,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Train the network of a recipe.

    Started by torchrun or by srun, the processes train one network together.

    Args:
        recipe: A YAML file, or a recipe that ships with SpikeGuard (see 'spikeguard list recipes').
        changes: Changes to the recipe, key=value: model.T=8 train.lr=0.05 objective.at.eps=8/255
        out: Run folder; runs/<name of the recipe> when left out.
        resume: Continue an interrupted training exactly where it stopped.
        dry_run: Build everything, measure a small step, and print what the training takes: steps,
            memory, hours. Nothing is trained or written.
        data: Images to train on instead of the recipe's, the same as data.name=DATA: an .npz file
            with x_train, y_train, x_test and y_test, a folder with train and test, or
            module:function, whose code runs. Data without test images are split.
        log: Also write the numbers of each epoch as TensorBoard events to the run folder; needs the
            package tensorboard.
        json: Print the result as JSON and nothing else on standard output.
        plugin: Package whose parts the recipe may name as package.module:Part; repeated or with
            commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.config.schema import load_recipe

    place = this_place()
    with joined(place) if place is not None else nullcontext() as world:
        with nullcontext() if world is None else world.together():
            plugins = allowed_plugins(plugin, data)
            named = [] if data is None else [f"data.name={dumps(data)}"]
            loaded = load_recipe(recipe, [*named, *changes], plugins=plugins)
        if dry_run:
            return _dry_run(loaded, data_root, json)
        path = Path("runs") / loaded.name if out is None else out
        from spikeguard.runs.recipe_training import train_recipe

        with progress("train") as update:
            result = train_recipe(
                loaded,
                path,
                resume=resume,
                data_root=data_root,
                log=log,
                progress=update,
                announce=note,
                world=world,
            )
    note("")
    say(f"run folder     {path}")
    if result.val_accuracy is None:
        say(f"last epoch     {result.best_epoch}, no validation images")
    else:
        say(f"best epoch     {result.best_epoch}, validation accuracy {result.val_accuracy:.1%}")
    again = "".join(f" --plugin {name}" for name in loaded.plugins.packages)
    say(f"next           spikeguard attack {path}{again}")
    say(f"               spikeguard audit {path}{again}")
    say(f"               spikeguard report {path}")
    if json:
        found = {"best_epoch": result.best_epoch, "val_accuracy": result.val_accuracy}
        write_result("train", {"folder": path, **found, "history": result.history})
    return 0


def _dry_run(recipe: Recipe, data_root: Path | None, json: bool) -> int:
    """Print what a training takes before it is started."""
    from spikeguard.runs.training_plan import plan_training

    plan = plan_training(recipe, data_root)
    for name, line in plan.lines():
        say(f"{name:<15}{line}")
    if json:
        write_result("train", {"dry_run": plan.numbers()})
    return 0
