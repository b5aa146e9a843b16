"""What an evaluation was made with: digests of weights, network and images, and the code version.

A stored result is read back only for the same weights, network and images. Another version of the
code is no reason to reject it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from spikeguard.data.images import ImageSet, content
from spikeguard.storage.digests import content_digest, weights_digest, without_addresses
from spikeguard.system.environment import code_version

__all__ = ["identity_difference", "identity_of"]

_WORDS = {
    "weights": "other weights",
    "data": "other images or labels",
    "network": "another network with the same weights",
}


def identity_of(model: nn.Module, images: ImageSet, samples: int | None = None) -> dict[str, str]:
    """Return the identity of an evaluation as plain data.

    Args:
        model: The classifier.
        images: The data.
        samples: Number of samples used, from the first; None is all of them.
    """
    written = without_addresses(repr(model))
    return {
        "weights": weights_digest(model.state_dict()),
        "network": content_digest(written.encode(), repr(getattr(model, "T", None)).encode()),
        "data": content_digest(*content(images, samples)),
        "code": code_version(),
    }


def identity_difference(stored: Mapping[str, Any], now: Mapping[str, str]) -> str | None:
    """Return in words how two identities differ, or None.

    The text of a network may differ between versions of the code, so it counts within one version.
    """
    names = ["weights", "data"]
    names += ["network"] if stored.get("code") == now["code"] else []
    return next((_WORDS[name] for name in names if stored.get(name) != now[name]), None)
