"""Two orthogonal directions of a loss landscape: along the gradient, and a random one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spikeguard.attacks.threat import L2, Threat
from spikeguard.neurons.modes import spiking_layers
from spikeguard.rng import SampleStreams, stream

__all__ = [
    "ascent",
    "filter_normalised",
    "length",
    "orthogonal",
    "orthogonal_weights",
    "scaled_to",
    "weights_of",
]

Weights = dict[str, Tensor]
_UNIT = L2(1.0)


def ascent(threat: Threat, grad: Tensor) -> Tensor:
    """Return the direction of a gradient, of norm 1 in the norm of the threat set.

    Args:
        threat: Linf gives sign(g), the step of FGSM; every other norm gives g / ||g||.
        grad: Gradients [B, ...].

    Returns:
        Directions [B, ...]; 0 for an image whose gradient is 0.
    """
    if threat.norm == "linf":
        return grad.sign()
    return _scaled(threat, _UNIT.steepest(grad))


def orthogonal(threat: Threat, direction: Tensor, streams: SampleStreams) -> Tensor:
    """Return random directions orthogonal to given ones, of norm 1 in the norm of the threat set.

    Under Linf they are signs as ``direction`` is: on its non-zero pixels, as many agree with it as
    disagree (one of an odd number is 0), so that the product is exactly 0; other pixels have random
    signs. Under every other norm they are normal noise after one step of Gram-Schmidt.

    Args:
        threat: The threat set.
        direction: Directions [B, ...] from :func:`ascent`.
        streams: Random numbers of the images.
    """
    flat = direction.flatten(1)
    if threat.norm == "linf":
        draw = streams.uniform(flat.shape, device=flat.device)
        used = flat != 0
        count = used.sum(1, keepdim=True)
        rank = torch.where(used, draw, 2.0).argsort(1).argsort(1)  # unused pixels come last
        half = count // 2
        agree = (rank < half).to(flat.dtype) - ((rank >= half) & (rank < 2 * half)).to(flat.dtype)
        free = torch.where(draw < 0.5, -1.0, 1.0).to(flat.dtype)
        return torch.where(used, agree * flat, free).view_as(direction)
    noise = streams.normal(flat.shape, device=flat.device).double()
    unit = _UNIT.steepest(flat.double())
    noise -= (noise * unit).sum(1, keepdim=True) * unit
    return _scaled(threat, noise.to(flat.dtype).view_as(direction))


def _scaled(threat: Threat, direction: Tensor) -> Tensor:
    size = threat.distance(direction, torch.zeros_like(direction))
    return direction / torch.where(size > 0, size, 1).view(-1, *[1] * (direction.ndim - 1))


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a weight landscape by name: those of two or more dimensions.

    These are the weights of convolutions and linear layers. Biases, normalisation and the
    parameters of spiking layers are left out.
    """
    own = {id(p) for n in spiking_layers(model).values() for p in _parameters(n)}
    return {
        name: p
        for name, p in model.named_parameters()
        if p.ndim >= 2 and p.is_floating_point() and id(p) not in own
    }


def _parameters(layer: object) -> list[nn.Parameter]:
    return list(layer.parameters()) if isinstance(layer, nn.Module) else []


def length(weights: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of all weights together."""
    return float(sum(w.detach().double().square().sum() for w in weights.values()) ** 0.5)


def scaled_to(direction: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Weights:
    """Return a direction whose Euclidean norm is that of the weights; 0 stays 0."""
    size = length(direction)
    factor = length(weights) / size if size > 0 else 0.0
    return {name: d * factor for name, d in direction.items()}


def filter_normalised(direction: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Weights:
    r"""Return a direction whose filters have the norms of the weights' filters.

    .. math:: d_f \leftarrow \frac{\lVert w_f \rVert}{\lVert d_f \rVert}\, d_f

    A filter is a row of the first axis: the weights of one output channel or neuron. A filter of
    zeros stays 0.

    Source: Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018
        (arXiv:1712.09913).
    """
    found = {}
    for name, d in direction.items():
        own, size = _norms(weights[name]), _norms(d)
        found[name] = d * torch.where(size > 0, own / size.clamp_min(1e-300), 0)
    return found


def orthogonal_weights(direction: Mapping[str, Tensor], seed: int, *, by_filter: bool) -> Weights:
    """Return normal noise orthogonal to a direction in the space of weights.

    Args:
        direction: Tensors by name; float64.
        seed: Seed of the noise.
        by_filter: Orthogonal in every filter, so that filter normalisation keeps it orthogonal;
            else as a whole.
    """
    draw = stream(seed, "analysis", "weight-landscape")
    noise = {
        name: torch.randn(d.shape, generator=draw, dtype=torch.float64).to(d.device)
        for name, d in direction.items()
    }
    if not by_filter:
        size = length(direction)
        dot = sum(float((noise[name] * d).sum()) for name, d in direction.items())
        share = dot / size**2 if size > 0 else 0.0
        return {name: noise[name] - share * d for name, d in direction.items()}
    found = {}
    for name, d in direction.items():
        dots = (noise[name] * d).flatten(1).sum(1).view(-1, *[1] * (d.ndim - 1))
        found[name] = noise[name] - dots * d / _norms(d).square().clamp_min(1e-300)
    return found


def _norms(weight: Tensor) -> Tensor:
    """Return the norm of every filter [filters, 1, ...], in float64."""
    norms: Tensor = weight.detach().double().flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (weight.ndim - 1))
