"""The suites "events" and "events-papers": attacks on event frames, by the kind of threat set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import Gradient, SwapSurrogate
from spikeguard.attacks.gradients.spiking_rules import HART, RGA
from spikeguard.attacks.listed_suites import LISTED
from spikeguard.attacks.losses import margin
from spikeguard.attacks.searches.events.greedy import EventGreedy
from spikeguard.attacks.searches.events.raw_events import RawEvents
from spikeguard.attacks.searches.events.retiming import SpikeRetiming
from spikeguard.attacks.searches.events.sda import SDA
from spikeguard.attacks.searches.events.spike_compatible import SpikeCompatible
from spikeguard.attacks.searches.events.spikefool import SpikeFool
from spikeguard.attacks.searches.noise import UniformNoise
from spikeguard.attacks.searches.pgd import FGSM, PGD
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.threat import Threat
from spikeguard.neurons.surrogate import Surrogate, Triangular

__all__ = ["event_search", "events", "events_papers", "likeliest"]

_FRAMES = "tgo-table5"
_RESTARTS = 5
_PUBLISHED: dict[str, Callable[..., Attack]] = {
    "spike-compatible": SpikeCompatible,
    "sda": SDA,
    "raw-events": RawEvents,
    "spikefool": SpikeFool,
}
_WIDE = 40  # candidates of SDA added in a step, four times its default


def event_search(threat: Threat, steps: int, gradient: Gradient) -> Attack:
    """Return one search on events with a gradient: what APGD is on images.

    Args:
        threat: A threat set on events.
        steps: Gradient steps; a greedy search has as many as its budget.
        gradient: How the loss is differentiated.
    """
    kind = threat.norm.partition(" ")[0]
    if kind == "retiming":
        return SpikeRetiming(threat, steps=steps, gradient=gradient)
    if kind == "counts":
        return EventGreedy(threat, gradient=gradient)
    return SpikeCompatible(threat, steps=steps, gradient=gradient)


def likeliest(threat: Threat, gradient: Gradient) -> RawEvents:
    """Return the attack on raw events without draws: only the grid of the likeliest changes.

    It takes as many gradients as the default settings, in four times as many smaller steps.
    """
    return RawEvents(threat, steps=200, samples=1, step_size=0.2, gradient=gradient)


class _Settings(Protocol):
    @property
    def threat(self) -> Threat: ...
    @property
    def eot(self) -> int: ...
    @property
    def widths(self) -> Sequence[float]: ...
    def gradient(self, surrogate: Surrogate | None = None) -> Gradient: ...
    def averaged(self, inner: Gradient) -> Gradient: ...
    def mean_field(
        self, name: str, search: Callable[..., Attack], **options: Any
    ) -> dict[str, Attack]: ...
    def swept(self, steps: int) -> dict[str, Attack]: ...


def events_papers(plan: _Settings) -> dict[str, Attack]:
    """The published attacks on events, against noise also in the mean field.

    Under Linf, L2 and L1 those of TGO's Table 5 on frames.
    """
    threat, own = plan.threat, plan.gradient()
    kind = threat.norm.partition(" ")[0]
    if kind in ("flips", "edits"):
        found: dict[str, Attack] = {}
        for name, search in _PUBLISHED.items():
            found[name] = search(threat, gradient=own)
            found |= plan.mean_field(name, search)
        name = "raw-events/likeliest"
        return {**found, name: likeliest(threat, own)} | plan.mean_field(name, likeliest)
    if kind == "retiming":
        return {"retiming": SpikeRetiming(threat, gradient=own)}
    if kind == "counts":
        return {"fgsm": FGSM(threat, gradient=own), "greedy": EventGreedy(threat, gradient=own)}
    return LISTED[_FRAMES](plan)


def events(plan: _Settings) -> dict[str, Attack]:
    """Noise, the attacks of "events-papers", and the searches with gradients for spiking networks.

    A cascade for the worst case.
    """
    threat, own = plan.threat, plan.gradient()
    kind = threat.norm.partition(" ")[0]
    rules: dict[str, Gradient] = {
        **{f"width{w:g}": SwapSurrogate(Triangular(w)) for w in plan.widths},
        "rga": RGA(),
        "hart": HART(0.5),
        "assg": ASSG(),
    }

    def every(name: str, search: Callable[..., Attack], **options: Any) -> dict[str, Attack]:
        """Return a search with the own gradient, the mean field, and each rule."""
        found: dict[str, Attack] = {name: search(threat, gradient=own, **options)}
        found |= plan.mean_field(name, search, **options)
        for rule, inner in rules.items():
            found[f"{name}/{rule}"] = search(threat, gradient=plan.averaged(inner), **options)
        return found

    first: dict[str, Attack] = {"noise": UniformNoise(threat)}
    if kind in ("linf", "l2", "l1"):
        sharp = SAPGD(threat, gradient=plan.averaged(ASSG()))
        return {**first, **LISTED[_FRAMES](plan), **plan.swept(20), "sapgd/assg": sharp}
    first["fgsm"] = FGSM(threat, gradient=own)
    first["pgd40"] = PGD(threat, steps=40, gradient=own)
    if kind == "retiming":
        found = every("retiming", SpikeRetiming)
        found["retiming/restarts"] = SpikeRetiming(
            threat, restarts=_RESTARTS, loss=margin, gradient=own
        )
        return first | found
    found = every("greedy", EventGreedy)
    if kind == "counts":
        return first | found
    last: dict[str, Attack] = {}
    for name in ("rga", "assg"):
        last[f"raw-events/{name}"] = RawEvents(threat, gradient=plan.averaged(rules[name]))
        last[f"sda/{name}"] = SDA(threat, gradient=plan.averaged(rules[name]))
    last["sda/wide"] = SDA(threat, growth=_WIDE, gradient=own)
    assg = SpikeCompatible(threat, gradient=plan.averaged(ASSG()))
    return first | found | {"spike-compatible/assg": assg} | events_papers(plan) | last
