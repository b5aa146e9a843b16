"""Display names of attacks, gradients, losses and searches: one table for all of the report."""

from __future__ import annotations

import re

__all__ = ["DISPLAY_NAMES", "attack", "search"]

DISPLAY_NAMES = {
    # searches
    "clean": "Clean",
    "noise": "Uniform noise",
    "fgsm": "FGSM",
    "rfgsm": "R+FGSM",
    "pgd": "PGD",
    "mifgsm": "MI-FGSM",
    "mtpgd": "MTPGD",
    "sapgd": "SA-PGD",
    "apgd": "APGD",
    "apgd-ce": "APGD-CE",
    "apgd-dlr": "APGD-DLR",
    "apgd-margin": "APGD-margin",
    "apgd-t": "APGD-T",
    "fab": "FAB",
    "fab-t": "FAB-T",
    "square": "Square",
    "snn": "Converging search",
    "l1": "APGD-L1",
    "climb": "Hill climbing",
    "greedy": "Greedy",
    "spike-compatible": "Spike-compatible",
    "sda": "SDA",
    "spikefool": "SpikeFool",
    "raw-events": "Raw events",
    "retiming": "Retiming",
    "worst_case": "Worst case",
    # gradients
    "own": "own surrogate",
    "assg": "ASSG",
    "assg-cut": "ASSG without time",
    "assg-leak": "ASSG without reset",
    "bptr": "BPTR",
    "rga": "RGA",
    "hart": "HART",
    "pdsg": "PDSG",
    "nes": "NES",
    "ann-twin": "ANN twin",
    "membrane": "membrane readout",
    "mean-field": "mean field",
    "eot": "EoT",
    # losses
    "ce": "cross-entropy",
    "dlr": "DLR",
    "margin": "margin",
}


def attack(name: str) -> str:
    """Write an attack's name: "pgd40/width0.5" becomes "PGD-40, width 0.5".

    What follows the first space, such as " + all cheaper of demo", is not changed.
    """
    plain, space, mark = name.partition(" ")
    return ", ".join(map(_part, plain.split("/"))) + space + mark


def search(name: str) -> str:
    """Write the name of a search of a portfolio; a known one begins with a capital."""
    written = attack(name)
    return written if written == name else written[:1].upper() + written[1:]


def _part(name: str) -> str:
    """Write one part of a name; unknown ones, such as those of plug-ins, stay as they are."""
    if name in DISPLAY_NAMES:
        return DISPLAY_NAMES[name]
    width = re.fullmatch(r"width([\d.]+)", name)
    if width:
        return f"width {width[1]}"
    steps = re.fullmatch(r"(.+?)(\d+)", name)
    if steps and steps[1] in DISPLAY_NAMES:
        return f"{DISPLAY_NAMES[steps[1]]}-{steps[2]}"
    return name
