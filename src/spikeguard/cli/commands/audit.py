"""``spikeguard audit``: audit a run or a foreign model.

Exit codes with ``--strict``: 3 the bound is faulty, 4 the printed number is too high, 5 the bound
is open; the first that applies. With ``--min-robust``, 6: the bound is below that percentage.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from spikeguard.cli.audit_request import asked_of
from spikeguard.cli.commands.attack import FrameworkName, ReadoutName, Steps
from spikeguard.cli.console import Plugin, note, progress, say, width
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.cli.one_writer import one_writer
from spikeguard.cli.ranks import first_rank_only

if TYPE_CHECKING:
    from spikeguard.auditing.findings import Verdict
    from spikeguard.runs.foreign_model import ForeignSubject

__all__ = ["audit"]


@first_rank_only
@one_writer
def audit(
    run: Path | None = None,
    /,
    *,
    model: str | None = None,
    weights: Path | None = None,
    T: Steps = None,
    framework: FrameworkName | None = None,
    readout: ReadoutName | None = None,
    data: str | None = None,
    out: Path | None = None,
    eps: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    norm: Literal["linf", "l2", "l1"] | None = None,
    limit: int | None = None,
    attack: str | None = None,
    tune: Annotated[bool, Parameter(negative="")] = False,
    quick: Annotated[bool, Parameter(negative="")] = False,
    seed: int | None = None,
    printed: float | None = None,
    protocol: str | None = None,
    printed_n: int | None = None,
    max_gap: float = 2.0,
    min_robust: float | None = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    json: AsJson = False,
    check: bool = True,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Judge the robust accuracy that a paper would print, and the upper bound from all attacks.

    The bound is the per-image worst of the audit's attacks and of the run's stored results at this
    radius, and of a short converging search if no stored result has one. Also measures the
    distribution of a run's membrane potentials, for the report.

    Args:
        run: Run folder; or --model.
        model: Factory of a foreign model; this and the next six are as for 'spikeguard attack'.
        weights: Its state dict.
        T: Time steps of the network.
        framework: Framework of the network.
        readout: How outputs over time become logits.
        data: Images to audit on; as for 'spikeguard attack', also with RUN.
        out: Folder for the verdict.
        eps: Radius of the threat set, such as 8/255; the largest of the run's recipe when left out.
        norm: Norm of the threat set; the recipe's when left out, linf for a foreign model.
        limit: Number of test images.
        attack: The attack of the printed number: its name in a suite, such as pgd20, an attack with
            its settings, such as "mtpgd steps=40 eot=3", or package.module:Attack with --plugin.
            PGD-40 of suite papers when left out.
        tune: Choose the setting of that attack's gradient, HART's gamma or ASSG's A, on validation
            images first.
        quick: Fewer images, steps and checks: those that decide the verdict, in about a minute.
        seed: Seed of the audit's random numbers; the run's seed when left out, 0 for --model.
        printed: A printed robust accuracy in per cent, such as 62.3, instead of --attack.
        protocol: How it was measured, such as "PGD-20 8/255, n 1000".
        printed_n: Number of images behind it, if the protocol does not name it.
        max_gap: Points by which the printed number may exceed the bound.
        min_robust: Exit with code 6 when the bound is below this percentage.
        strict: Exit with code 3 when the bound is faulty, 4 when the printed number is too high, 5
            when the bound is open; the first that applies.
        json: Print the verdict as JSON and nothing else on standard output.
        check: Check first, in a few passes, that the model is repeatable.
        plugin: Package whose parts the recipe or --attack may name as package.module:Part; repeated
            or with commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.attacks.threat_names import threat_of
    from spikeguard.config.schema import EvaluateSection
    from spikeguard.runs.audits import audit_once
    from spikeguard.runs.other_data import run_on_data
    from spikeguard.runs.run import Run
    from spikeguard.storage.run_folder import AUDIT

    only: dict[str, object] = {"weights": weights, "T": T}
    only |= {"framework": framework, "readout": readout}
    asked = asked_of(
        run=run,
        model=model,
        weights=weights,
        T=T,
        framework=framework,
        readout=readout,
        data=data,
        out=out,
        eps=eps,
        limit=limit,
        attack=attack,
        tune=tune,
        quick=quick,
        seed=seed,
        printed=printed,
        protocol=protocol,
        printed_n=printed_n,
        max_gap=max_gap,
        min_robust=min_robust,
        check=check,
        plugin=plugin,
    )
    how, plugins = asked.how, asked.plugins
    loaded = None if run is None else Run.load(run, data_root=data_root, plugins=plugins)
    if loaded is not None and data is None:
        with progress("audit") as update:
            verdict = loaded.audit(eps=asked.radius, norm=norm, **how, progress=update)
            loaded.membrane()
        path = loaded.path
    else:
        if loaded is not None:
            plan, found = loaded.recipe.evaluate, run_on_data(loaded, str(data), out=out)
        else:
            only |= {"data": data, "out": out, "data_root": data_root, "plugins": plugins}
            plan, found = EvaluateSection(), _foreign_model(str(model), {**only, "check": check})
        plan = plan.changed(eps=asked.radius, norm=norm)
        with progress("audit") as update:
            verdict = audit_once(
                *(found.path, found.model, found.data, threat_of(plan.norm, max(plan.eps))),
                plan=plan,
                own_seed=0 if loaded is None else loaded.recipe.seed,
                plugins=found.plugins,
                trained_with=None if loaded is None else loaded.surrogates,
                **how,
                progress=update,
            )
        path = found.path
    _show(verdict, path / AUDIT, json)
    return _exit_code(verdict, strict, asked.least)


def _foreign_model(model: str, options: Mapping[str, object]) -> ForeignSubject:
    from spikeguard.runs.foreign_model import load_foreign_model

    found = load_foreign_model(model, **options)  # type: ignore[arg-type]
    if found.preflight is not None:
        note(str(found.preflight))
    note("the surrogate of the training is unknown: check S22 does not run")
    return found


def _show(verdict: Verdict, path: Path, as_json: bool) -> None:
    if as_json:
        write_result("audit", {"file": path, **verdict.to_dict()})
    say(verdict.table(width()))
    say()
    if verdict.printed is not None:
        say(verdict.printed.statement)
    say(verdict.bound.statement)
    say(f"verdict in {path}")


def _exit_code(verdict: Verdict, strict: bool, least: float | None) -> int:
    if strict and verdict.status == "faulty":
        return 3
    if strict and verdict.refuted:
        return 4
    if strict and verdict.status == "open":
        return 5
    bound = verdict.upper_bound
    return 6 if least is not None and (bound is None or bound < least) else 0
