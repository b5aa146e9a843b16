"""Attacks on classifiers: frozen dataclasses of a search, a loss, a gradient and a threat set."""

from __future__ import annotations

from spikeguard.attacks.base import FORWARD, Attack, AttackError, NoGradientError, cost, describe
from spikeguard.attacks.event_threats.counts import Counts
from spikeguard.attacks.event_threats.edits import Edits
from spikeguard.attacks.event_threats.flips import Flips
from spikeguard.attacks.event_threats.retiming import Retiming
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import Backprop, EoT, Gradient, SwapSurrogate, gradient_cost
from spikeguard.attacks.gradients.cuda_graph import Graphed
from spikeguard.attacks.gradients.mean_field import MeanField
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout
from spikeguard.attacks.gradients.nes import NES
from spikeguard.attacks.gradients.spiking_rules import BPTR, HART, PDSG, RGA
from spikeguard.attacks.losses import (
    ALL_LOSSES,
    LOSSES,
    Loss,
    cross_entropy,
    dlr,
    margin,
    targeted_dlr,
    targeted_margin,
)
from spikeguard.attacks.model_access import (
    classify,
    crafting,
    evaluating,
    frozen,
    require_finite_weights,
)
from spikeguard.attacks.registry import ATTACKS, GRADIENTS
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.converging import Converging
from spikeguard.attacks.searches.events.greedy import EventGreedy
from spikeguard.attacks.searches.events.raw_events import RawEvents
from spikeguard.attacks.searches.events.retiming import SpikeRetiming
from spikeguard.attacks.searches.events.sda import SDA
from spikeguard.attacks.searches.events.spike_compatible import SpikeCompatible
from spikeguard.attacks.searches.events.spikefool import SpikeFool
from spikeguard.attacks.searches.fab import FAB
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.attacks.searches.mifgsm import MIFGSM
from spikeguard.attacks.searches.mtpgd import MTPGD
from spikeguard.attacks.searches.noise import UniformNoise
from spikeguard.attacks.searches.pgd import FGSM, PGD, RFGSM
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.searches.stepwise import State, Step, Stepwise, Watch
from spikeguard.attacks.suite_definitions import CASCADES, SUITES
from spikeguard.attacks.suites import suitable, suite
from spikeguard.attacks.threat import L1, L2, THREATS, Linf, Threat, ThreatViolation
from spikeguard.attacks.threat_names import EVENT_THREATS, parse_threat, threat_of
from spikeguard.attacks.tuning import CANDIDATES, Tuned, adjusted, tunable, tune

__all__ = [
    "ALL_LOSSES",
    "ANNTwin",
    "APGD",
    "ASSG",
    "ATTACKS",
    "Attack",
    "AttackError",
    "BPTR",
    "Backprop",
    "CANDIDATES",
    "CASCADES",
    "Converging",
    "Counts",
    "EVENT_THREATS",
    "Edits",
    "EoT",
    "EventGreedy",
    "FAB",
    "FGSM",
    "FORWARD",
    "Flips",
    "GRADIENTS",
    "Gradient",
    "Graphed",
    "HART",
    "L1",
    "L2",
    "LOSSES",
    "Linf",
    "LocalClimb",
    "Loss",
    "MIFGSM",
    "MTPGD",
    "MeanField",
    "MembraneReadout",
    "NES",
    "NoGradientError",
    "PDSG",
    "PGD",
    "RFGSM",
    "RGA",
    "RawEvents",
    "Retiming",
    "SAPGD",
    "SDA",
    "SUITES",
    "SpikeCompatible",
    "SpikeFool",
    "SpikeRetiming",
    "Square",
    "State",
    "Step",
    "Stepwise",
    "SwapSurrogate",
    "THREATS",
    "Threat",
    "ThreatViolation",
    "Tuned",
    "UniformNoise",
    "Watch",
    "adjusted",
    "classify",
    "cost",
    "crafting",
    "cross_entropy",
    "describe",
    "dlr",
    "evaluating",
    "frozen",
    "gradient_cost",
    "margin",
    "parse_threat",
    "require_finite_weights",
    "suitable",
    "suite",
    "targeted_dlr",
    "targeted_margin",
    "threat_of",
    "tunable",
    "tune",
]
