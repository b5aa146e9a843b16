"""Verdicts of the audit on networks whose true robustness is known, one line each.

    python benchmarks/audit_shows.py [--full] [RUN:EPS ...]

Without runs: the three reference networks that independent code trained, if they are on this
machine, with the default attack and, for two of them, with the PGD-10 of their publication. A run
is a folder of ``spikeguard train``. It is audited as trained, with its surrogate narrowed to a
half-width of 0.02 (``RUN:EPS:narrow``), or behind a saturating input (``RUN:EPS:saturated``).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from peers.networks import EPS, FOLDER, load
from spikeguard.attacks import PGD, Linf
from spikeguard.auditing import Verdict
from spikeguard.auditing.auditor import audit
from spikeguard.neurons import Triangular, spiking_layers
from spikeguard.runs.run import Run


class Saturated(nn.Module):
    """A steep sigmoid before the model: in float32 its slope is zero for most pixels."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the images after the sigmoid [B, K]."""
        logits: Tensor = self.model(torch.sigmoid(400 * (x - 0.5)))
        return logits


def narrowed(model: nn.Module, width: float = 0.02) -> nn.Module:
    """Replace the surrogate of every layer by a narrow one, which inflates the accuracy."""
    for layer in spiking_layers(model).values():
        layer.surrogate = Triangular(width)
    return model


def reference(name: str, *, reported: bool, full: bool) -> Verdict:
    """Audit a reference network with its published PGD-10, or with APGD."""
    model, record = load(name)
    threat = Linf(EPS)
    attack = PGD(threat, steps=10, step_size=EPS / 4) if reported else None
    budget = "full" if full else "quick"
    return audit(model, (record["x"], record["y"]), threat=threat, budget=budget, attack=attack)


def trained(spec: str, *, full: bool) -> Verdict:
    """Audit a run, as it is or with a planted fault."""
    path, eps, *fault = spec.split(":")
    run = Run.load(path)
    change = {"narrow": narrowed, "saturated": Saturated}
    model = change[fault[0]](run.model) if fault else run.model
    budget = "full" if full else "quick"
    surrogates = None if fault == ["saturated"] else run.surrogates
    threat = Linf(float(eps))
    return audit(model.eval(), run.data.test, threat=threat, budget=budget, trained_with=surrogates)


def main(arguments: list[str]) -> None:
    """Print a verdict for each network."""
    full = "--full" in arguments
    runs = [each for each in arguments if each != "--full"]
    wanted = {spec: (lambda spec=spec: trained(spec, full=full)) for spec in runs}
    if not runs and FOLDER.is_dir():
        for name, reported in (("masked", 0), ("natural", 1), ("adversarial", 1)):
            what = f"{name}, {'PGD-10' if reported else 'default attack'}"
            wanted[what] = lambda n=name, r=reported: reference(n, reported=bool(r), full=full)
    for what, make in wanted.items():
        start = time.process_time()
        verdict = make()
        print(f"{what} ({time.process_time() - start:.0f} s CPU)\n  {verdict.sentence}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1:])
