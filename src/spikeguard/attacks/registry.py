"""The names of attacks, gradients and losses: ``ATTACKS``, ``GRADIENTS`` and the losses by kind."""

from __future__ import annotations

from collections.abc import Callable

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import Backprop, EoT, Gradient, SwapSurrogate
from spikeguard.attacks.gradients.cuda_graph import Graphed
from spikeguard.attacks.gradients.mean_field import MeanField
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout
from spikeguard.attacks.gradients.nes import NES
from spikeguard.attacks.gradients.spiking_rules import BPTR, HART, PDSG, RGA
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.events.greedy import EventGreedy
from spikeguard.attacks.searches.events.raw_events import RawEvents
from spikeguard.attacks.searches.events.retiming import SpikeRetiming
from spikeguard.attacks.searches.events.sda import SDA
from spikeguard.attacks.searches.events.spike_compatible import SpikeCompatible
from spikeguard.attacks.searches.events.spikefool import SpikeFool
from spikeguard.attacks.searches.fab import FAB
from spikeguard.attacks.searches.mifgsm import MIFGSM
from spikeguard.attacks.searches.mtpgd import MTPGD
from spikeguard.attacks.searches.noise import UniformNoise
from spikeguard.attacks.searches.pgd import FGSM, PGD, RFGSM
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square

__all__ = ["ATTACKS", "GRADIENTS"]

ATTACKS: dict[str, Callable[..., Attack]] = {
    "fgsm": FGSM,
    "rfgsm": RFGSM,
    "pgd": PGD,
    "apgd": APGD,
    "mifgsm": MIFGSM,
    "sapgd": SAPGD,
    "mtpgd": MTPGD,
    "fab": FAB,
    "square": Square,
    "noise": UniformNoise,
    "greedy": EventGreedy,
    "spike-compatible": SpikeCompatible,
    "sda": SDA,
    "spikefool": SpikeFool,
    "raw-events": RawEvents,
    "retiming": SpikeRetiming,
}

GRADIENTS: dict[str, Callable[..., Gradient]] = {
    "backprop": Backprop,
    "swap-surrogate": SwapSurrogate,
    "bptr": BPTR,
    "rga": RGA,
    "hart": HART,
    "assg": ASSG,
    "pdsg": PDSG,
    "ann-twin": ANNTwin,
    "membrane": MembraneReadout,
    "mean-field": MeanField,
    "nes": NES,
    "eot": EoT,
    "graphed": Graphed,
}
