"""The backward pass of a network's neurons, stated in a file's metadata: NIR itself has none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypedDict

from torch import nn

from spikeguard.export.refusals import ExportError
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.surrogate import SURROGATES, Surrogate

__all__ = ["Backward", "backward_of", "gradient_facts"]


class Backward(TypedDict, total=False):
    """Options of a neuron that only its backward pass uses."""

    surrogate: Surrogate
    detach_reset: bool


def gradient_facts(network: nn.Module) -> dict[str, str]:
    """Return the surrogate as a fact, if all neurons have the same of the package's own."""
    names = {kind: name for name, kind in SURROGATES.items()}
    found = [(n.surrogate, n.detach_reset) for n in network.modules() if isinstance(n, Neuron)]
    if not found or any(each != found[0] for each in found):
        return {}
    surrogate, detach_reset = found[0]
    if type(surrogate) not in names:
        return {}
    stated = {"name": names[type(surrogate)], **vars(surrogate), "detach_reset": detach_reset}
    return {"backward": json.dumps(stated)}


def backward_of(stated: Mapping[str, Any]) -> Backward:
    """Return the options that :func:`gradient_facts` stated; none where it did not.

    Raises:
        ExportError: If the metadata is damaged.
    """
    text = stated.get("backward")
    if text is None:
        return {}
    try:
        found = json.loads(text)
        detach_reset = bool(found.pop("detach_reset"))
        return {"surrogate": SURROGATES[found.pop("name")](**found), "detach_reset": detach_reset}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ExportError(f"NIR: damaged metadata 'backward': {text!r}.") from error
