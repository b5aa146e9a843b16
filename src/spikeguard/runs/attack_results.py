"""Attack results in a folder: each is computed once and loaded from then on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.config.attack_lines import is_line, line_eot
from spikeguard.config.builder import build_suite, require_images
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import NO_PLUGINS, Plugins
from spikeguard.config.schema import EvaluateSection
from spikeguard.runs.result_names import attack_name, checkpoint_tag, line_text
from spikeguard.runs.tuned_settings import FOLDER, load_or_tune, tuned_from_json
from spikeguard.storage.digests import UNVERIFIED
from spikeguard.storage.folder_lock import locked
from spikeguard.storage.run_folder import ATTACKS

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.attacks.base import Attack
    from spikeguard.attacks.tuning import Tuned
    from spikeguard.data.images import Splits
    from spikeguard.data.own import EvaluationImages
    from spikeguard.evaluation.parallel import Reload
    from spikeguard.evaluation.rescoring import Rescored
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.system.progress import ProgressCallback

__all__ = ["attack_name", "checkpoint_tag", "evaluate_once", "require_identity", "rescore_once"]


def evaluate_once(
    model: nn.Module,
    data: Splits | EvaluationImages,
    suite: str,
    *,
    eps: float,
    plan: EvaluateSection,
    seed: int,
    folder: Path,
    jobs: int = 1,
    reload: Reload | None = None,
    plugins: Plugins = NO_PLUGINS,
    check: bool = True,
    progress: ProgressCallback | None = None,
    announce: Callable[[str], None] | None = None,
) -> Evaluation:
    """Attack a model and store the result in a folder, or load it if it is stored.

    An interrupted evaluation continues where it stopped.

    Args:
        model: The classifier.
        data: Its test images are attacked.
        suite: Name of an attack suite, an attack line, or ``package.module:Attack``.
        eps: Radius of the threat set.
        plan: Norm, limit, draws and the other settings of a recipe's evaluate section.
        seed: Names the random streams, unless the plan has a seed of its own.
        folder: Holds the results of this model only.
        jobs: Number of processes of one thread each; 1 runs everything in this process.
        reload: Returns the model and its test images in another process; needed for jobs > 1.
        plugins: Packages from which an attack may be imported.
        check: Whether to check the model before a new evaluation; see ``evaluate``.
        progress: Callback ``(done, total, what)``, or None.
        announce: Called with lines of text: the cost before the attacks start, the attacks left
            out, the settings chosen.

    Raises:
        FolderLocked: If another process writes to the run folder.
        ValueError: If the suite or the radius is rejected, the model fails the check, or a stored
            result is damaged or was made with other settings, weights or images.
    """
    from spikeguard.attacks.suite_definitions import CASCADES
    from spikeguard.attacks.tuning import adjusted, describe_tuned, tuned_to_json
    from spikeguard.evaluation.checked_plan import checked_plan
    from spikeguard.evaluation.cost_estimate import estimate
    from spikeguard.evaluation.evaluator import evaluate
    from spikeguard.evaluation.identity import identity_of
    from spikeguard.evaluation.options import EvaluationOptions
    from spikeguard.evaluation.parallel import run_shards
    from spikeguard.evaluation.plan import plan_evaluation

    if jobs < 1:
        raise ConfigError(f"jobs counts processes, >= 1, got {jobs}.")
    require_images(plan.limit, data)
    asked_to_tune = plan.tune
    plan, attacks, left_out = _planned(model, data, suite, eps, plan, plugins)
    cascade = plan.cascade if plan.cascade is not None else suite in CASCADES
    stem = folder / attack_name(suite, eps, plan, plugins)
    identity = identity_of(model, data.test, plan.limit)
    run = folder.parent if folder.name == ATTACKS else folder
    with locked(run, if_writable=_card(stem).exists()):
        if _card(stem).exists():
            wanted = [cascade, plan.precision, seed]
            return _load_result(stem, attacks, wanted, identity, announce)
        if announce is not None:
            if left_out:
                announce(
                    "left out, the network has no layers of the kind they need: "
                    f"{', '.join(left_out)}"
                )
            if asked_to_tune and not plan.tune:
                announce(f"suite {suite} has no setting to choose for this network")
            cost = estimate(
                model, data.test, attacks, limit=plan.limit, batch_size=plan.batch_size, jobs=jobs
            )
            announce(str(cost))
        chosen: dict[str, Tuned] = {}
        if plan.tune:
            chosen = load_or_tune(
                *(model, data.validation("--tune"), attacks),
                folder=folder / FOLDER,
                seed=seed,
                mark=checkpoint_tag(plan),
                batch_size=plan.batch_size,
                check=check,
                progress=progress,
                announce=announce,
            )
            attacks = adjusted(attacks, {kind: each.gradient for kind, each in chosen.items()})
            if announce is not None:
                announce(describe_tuned(tuned_to_json(chosen)))
        options = EvaluationOptions(
            seed=seed if plan.seed is None else plan.seed,
            limit=plan.limit,
            batch_size=plan.batch_size,
            draws=plan.draws,
            out=stem,
            cascade=cascade,
            precision=plan.precision,
        )
        if jobs > 1 and reload is not None:
            planned = checked_plan if check else plan_evaluation
            shards = planned(model, data.test, attacks, options, jobs=jobs)
            run_shards(shards, reload, attacks, options, jobs, progress)
            progress, check = None, False  # done
        result = evaluate(
            model, data.test, attacks, **vars(options), check=check, progress=progress
        )
        what = {"suite": "", "attack": line_text(suite)} if is_line(suite) else {"suite": suite}
        card = {"eot": plan.eot, "limit": plan.limit, "checkpoint": plan.checkpoint}
        tuned = {"tuned": tuned_to_json(chosen)} if chosen else {}
        result.save(stem, **what, **card, **tuned, identity=identity)
        return result


def rescore_once(
    model: nn.Module,
    data: Splits | EvaluationImages,
    suite: str,
    *,
    eps: float,
    plan: EvaluateSection,
    folder: Path,
    plugins: Plugins = NO_PLUGINS,
) -> Rescored:
    """Score the stored worst-case inputs of a finished attack again; see :func:`evaluate_once`.

    Raises:
        ValueError: If there is no such result, or its files are damaged or of other images.
        ThreatViolation: If an input is outside the threat set.
    """
    from spikeguard.evaluation.rescoring import rescore

    plan, _, _ = _planned(model, data, suite, eps, plan, plugins)
    stem = folder / attack_name(suite, eps, plan, plugins)
    if not _card(stem).exists():
        raise ConfigError(f"{stem}.json: no such result; attack first, without --rescore.")
    return rescore(model, data.test, stem)


def _planned(
    model: nn.Module,
    data: Splits | EvaluationImages,
    suite: str,
    eps: float,
    plan: EvaluateSection,
    plugins: Plugins,
) -> tuple[EvaluateSection, dict[str, Attack], tuple[str, ...]]:
    """Fill in the settings that depend on the model: gradients averaged, whether to tune.

    Returns:
        The plan, the suite's attacks that suit the model, and the names of the attacks left out.
    """
    from spikeguard.attacks.model_access import DEFAULT_EOT, is_stochastic
    from spikeguard.attacks.suitability import require_threats, suitable
    from spikeguard.attacks.threat import require_ball_in_box
    from spikeguard.attacks.tuning import tunable

    stated = line_eot(suite)
    if is_line(suite) and stated is not None:
        plan = plan.changed(eot=stated)
    if plan.eot is None:
        plan = plan.changed(eot=(stated or DEFAULT_EOT) if is_stochastic(model) else 1)
    attacks = build_suite(suite, eps=eps, norm=plan.norm, eot=plan.eot or 1, plugins=plugins)
    require_threats(attacks.values(), model)
    example = data.test.batch(slice(plan.batch_size))[0]
    for attack in attacks.values():
        require_ball_in_box(attack.threat, example)
    attacks, left_out = suitable(attacks, model, example)
    return plan.changed(tune=plan.tune and bool(tunable(attacks))), attacks, left_out


def _card(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.json")


def _load_result(
    stem: Path,
    attacks: Mapping[str, Attack],
    options: list[Any],
    identity: Mapping[str, str],
    announce: Callable[[str], None] | None,
) -> Evaluation:
    """Load a finished result; reject one that was made with anything else than would be used now.

    Args:
        stem: Its path without the suffix.
        attacks: The attacks that would run now.
        options: Whether as a cascade, the precision and the seed.
        identity: Weights, network and images that would be attacked now.
        announce: Called with lines of text.
    """
    from spikeguard.attacks.base import describe
    from spikeguard.attacks.tuning import adjusted, describe_tuned
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.evaluation.search_record import is_of_suite_before

    found, file = Evaluation.load(stem), _card(stem)
    require_identity(found.identity, identity, file, announce)
    card = json.loads(file.read_text(encoding="utf-8"))
    attacks = adjusted(attacks, tuned_from_json(card.get("tuned", {}), stem))
    if card.get("tuned") and announce is not None:
        announce(describe_tuned(card["tuned"]))
    settings = {name: describe(attack) for name, attack in attacks.items()}
    wanted = json.loads(json.dumps([settings, *options]))
    if [found.settings, found.cascade, found.precision, found.seed] != wanted:
        old = 'suite "snn" before it was a converging search, now "snn-cascade"'
        made = (
            f"made with the {old}"
            if is_of_suite_before(card)
            else "made with other attack settings"
        )
        raise ConfigError(f"{file} was {made}; move it away and run again.")
    return found


def require_identity(
    stored: Mapping[str, Any] | None,
    now: Mapping[str, str],
    file: Path,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Reject a result of other weights, images or network; say what cannot be verified.

    Args:
        stored: The identity in the result; None in one of an older version.
        now: The identity of what would be used now, see ``identity_of``.
        file: The result's file.
        announce: Called with a line about a result of another version of the code, or None.

    Raises:
        ConfigError: If they differ.
    """
    from spikeguard.evaluation.identity import identity_difference

    other = None if stored is None else identity_difference(stored, now)
    if other is not None:
        raise ConfigError(f"{file} is of {other}; move it away and run again.")
    if announce is None:
        return
    if stored is None:
        announce(f"{file}{UNVERIFIED}")
    elif stored.get("code") != now["code"]:
        announce(f"{file} was made by SpikeGuard {stored.get('code')}, this is {now['code']}")
