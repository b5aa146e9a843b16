"""The commands that repeat what a report shows: training, attacks and audit of each network."""

from __future__ import annotations

from spikeguard.attacks.suite_definitions import CASCADES
from spikeguard.config.schema import EvaluateSection
from spikeguard.reporting import formatting
from spikeguard.reporting.readers.attack_results import AttackResult
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.sections.verdict_cards import command
from spikeguard.reporting.standings import used_results

__all__ = ["commands_of"]


def commands_of(network: Network) -> list[tuple[str, str]]:
    """Return the commands of a network: training as recorded; attacks and audit, to repeat them."""
    recorded = network.environment.get("command")
    commands = [("trained by", str(recorded))] if recorded else []
    commands += [
        (f"attacks {result.title}{_first(network, result)}", _attack(network, result))
        for result in used_results(network)
    ]
    if network.audited is not None:
        commands.append(("audit", command("audit", network)))
    return commands


def _first(network: Network, result: AttackResult) -> str:
    """Return the change to the recipe without which the command attacks another checkpoint."""
    if network.checkpoint in (None, result.checkpoint):
        return ""
    return f", with evaluate.checkpoint: {result.checkpoint} in recipe.yaml"


def _attack(network: Network, result: AttackResult) -> str:
    suite = "snn-cascade" if result.before else result.suite
    options = ["--suite", suite] if suite else []
    options += ["--attack", result.line] if result.line else []
    options += formatting.threat_options(result.norm, result.eps)
    options += ["--limit", str(result.limit)] if result.limit is not None else []
    options += ["--eot", str(result.eot)] if result.eot > 1 or result.stochastic else []
    plan = EvaluateSection() if network.recipe is None else network.recipe.evaluate
    if result.cascade != (result.suite in CASCADES if plan.cascade is None else plan.cascade):
        options.append("--cascade" if result.cascade else "--no-cascade")
    options += ["--precision", result.precision] if result.precision != plan.precision else []
    own = 0 if network.recipe is None else network.recipe.seed
    options += ["--seed", str(result.seed)] if result.seed != own else []
    if bool(result.tuned) != plan.tune:
        options.append("--tune" if result.tuned else "--no-tune")
    return command("attack", network, *options)
