"""The checks of the forward pass, of the gradient inside a spiking network, and of records."""

from __future__ import annotations

from spikeguard.auditing.checks.binarisation import active_test
from spikeguard.auditing.check import Check
from spikeguard.auditing.checks.gradient_flow import (every_step_has_a_gradient, gradient_keeps_its_size, living_layers)
from spikeguard.auditing.checks.draws import enough_draws
from spikeguard.auditing.checks.forward_pass import (no_backward_inside, no_loop_inside, whole_graph)
from spikeguard.auditing.checks.logits import (distinct_logits, enough_classes, rates_can_move, unbounded_logits)
from spikeguard.auditing.checks.gradient_paths import (coder_gradient, no_detached_path)
from spikeguard.auditing.checks.records import (counted_on_the_model, finite_under_attack, settings_are_accounted_for, surrogate_is_the_trained_one, valid_events)
from spikeguard.auditing.checks.rival_attacks import (black_box_is_weaker, far_with_every_surrogate, rules_are_weaker, twin_is_weaker)
from spikeguard.auditing.checks.smoothness import (ascent, finite_differences, stable_predictions)
from spikeguard.auditing.checks.network_state import (attack_ignores_the_batch, same_number_of_steps, starts_at_rest)

__all__ = ["FURTHER"]

FURTHER: dict[str, Check] = {
    "S2": Check(starts_at_rest, cost=1),
    "S3": Check(same_number_of_steps, cost=22),
    "G16": Check(whole_graph, cost=1),
    "G20": Check(unbounded_logits, cost=0.4),
    "G21": Check(no_backward_inside, cost=0.1),
    "G22": Check(no_loop_inside, cost=0.1),
    "G17": Check(stable_predictions, cost=34),
    "G18": Check(finite_differences, cost=23),
    "S17": Check(ascent, cost=5),
    "S6": Check(every_step_has_a_gradient, cost=1),
    "S7": Check(living_layers, cost=0.4),
    "S8": Check(gradient_keeps_its_size, cost=1),
    "S9": Check(distinct_logits, cost=21),
    "S10": Check(rates_can_move, cost=0.4),
    "S12": Check(no_detached_path, cost=51),
    "S13": Check(coder_gradient, cost=11),
    "S11": Check(enough_draws, cost=240),
    "S20": Check(attack_ignores_the_batch, cost=8),
    "S5": Check(rules_are_weaker, cost=480),
    "S14": Check(twin_is_weaker, cost=570, quick=False),
    "S15": Check(black_box_is_weaker, cost=670),
    "S16": Check(far_with_every_surrogate, cost=80, quick=False),
    "G26": Check(active_test, cost=600, quick=False),
    "S19": Check(valid_events, cost=0),
    "S21": Check(settings_are_accounted_for, cost=0),
    "S22": Check(surrogate_is_the_trained_one, cost=0),
    # These look at every attack that the others made.
    "G23": Check(enough_classes, cost=0),
    "G24": Check(counted_on_the_model, cost=10),
    "S18": Check(finite_under_attack, cost=30),
}
