"""Evaluation of a model: clean accuracy, accuracy under every attack, per-sample worst case."""

from __future__ import annotations

from spikeguard.evaluation.cost_estimate import estimate
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.rescoring import rescore
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.statistics import Score, wilson

__all__ = ["Evaluation", "EvaluationOptions", "Score", "estimate", "evaluate", "rescore", "wilson"]
