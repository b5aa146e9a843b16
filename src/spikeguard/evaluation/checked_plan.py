"""checked_plan(): the plan of an evaluation whose model passed the quick check."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.data.images import ImageSet, as_image_set
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.plan import EvaluationPlan, plan_evaluation
from spikeguard.evaluation.shard_store import store_warnings, stored_warnings
from spikeguard.preflight.quick import SAMPLES, quick_check, warn

__all__ = ["checked_plan"]


def checked_plan(
    model: nn.Module,
    data: ImageSet | tuple[Tensor, Tensor],
    attacks: Mapping[str, Attack],
    options: EvaluationOptions,
    *,
    jobs: int = 1,
) -> EvaluationPlan:
    """Check a model, warn of what is suspicious, and return ``plan_evaluation(...)``.

    The folder of finished shards is made after the check and notes it, so that an evaluation that
    continues is not checked again.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``.
        data: An ImageSet or a pair (x, y).
        attacks: ``{name: attack}``, all with the same threat set.
        options: The options of the evaluation.
        jobs: As for ``plan_evaluation``.

    Raises:
        ValueError: If the model fails the check, or as ``plan_evaluation``.
        AttackError: If a weight or a logit is not finite.
    """
    images = as_image_set(data)
    found = None if options.out is None else stored_warnings(options.out)
    new = found is None
    if found is None:
        some = SAMPLES if options.limit is None else min(SAMPLES, options.limit)
        x, y = images.batch(slice(some))
        found = quick_check(model, x, y, attacks.values())
    plan = plan_evaluation(model, images, attacks, options, jobs=jobs)
    if new and plan.store is not None:
        store_warnings(plan.store, found)
    warn(found, stacklevel=3)
    return plan
