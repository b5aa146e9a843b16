"""Defences: pieces of a training objective that add to or replace the loss on clean images."""

from __future__ import annotations

from spikeguard.defences.adversarial import AT
from spikeguard.defences.hire import HIRE
from spikeguard.defences.mixup import Mixup
from spikeguard.defences.mpd_sgr import MPDSGR
from spikeguard.defences.mppd import MPPD
from spikeguard.defences.mse import MSERates
from spikeguard.defences.noise import GaussianNoise
from spikeguard.defences.objective import Objective
from spikeguard.defences.piece import Measured, Outcome, Pass, Piece, Step, Vanilla
from spikeguard.defences.rat import RAT
from spikeguard.defences.rte import RTE
from spikeguard.defences.smoothed import Smoothed
from spikeguard.defences.smoothing import LabelSmoothing
from spikeguard.defences.sr import SR
from spikeguard.defences.stog import GatePrior
from spikeguard.defences.tgo import TGO
from spikeguard.defences.trades import TRADES

__all__ = [
    "AT",
    "DEFENCES",
    "GatePrior",
    "GaussianNoise",
    "HIRE",
    "LabelSmoothing",
    "MPDSGR",
    "MPPD",
    "MSERates",
    "Measured",
    "Mixup",
    "Objective",
    "Outcome",
    "Pass",
    "Piece",
    "RAT",
    "RTE",
    "SR",
    "Smoothed",
    "Step",
    "TGO",
    "TRADES",
    "Vanilla",
]

DEFENCES: dict[str, type[Piece]] = {
    "vanilla": Vanilla,
    "at": AT,
    "gaussian": GaussianNoise,
    "tgo": TGO,
    "rat": RAT,
    "sr": SR,
    "mpd_sgr": MPDSGR,
    "mppd": MPPD,
    "mixup": Mixup,
    "trades": TRADES,
    "rte": RTE,
    "smoothed": Smoothed,
    "stog": GatePrior,
    "hire": HIRE,
    "mse_rates": MSERates,
    "label_smoothing": LabelSmoothing,
}
