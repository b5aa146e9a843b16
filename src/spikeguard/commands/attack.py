"""``spikeguard attack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from spikeguard.commands.console import numbers, progress, say, words

__all__ = ["attack"]

Repeated = Annotated[
    list[str] | None,
    Parameter(negative="", consume_multiple=False, allow_leading_hyphen=True),
]


def attack(
    run: Path,
    /,
    *,
    suite: Repeated = None,
    eps: Repeated = None,
    norm: Literal["linf", "l2"] | None = None,
    limit: int | None = None,
    eot: int | None = None,
    cascade: bool | None = None,
    precision: Literal["32", "bf16"] | None = None,
    data_root: Path | None = None,
) -> int:
    """Attack a trained run: clean accuracy, accuracy per attack, and the worst case per image.

    What is left out comes from the evaluate section of the run's recipe. A finished attack is read
    back, an interrupted one continues where it stopped.

    Args:
        run: Run folder.
        suite: Attack suites, repeated or with commas (see 'spikeguard list suites').
        eps: Radii of the threat set in pixel units, such as 8/255; repeated or with commas.
        norm: Norm of the threat set.
        limit: Attack only the first so many test images.
        eot: Gradients averaged in every attack step; 4 for noisy models when left out.
        cascade: Only the worst case, for less time: attacks run from cheap to dear, each on the
            images that the cheaper ones left.
        precision: Precision of the attacks' passes; scores are float32.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.config import eps_text
    from spikeguard.runs import ATTACKS, Run

    loaded = Run.load(run, data_root=data_root)
    plan = loaded.recipe.evaluate.changed(
        suite=words(suite) if suite else None,
        eps=numbers("--eps", eps) if eps else None,
        norm=norm,
        limit=limit,
        eot=eot,
        cascade=cascade,
        precision=precision,
    )
    for name in plan.suite:
        for radius in plan.eps:
            with progress(f"attack with {name}, {plan.norm} {eps_text(radius)}") as update:
                result = loaded.evaluate(name, eps=radius, plan=plan, progress=update)
            say(f"suite {name}, {plan.norm} eps {eps_text(radius)}")
            say(result.table())
            say()
    say(f"results in {run / ATTACKS}")
    return 0
