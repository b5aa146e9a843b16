"""The registry of the audit: every check by question and code, in the order they run."""

from __future__ import annotations

from dataclasses import replace

from spikeguard.auditing.check import Check
from spikeguard.auditing.checks.alternative_losses import (
    other_losses_find_no_more,
    targets_find_no_more,
)
from spikeguard.auditing.checks.batch_invariance import batch_invariance
from spikeguard.auditing.checks.binarisation import active_test
from spikeguard.auditing.checks.convergence import (
    loss_has_settled,
    more_restarts_change_nothing,
    more_steps_change_nothing,
    step_size_is_right,
    success_is_kept,
)
from spikeguard.auditing.checks.forward_pass import no_backward_inside, no_loop_inside, whole_graph
from spikeguard.auditing.checks.gradient_flow import (
    every_step_has_a_gradient,
    gradient_keeps_its_size,
    no_dead_layers,
)
from spikeguard.auditing.checks.gradient_paths import coder_gradient, no_detached_path
from spikeguard.auditing.checks.input_gradient import zero_gradient
from spikeguard.auditing.checks.logits import (
    distinct_logits,
    enough_classes,
    rates_can_move,
    unbounded_logits,
)
from spikeguard.auditing.checks.network_state import (
    attack_ignores_the_batch,
    same_number_of_steps,
    starts_at_rest,
)
from spikeguard.auditing.checks.radii import (
    accuracy_falls_with_eps,
    eps_half_gives_chance,
    unbounded_attack_succeeds,
)
from spikeguard.auditing.checks.rival_attacks import (
    black_box_is_weaker,
    eps_half_gives_chance_for_every_surrogate,
    gradients_beat_queries,
    rules_are_weaker,
    twin_is_weaker,
)
from spikeguard.auditing.checks.scoring import (
    clean_errors_stay,
    counted_on_the_model,
    each_sample_has_its_worst,
    scores_can_be_repeated,
)
from spikeguard.auditing.checks.settings import (
    nothing_was_tuned_on_the_test,
    settings_are_accounted_for,
    surrogate_is_the_trained_one,
)
from spikeguard.auditing.checks.smoothness import ascent, finite_differences, stable_predictions
from spikeguard.auditing.checks.stochasticity import determinism, enough_draws
from spikeguard.auditing.checks.strength import iterative_beats_single_step, noise_is_weaker
from spikeguard.auditing.checks.surrogate_sweep import surrogate_sweep
from spikeguard.auditing.checks.transfer import breaks_the_undefended, transfer_is_weaker
from spikeguard.auditing.checks.validity import (
    finite_under_attack,
    model_is_untouched,
    valid_events,
    valid_numbers,
)

__all__ = ["CHECKS", "NOT_ON_EVENTS", "QUESTIONS"]

_TABLE = {
    "Is the network a fixed, differentiable function?": {
        "S1": Check(batch_invariance, cost=3),
        "S2": Check(starts_at_rest, cost=1),
        "S3": Check(same_number_of_steps, cost=22),
        "G19": Check(determinism, cost=2),
        "G16": Check(whole_graph, cost=1),
        "G20": Check(unbounded_logits, cost=0.4),
        "G21": Check(no_backward_inside, cost=0.1),
        "G22": Check(no_loop_inside, cost=0.1),
        "S9": Check(distinct_logits, cost=21),
        "S10": Check(rates_can_move, cost=0.4),
    },
    "Is its input gradient present and right?": {
        "G15": Check(zero_gradient, cost=2, wide=True),
        "G17": Check(stable_predictions, cost=34),
        "G18": Check(finite_differences, cost=23),
        "S17": Check(ascent, cost=5),
        "S6": Check(every_step_has_a_gradient, cost=1, wide=True),
        "S7": Check(no_dead_layers, cost=0.4),
        "S8": Check(gradient_keeps_its_size, cost=1),
        "S12": Check(no_detached_path, cost=51),
        "S13": Check(coder_gradient, cost=33),
    },
    "Does the search have enough steps, restarts, losses and draws?": {
        "G1": Check(iterative_beats_single_step, cost=21),
        "G4": Check(noise_is_weaker, cost=4),
        "G8": Check(more_steps_change_nothing, cost=40),
        "G9": Check(more_restarts_change_nothing, cost=600),
        "G10": Check(loss_has_settled, cost=50),
        "G11": Check(success_is_kept, cost=0),
        "G12": Check(step_size_is_right, cost=80, quick=False),
        "G13": Check(other_losses_find_no_more, cost=60, quick=False),
        "G14": Check(targets_find_no_more, cost=400, quick=False),
        "S11": Check(enough_draws, cost=240),
        "S20": Check(attack_ignores_the_batch, cost=20),
    },
    "Do other attacks find more: surrogates, gradient rules, queries, transfer?": {
        "S4": Check(surrogate_sweep, cost=400),
        "S5": Check(rules_are_weaker, cost=480),
        "S14": Check(twin_is_weaker, cost=570, quick=False),
        "S15": Check(black_box_is_weaker, cost=670),
        "G2": Check(gradients_beat_queries, cost=400),
        "G3": Check(transfer_is_weaker, cost=50),
        "G25": Check(breaks_the_undefended, cost=50),
    },
    "Does the attack succeed where it must?": {
        "G5": Check(unbounded_attack_succeeds, cost=10),
        "G6": Check(eps_half_gives_chance, cost=10),
        "G7": Check(accuracy_falls_with_eps, cost=40),
        "S16": Check(eps_half_gives_chance_for_every_surrogate, cost=80, quick=False),
        "G26": Check(active_test, cost=600, quick=False),
    },
    "Are the settings accounted for, and can the scores be repeated?": {
        "S21": Check(settings_are_accounted_for, cost=0),
        "S22": Check(surrogate_is_the_trained_one, cost=0),
        "G32": Check(nothing_was_tuned_on_the_test, cost=0),
        "G28": Check(scores_can_be_repeated, cost=1),
        "G29": Check(model_is_untouched, cost=1),
    },
    "Are inputs and scores valid?": {  # These come last, since they read every attack made above.
        "S19": Check(valid_events, cost=0),
        "G23": Check(enough_classes, cost=0),
        "G24": Check(counted_on_the_model, cost=10),
        "S18": Check(finite_under_attack, cost=30),
        "G27": Check(valid_numbers, cost=2),
        "G30": Check(each_sample_has_its_worst, cost=0),
        "G31": Check(clean_errors_stay, cost=0),
    },
}

QUESTIONS: dict[str, tuple[str, ...]] = {
    question: tuple(checks) for question, checks in _TABLE.items()
}
CHECKS: dict[str, Check] = {
    code: replace(check, code=code) for checks in _TABLE.values() for code, check in checks.items()
}

_SCALED = "a budget of events has no multiples that reach every input, as the radius of a ball has"
_BETWEEN = "the points between event grids are no inputs"
NOT_ON_EVENTS: dict[str, str] = {
    **dict.fromkeys(("G5", "G6", "G7", "S16", "G26"), _SCALED),
    **dict.fromkeys(("G17", "S17"), _BETWEEN),
    "G1": "one step on events is the optimum of the linear loss, which further steps only leave",
    "G14": "the targeted search is APGD, which is on images",
}
"""Why a check does not apply to a threat set on events, by the check's code."""
