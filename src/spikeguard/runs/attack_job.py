"""AttackJob: one attack of a model whose result is stored in a folder, from its settings to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from spikeguard.config.attack_lines import is_line, line_eot
from spikeguard.config.builder import build_suite, require_images
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import NO_PLUGINS, Plugins
from spikeguard.config.schema import EvaluateSection
from spikeguard.runs.result_names import attack_name, checkpoint_tag, line_text
from spikeguard.runs.stored_attack import card_of, load_result
from spikeguard.runs.tuned_settings import FOLDER, load_or_tune
from spikeguard.storage.run_folder import ATTACKS

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.attacks.base import Attack
    from spikeguard.attacks.tuning import Tuned
    from spikeguard.data.images import Splits
    from spikeguard.data.own import EvaluationImages
    from spikeguard.evaluation.options import EvaluationOptions
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.system.progress import ProgressCallback

__all__ = ["AttackJob", "ReadyJob", "planned"]

Announce = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class AttackJob:
    """A suite or an attack at one radius, and where its result is stored.

    Attributes:
        model: The classifier.
        data: Its test images are attacked.
        suite: Name of an attack suite, an attack line, or ``package.module:Attack``.
        plan: The settings; those that depend on the model are filled in.
        seed: Names the random streams, unless the plan has a seed of its own.
        folder: Holds the results of this model only.
        stem: Path of the result without a suffix.
        attacks: The attacks that suit the model, by name.
        left_out: Names of the others.
        asked_to_tune: Whether the settings of gradients were to be chosen.
        identity: Digests of weights, network and images, and the code version.
    """

    model: nn.Module
    data: Splits | EvaluationImages
    suite: str
    plan: EvaluateSection
    seed: int
    folder: Path
    stem: Path
    attacks: dict[str, Attack]
    left_out: tuple[str, ...]
    asked_to_tune: bool
    identity: Mapping[str, str]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        data: Splits | EvaluationImages,
        suite: str,
        *,
        eps: float,
        plan: EvaluateSection,
        seed: int,
        folder: Path,
        plugins: Plugins = NO_PLUGINS,
    ) -> Self:
        """Check the arguments, which are those of ``evaluate_once``, and build the attacks.

        Raises:
            ValueError: If one is rejected.
        """
        from spikeguard.evaluation.identity import identity_of

        require_images(plan.limit, data)
        asked = plan.tune
        plan, attacks, left_out = planned(model, data, suite, eps, plan, plugins)
        stem = folder / attack_name(suite, eps, plan, plugins)
        identity = identity_of(model, data.test, plan.limit)
        return cls(
            model, data, suite, plan, seed, folder, stem, attacks, left_out, bool(asked), identity
        )

    @property
    def run_folder(self) -> Path:
        """The folder that is locked while the attack runs."""
        return self.folder.parent if self.folder.name == ATTACKS else self.folder

    @property
    def is_stored(self) -> bool:
        """Whether the result is there."""
        return card_of(self.stem).exists()

    @property
    def cascade(self) -> bool:
        """Whether the attacks run as a cascade."""
        from spikeguard.attacks.suite_definitions import CASCADES

        return self.suite in CASCADES if self.plan.cascade is None else self.plan.cascade

    def load(self, announce: Announce | None = None) -> Evaluation:
        """Load the result; reject one that was made with anything else than would be used now."""
        seed = self.seed if self.plan.seed is None else self.plan.seed
        wanted = [self.cascade, self.plan.precision, seed]
        return load_result(self.stem, self.attacks, wanted, self.identity, announce)

    def prepare(
        self,
        *,
        jobs: int = 1,
        check: bool = True,
        progress: ProgressCallback | None = None,
        announce: Announce | None = None,
    ) -> ReadyJob:
        """Announce the cost, and choose the settings of gradients where that is asked for.

        Args:
            jobs: Number of processes that share the images, for the cost.
            check: Whether to check the model before settings are chosen.
            progress: Callback ``(done, total, what)``, or None.
            announce: Called with lines of text, or None.
        """
        from spikeguard.attacks.tuning import adjusted, describe_tuned, tuned_to_json
        from spikeguard.evaluation.options import EvaluationOptions

        plan, attacks = self.plan, self.attacks
        if announce is not None:
            self._announce(announce, jobs)
        chosen: dict[str, Tuned] = {}
        if plan.tune:
            chosen = load_or_tune(
                *(self.model, self.data.validation("--tune"), attacks),
                folder=self.folder / FOLDER,
                seed=self.seed,
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
            seed=self.seed if plan.seed is None else plan.seed,
            limit=plan.limit,
            batch_size=plan.batch_size,
            draws=plan.draws,
            out=self.stem,
            cascade=self.cascade,
            precision=plan.precision,
        )
        return ReadyJob(self, attacks, options, chosen)

    def _announce(self, announce: Announce, jobs: int) -> None:
        from spikeguard.evaluation.cost_estimate import estimate

        plan = self.plan
        if self.left_out:
            announce(
                "left out, the network has no layers of the kind they need: "
                f"{', '.join(self.left_out)}"
            )
        if self.asked_to_tune and not plan.tune:
            announce(f"suite {self.suite} has no setting to choose for this network")
        cost = estimate(
            *(self.model, self.data.test, self.attacks),
            limit=plan.limit,
            batch_size=plan.batch_size,
            draws=plan.draws,
            jobs=jobs,
        )
        announce(str(cost))


@dataclass(frozen=True, eq=False)
class ReadyJob:
    """A job whose attacks and options are settled.

    Attributes:
        job: The job.
        attacks: The attacks that run, by name.
        options: The options of the evaluation; ``out`` is the result's stem.
        chosen: The settings of gradients that were chosen.
    """

    job: AttackJob
    attacks: dict[str, Attack]
    options: EvaluationOptions
    chosen: dict[str, Tuned]

    def finish(self, *, check: bool = True, progress: ProgressCallback | None = None) -> Evaluation:
        """Run the shards that are not stored, store the result and return it.

        Args:
            check: Whether to check the model before a new evaluation.
            progress: Callback ``(done, total, what)``, or None.
        """
        from spikeguard.attacks.tuning import tuned_to_json
        from spikeguard.evaluation.evaluator import evaluate

        job, plan, suite = self.job, self.job.plan, self.job.suite
        result = evaluate(
            *(job.model, job.data.test, self.attacks),
            **vars(self.options),
            check=check,
            progress=progress,
        )
        what = {"suite": "", "attack": line_text(suite)} if is_line(suite) else {"suite": suite}
        card = {"eot": plan.eot, "limit": plan.limit, "checkpoint": plan.checkpoint}
        tuned = {"tuned": tuned_to_json(self.chosen)} if self.chosen else {}
        result.save(job.stem, **what, **card, **tuned, identity=job.identity)
        return result


def planned(
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
    if not attacks:
        raise ConfigError(
            f"attack: {suite} does not fit this model: it needs spiking layers, for some gradients "
            "with a known recurrence, logits that are spike counts, or noise with a known mean; "
            "choose an attack with the model's own gradient, such as --suite papers."
        )
    return plan.changed(tune=plan.tune and bool(tunable(attacks))), attacks, left_out
