"""``spikeguard audit``: audit a run or a foreign model.

Exit codes with ``--strict``: 3 the bound is faulty, 4 the printed number is too high, 5 the bound
is open; the first that applies. With ``--min-robust``, 6: the bound is below that percentage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

from cyclopts import Parameter

from spikeguard.cli.attack_request import require_one
from spikeguard.cli.commands.attack import FrameworkName, ReadoutName, Steps
from spikeguard.cli.console import Plugin, allowed_plugins, note, numbers, progress, say, width
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.cli.one_writer import one_writer
from spikeguard.cli.ranks import first_rank_only
from spikeguard.config.errors import ConfigError

if TYPE_CHECKING:
    from spikeguard.auditing.findings import Verdict
    from spikeguard.auditing.numbers import Claim
    from spikeguard.auditing.subject import Budget
    from spikeguard.config.plugins import Plugins
    from spikeguard.neurons.surrogate import Surrogate
    from spikeguard.runs.foreign_model import ForeignSubject

__all__ = ["Asked", "asked_of", "audit"]


class _Judged(TypedDict):
    """The arguments of an audit that describe the printed number."""

    printed: Claim | None
    max_gap: float


@dataclass(frozen=True)
class Asked:
    """The options of an audit, read and checked.

    Attributes:
        judged: What describes the printed number.
        least: The bound below which the exit code is 6, in [0, 1]; or None.
        radius: Radius of the threat set; None for the recipe's.
        plugins: Packages from which parts may be imported.
    """

    judged: _Judged
    least: float | None
    radius: float | None
    plugins: Plugins


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
    from spikeguard.runs.run import Run
    from spikeguard.storage.run_folder import AUDIT

    only = {"weights": weights, "T": T, "framework": framework, "readout": readout}
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
        attack=attack,
        seed=seed,
        printed=printed,
        protocol=protocol,
        printed_n=printed_n,
        max_gap=max_gap,
        min_robust=min_robust,
        plugin=plugin,
    )
    judged, radius, plugins = asked.judged, asked.radius, asked.plugins
    budget: Budget = "quick" if quick else "full"
    ball: tuple[str | None, float | None] = (norm, radius)
    if run is None:
        assert model is not None
        options = {**only, "data": data, "out": out, "data_root": data_root, "plugins": plugins}
        found = _foreign_model(model, {**options, "check": check})
        verdict, path = _audit_images(
            found, ball, limit, attack, tune, budget, judged, check, seed=seed or 0
        )
    elif data is not None:
        from spikeguard.runs.other_data import run_on_data

        loaded = Run.load(run, data_root=data_root, plugins=plugins)
        plan = loaded.recipe.evaluate
        ball = (norm or plan.norm, max(plan.eps) if radius is None else radius)
        found = run_on_data(loaded, data, out=out)
        verdict, path = _audit_images(
            *(found, ball, limit, attack, tune, budget, judged, check),
            seed=loaded.recipe.seed if seed is None else seed,
            trained_with=loaded.surrogates,
            checkpoint=plan.checkpoint,
        )
    else:
        loaded = Run.load(run, data_root=data_root, plugins=plugins)
        with progress("audit") as update:
            verdict = loaded.audit(
                eps=radius,
                norm=norm,
                limit=limit,
                budget=budget,
                attack=attack,
                tune=tune,
                seed=seed,
                **judged,
                check=check,
                progress=update,
            )
            loaded.membrane()
        path = run / AUDIT
    _show(verdict, path, json)
    return _exit_code(verdict, strict, asked.least)


def asked_of(
    *,
    run: Path | None,
    model: str | None,
    weights: Path | None,
    T: int | None,
    framework: str | None,
    readout: str | None,
    data: str | None,
    out: Path | None,
    eps: str | None,
    attack: str | None,
    seed: int | None,
    printed: float | None,
    protocol: str | None,
    printed_n: int | None,
    max_gap: float,
    min_robust: float | None,
    plugin: Sequence[str] | None,
    **_: object,
) -> Asked:
    """Read the options of :func:`audit` that say what is audited, and how it is judged.

    Raises:
        ConfigError: If an option is wrong, or they do not fit together.
        ValueError: If the printed number or its protocol is wrong.
    """
    only = {"weights": weights, "T": T, "framework": framework, "readout": readout}
    require_one(run, model, {**only, "out": None if data else out})
    judged: _Judged = {
        "printed": _claim(printed, protocol, printed_n, attack),
        "max_gap": _share("--max-gap", max_gap),
    }
    least = None if min_robust is None else _share("--min-robust", min_robust)
    radius = _radius(eps) if eps else None
    if seed is not None and seed < 0:
        raise ConfigError(f"--seed: a whole number >= 0, got {seed}.")
    return Asked(judged, least, radius, allowed_plugins(plugin, data))


def _radius(text: str) -> float:
    """Read the one radius of an audit."""
    found = numbers("--eps", [text])
    if len(found) != 1:
        raise ConfigError(
            f"--eps: an audit has one radius, got {text!r}; write a decimal point, as in 0.1."
        )
    return found[0]


def _foreign_model(model: str, options: Mapping[str, object]) -> ForeignSubject:
    from spikeguard.runs.foreign_model import load_foreign_model

    found = load_foreign_model(model, **options)  # type: ignore[arg-type]
    if found.preflight is not None:
        note(str(found.preflight))
    note("the surrogate of the training is unknown: check S22 does not run")
    return found


def _audit_images(
    found: ForeignSubject,
    ball: tuple[str | None, float | None],
    limit: int | None,
    attack: str | None,
    tune: bool,
    budget: Budget,
    judged: _Judged,
    check: bool,
    *,
    seed: int = 0,
    trained_with: Mapping[str, Surrogate] | None = None,
    checkpoint: str = "best",
) -> tuple[Verdict, Path]:
    """Audit a foreign model, or a run on other images than its own."""
    from spikeguard.attacks.threat_names import threat_of
    from spikeguard.auditing.auditor import audit as audited
    from spikeguard.config.schema import EvaluateSection
    from spikeguard.evaluation.identity import identity_of
    from spikeguard.runs.run import attack_to_audit
    from spikeguard.runs.stored_evaluations import stored_evaluations
    from spikeguard.runs.tuned_settings import FOLDER, choose_attack
    from spikeguard.storage.run_folder import ATTACKS, AUDIT

    norm, eps = ball
    threat = threat_of(norm or "linf", max(EvaluateSection().eps) if eps is None else eps)
    stored = stored_evaluations(
        found.path / ATTACKS,
        threat,
        checkpoint=checkpoint,
        model=found.model,
        images=found.data.test,
    )
    named, how = attack_to_audit(attack, found.model, threat, found.plugins), None
    with progress("audit") as update:
        if tune:
            named, how = choose_attack(
                *(named, found.model, found.data.validation("--tune")),
                folder=found.path / ATTACKS / FOLDER,
                seed=seed,
                check=check,
                progress=update,
            )
        verdict = audited(
            found.model,
            found.data.test,
            threat=threat,
            budget=budget,
            seed=seed,
            limit=limit,
            attack=named,
            tuned=how,
            trained_with=trained_with,
            stored=stored,
            **judged,
            check=check,
            out=(found.path / AUDIT).with_suffix(""),
            progress=update,
        )
    identity = identity_of(found.model, found.data.test)
    verdict.save(found.path / AUDIT, identity=identity, checkpoint=checkpoint)
    return verdict, found.path / AUDIT


def _claim(
    printed: float | None, protocol: str | None, n: int | None, attack: str | None
) -> Claim | None:
    from spikeguard.auditing.numbers import Claim

    if printed is None:
        if protocol is not None or n is not None:
            raise ConfigError("--protocol and --printed-n describe --printed, which is missing.")
        return None
    if attack is not None:
        raise ConfigError("--printed and --attack both name the printed number; give one.")
    return Claim.from_text(printed, protocol or "", n)


def _share(option: str, percentage: float) -> float:
    if not 0 <= percentage <= 100:
        raise ConfigError(f"{option}: a number in [0, 100], got {percentage:g}.")
    return percentage / 100


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
