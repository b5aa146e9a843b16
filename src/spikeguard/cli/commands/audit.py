"""``spikeguard audit``: audit a run or a foreign model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from spikeguard.cli.commands.attack import FrameworkName, ReadoutName, Steps, require_one
from spikeguard.cli.console import Plugin, allowed_plugins, note, numbers, progress, say

if TYPE_CHECKING:
    from spikeguard.auditing.findings import Verdict

__all__ = ["audit"]


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
    strict: Annotated[bool, Parameter(negative="")] = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Check whether a robustness number can be believed: hidden gradients, weak attacks, chance.

    Also measures the distribution of a run's membrane potentials, for the report.

    Args:
        run: Run folder; or --model.
        model: Factory of a foreign model; this and the next six as for 'spikeguard attack'.
        weights: Its state dict.
        T: Time steps of the network.
        framework: Framework of the network.
        readout: How outputs over time become logits.
        data: Data set to audit the model on.
        out: Folder for its verdict.
        eps: Radius of the threat set, such as 8/255; the largest of the run's recipe when left out.
        norm: Norm of the threat set; the recipe's when left out, linf for a foreign model.
        limit: Number of test images.
        attack: The attack whose reported number is audited: its name in a suite, such as pgd40, or
            package.module:Attack with --plugin. The audit's own, APGD-50, when left out.
        tune: Choose the setting of that attack's gradient, HART's gamma or ASSG's A, on validation
            images first.
        quick: Fewer images, steps and checks: those that decide the verdict, in about a minute.
        strict: Exit with code 1 when the verdict is "unreliable".
        plugin: Package whose parts the recipe or --attack may name as package.module:Part; repeated
            or with commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.runs.run import Run
    from spikeguard.storage.run_folder import AUDIT

    only = {"weights": weights, "T": T, "framework": framework, "readout": readout}
    options: dict[str, object] = {**only, "data": data, "out": out}
    require_one(run, model, options)
    radius = numbers("--eps", [eps])[0] if eps else None
    plugins = allowed_plugins(plugin)
    if run is None:
        assert model is not None
        given = {**options, "data_root": data_root, "plugins": plugins}
        return _audit_foreign_model(
            model, given, (norm or "linf", radius), limit, attack, tune, quick, strict
        )
    loaded = Run.load(run, data_root=data_root, plugins=plugins)
    with progress("audit") as update:
        verdict = loaded.audit(
            eps=radius,
            norm=norm,
            limit=limit,
            budget="quick" if quick else "full",
            attack=attack,
            tune=tune,
            progress=update,
        )
        loaded.membrane()
    return _show(verdict, run / AUDIT, strict)


def _audit_foreign_model(
    model: str,
    options: Mapping[str, object],
    ball: tuple[str, float | None],
    limit: int | None,
    attack: str | None,
    tune: bool,
    quick: bool,
    strict: bool,
) -> int:
    from spikeguard.attacks.threat import THREATS
    from spikeguard.auditing.auditor import audit as audited
    from spikeguard.config.schema import EvaluateSection
    from spikeguard.runs.foreign_model import load_foreign_model
    from spikeguard.runs.run import attack_to_audit
    from spikeguard.runs.tuned_settings import FOLDER, choose_attack
    from spikeguard.storage.run_folder import ATTACKS, AUDIT

    found = load_foreign_model(model, **options)  # type: ignore[arg-type]
    note(str(found.preflight))
    note("the surrogate of the training is unknown: check S22 does not run")
    norm, eps = ball
    threat = THREATS[norm](max(EvaluateSection().eps) if eps is None else eps)
    named, how = attack_to_audit(attack, found.model, threat, found.plugins), None
    with progress("audit") as update:
        if tune:
            named, how = choose_attack(
                *(named, found.model, found.data.val),
                folder=found.path / ATTACKS / FOLDER,
                seed=0,
                progress=update,
            )
        verdict = audited(
            found.model,
            found.data.test,
            threat=threat,
            budget="quick" if quick else "full",
            limit=limit,
            attack=named,
            tuned=how,
            progress=update,
        )
    verdict.save(found.path / AUDIT)
    return _show(verdict, found.path / AUDIT, strict)


def _show(verdict: Verdict, path: Path, strict: bool) -> int:
    say(verdict.table())
    say()
    say(verdict.sentence)
    say(f"verdict in {path}")
    return 1 if strict and verdict.status == "unreliable" else 0
