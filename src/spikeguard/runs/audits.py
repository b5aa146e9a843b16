"""audit_once(): judge a model together with the results of its folder, and store the verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from spikeguard.config.attack_lines import build_attack
from spikeguard.config.builder import build_suite, require_images
from spikeguard.config.plugins import Plugins, is_reference
from spikeguard.config.schema import EvaluateSection
from spikeguard.runs.attack_results import checkpoint_tag
from spikeguard.runs.stored_evaluations import stored_evaluations
from spikeguard.runs.tuned_settings import FOLDER, choose_attack
from spikeguard.storage.folder_lock import locked
from spikeguard.storage.run_folder import ATTACKS, AUDIT

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spikeguard.attacks.base import Attack
    from spikeguard.attacks.threat import Threat
    from spikeguard.auditing.findings import Verdict
    from spikeguard.auditing.numbers import Claim
    from spikeguard.auditing.subject import Budget
    from spikeguard.data.images import Splits
    from spikeguard.data.own import EvaluationImages
    from spikeguard.neurons.surrogate import Surrogate
    from spikeguard.system.progress import ProgressCallback

__all__ = ["How", "audit_once", "named_attack"]


class How(TypedDict, total=False):
    """How a model is judged, and which number; every entry as for ``Run.audit``."""

    budget: Budget
    limit: int | None
    attack: str | None
    tune: bool
    seed: int | None
    printed: Claim | None
    max_gap: float | None
    check: bool


def audit_once(
    folder: Path,
    model: nn.Module,
    data: Splits | EvaluationImages,
    threat: Threat,
    *,
    plan: EvaluateSection,
    own_seed: int,
    plugins: Plugins,
    rescore: Callable[[Tensor, Tensor], Tensor] | None = None,
    trained_with: Mapping[str, Surrogate] | None = None,
    progress: ProgressCallback | None = None,
    **how: Unpack[How],
) -> Verdict:
    """Audit a model and store the verdict in ``audit.json``; a killed audit continues.

    The bound includes the results in ``attacks/`` at the audited radius, and a short converging
    search if none of them has one.

    Args:
        folder: Folder of the results of this model on these images.
        model: The classifier.
        data: Its test images, and the validation images if a setting is chosen on them.
        threat: The set the adversary may use.
        plan: Names the checkpoint of the model.
        own_seed: Seed of the model; a setting that is chosen on validation images is chosen with
            it, whatever the seed of the audit.
        plugins: Packages from which the attack may be imported.
        rescore: Scores inputs in a fresh process, or None.
        trained_with: The surrogate of each spiking layer during training, if it is known.
        progress: Callback ``(done, total, what)``, or None.
        **how: As for ``Run.audit``.

    Raises:
        FolderLocked: If another process writes to the folder.
        ValueError: If ``limit`` is larger than the number of test images, the attack is unknown or
            does not fit the model, or a stored result is of other weights or images.
    """
    from spikeguard.auditing.auditor import audit
    from spikeguard.auditing.numbers import MAX_GAP
    from spikeguard.evaluation.identity import identity_of

    limit, seed, max_gap = how.get("limit"), how.get("seed"), how.get("max_gap")
    check = how.get("check", True)
    require_images(limit, data, "--limit")
    with locked(folder):
        images = data.test
        stored = stored_evaluations(
            folder / ATTACKS, threat, checkpoint=plan.checkpoint, model=model, images=images
        )
        named, chosen = _attack_to_audit(how.get("attack"), model, threat, plugins), None
        if how.get("tune"):
            named, chosen = choose_attack(
                *(named, model, data.validation("--tune")),
                folder=folder / ATTACKS / FOLDER,
                seed=own_seed,
                mark=checkpoint_tag(plan),
                check=check,
                progress=progress,
            )
        verdict = audit(
            model,
            images,
            threat=threat,
            budget=how.get("budget", "full"),
            seed=own_seed if seed is None else seed,
            limit=limit,
            attack=named,
            tuned=chosen,
            rescore=rescore,
            trained_with=trained_with,
            printed=how.get("printed"),
            max_gap=MAX_GAP if max_gap is None else max_gap,
            stored=stored,
            check=check,
            out=(folder / AUDIT).with_suffix(""),
            progress=progress,
        )
        identity = identity_of(model, images)
        verdict.save(folder / AUDIT, identity=identity, checkpoint=plan.checkpoint)
        return verdict


def _attack_to_audit(
    name: str | None, model: nn.Module, threat: Threat, plugins: Plugins
) -> Attack | None:
    """Return the attack of the printed number, averaged over draws for a noisy model."""
    from spikeguard.attacks.model_access import DEFAULT_EOT, is_stochastic
    from spikeguard.auditing.auditor import require_suitable

    if name is None:
        return None
    attack = named_attack(name, threat, plugins, DEFAULT_EOT if is_stochastic(model) else 1)
    require_suitable(name, attack, model)
    return attack


def named_attack(name: str, threat: Threat, plugins: Plugins, eot: int = 1) -> Attack:
    """Return the attack of a name in a suite, an attack line, or ``package.module:Attack``.

    Args:
        name: The name.
        threat: The set the adversary may use.
        plugins: Packages from which the attack may be imported.
        eot: Gradients averaged in every attack step.
    """
    from spikeguard.attacks.threat_names import norm_of

    build = build_suite if is_reference(name) else build_attack
    found = build(
        name, eps=threat.eps, norm=norm_of(threat), eot=eot, where="--attack", plugins=plugins
    )
    return next(iter(found.values()))
