"""Detect the framework that a foreign network is built with."""

from __future__ import annotations

from torch import nn

from spikeguard.models.adapters.frameworks import FRAMEWORKS

__all__ = ["recognised"]


def recognised(model: nn.Module, name: str) -> str:
    """Return the name of the model's framework; ``name`` itself unless it is "auto".

    Raises:
        ValueError: If the name is unknown, the model has no neuron of it, or "auto" finds two
            frameworks, or none and a module with a state to reset.
    """
    used = [key for key, each in FRAMEWORKS.items() if any(map(each.owns, model.modules()))]
    if name != "auto":
        if name not in FRAMEWORKS:
            known = ", ".join(["auto", *FRAMEWORKS])
            raise ValueError(f"foreign: unknown framework {name!r}; known: {known}.")
        if name != "stateless" and name not in used:
            raise ValueError(
                f"foreign: the model has no module of {name}; pass framework='auto' or 'stateless'."
            )
        return name
    stateful = [key for key in used if key != "stateless"]
    if len(stateful) > 1:
        raise ValueError(
            f"foreign: the model mixes {' and '.join(stateful)}; it may use one framework only."
        )
    if stateful:
        return stateful[0]
    for where, module in model.named_modules():
        method = next((m for m in _RESETS if callable(getattr(module, m, None))), None)
        if method is not None:
            raise ValueError(
                f"foreign: {where or 'the model'} ({type(module).__name__}) has {method}() but is "
                "of no known framework; call it at the start of forward and pass "
                "framework='stateless'."
            )
    return "stateless"


_RESETS = ("reset", "reset_states", "reset_state", "reset_mem", "n_reset")
