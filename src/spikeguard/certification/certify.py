"""Certify images: votes of a noisy network, the radius that they prove, and attacks beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import EoT
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import classify, evaluating
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.threat import THREATS, require_ball_in_box
from spikeguard.certification.bounds import (
    Certificate,
    GaussianCertificate,
    RateCertificate,
    clopper_pearson,
    least_draws,
    outvotes,
)
from spikeguard.certification.result import Radius
from spikeguard.encoders.coding import Poisson
from spikeguard.encoders.input_space import PIXELS, space_of
from spikeguard.encoders.rsc import RSC
from spikeguard.models.noisy_input import NoisyInput
from spikeguard.models.snn import SNN
from spikeguard.rng import SampleStreams, key, randomness

__all__ = ["ATTACK_DRAWS", "ATTACK_STEPS", "Sampling", "attacked", "certified", "smoothing_of"]

ATTACK_STEPS = 40  # of the search against a smoothed classifier
ATTACK_DRAWS = 8  # noise draws that each of its gradients averages over
_MOST = 1 << 24  # draws of one image


@dataclass(frozen=True)
class Sampling:
    """How often an image is shown.

    Args:
        n0: Draws that choose the class, >= 1.
        n: Further draws that bound its probability, >= n0.
        alpha: Probability, in (0, 1), that the certificate of an image is wrong, at most.
        seed: Names the random numbers, >= 0.

    Raises:
        ValueError: If a number is out of range, or n draws cannot certify anything at this alpha.
    """

    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n0 < 1:
            raise ValueError(f"certify: n0 is a number of draws >= 1, got {self.n0}.")
        if not self.n0 <= self.n < _MOST:
            raise ValueError(
                f"certify: n is a number of draws from n0 ({self.n0}) to {_MOST - 1}, got {self.n}."
            )
        if not 0 < self.alpha < 1:
            raise ValueError(f"certify: alpha is a probability in (0, 1), got {self.alpha:g}.")
        if self.n < least_draws(self.alpha):
            raise ValueError(
                f"certify: with n = {self.n} draws nothing can be certified at alpha "
                f"{self.alpha:g}; write n = {least_draws(self.alpha)} or more."
            )
        if self.seed < 0:
            raise ValueError(f"certify: seed is a whole number >= 0, got {self.seed}.")


def smoothing_of(model: nn.Module, sigma: float | None) -> Certificate:
    """Return the certificate of a network: for noise in front of it, or for its own coding.

    Args:
        model: The network.
        sigma: Deviation of Gaussian noise in front of it, in input units, > 0; None takes the
            noise of its coding, rate (Poisson) or RSC. This needs the ``SNN`` itself, or
            ``NoisyInput`` around it: another module may change the image before the coding.

    Raises:
        ValueError: If sigma is not above 0, the network takes no images, no noise is known, or
            sigma is None and the SNN is inside another module.
    """
    if space_of(model) != PIXELS:
        raise ValueError(
            f"certify: takes networks of images in [0, 1]; this one takes {space_of(model)}."
        )
    if sigma is not None:
        if not 0 < sigma < float("inf"):
            raise ValueError(f"certify: sigma is a standard deviation > 0, got {sigma:g}.")
        return GaussianCertificate(sigma)
    network = model.network if isinstance(model, NoisyInput) else model
    if type(network) is not SNN:
        inside = any(isinstance(module, SNN) for module in network.modules())
        raise ValueError(
            "certify: the noise of a coding is known for an SNN alone; this network is a "
            f"{type(network).__name__}{' around one' if inside else ''}. Write the deviation of "
            "noise in front of it, such as sigma 0.25."
        )
    encoder = network.encoder
    if type(encoder) is Poisson:
        pixels = torch.Size(network.in_shape).numel()
        return RateCertificate(network.T, pixels, encoder.signed)
    if type(encoder) is RSC and encoder.stochastic:
        return GaussianCertificate(encoder.sigma, copies=network.T, own=True)
    raise ValueError(
        f"certify: the coding of this network ({type(encoder).__name__}) draws no noise to smooth "
        "over; write the deviation of noise in front of it, such as sigma 0.25."
    )


@torch.no_grad()
def certified(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    certificate: Certificate,
    sampling: Sampling,
    *,
    batch_size: int = 500,
) -> list[Radius]:
    """Return the certificate of every image (Cohen et al. 2019, CERTIFY).

    Each image and draw has its own random stream, so that the result depends neither on the batch
    size nor on the other images.

    Args:
        model: The base network; it is run in evaluation mode, with the noise of its neurons.
        x: Images [B, ...] in [0, 1], on the device of the network.
        y: Labels [B].
        index: Place of each image in its set [B], which names its random streams.
        certificate: See :func:`smoothing_of`.
        sampling: Numbers of draws, alpha and seed.
        batch_size: Noisy images that are shown at once.
    """
    network, seed = NoisyInput(model, certificate.sigma), sampling.seed
    first = _votes(network, x, index, sampling.n0, key(seed, "certify", "class"), batch_size)
    then = _votes(network, x, index, sampling.n, key(seed, "certify", "bound"), batch_size)
    predicted = first.argmax(1)
    counts = then.gather(1, predicted[:, None])[:, 0]
    found = []
    for place, label, guess, count in zip(index, y, predicted, counts, strict=True):
        p = clopper_pearson(int(count), sampling.n, sampling.alpha)
        sure = certificate.radius(p)
        found.append(Radius(int(place), int(label), int(guess), int(count), p, sure))
    return found


def attacked(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    certificate: Certificate,
    sampling: Sampling,
    *,
    radius: float,
    batch_size: int = 500,
) -> list[bool]:
    """Attack the smoothed classifier; return for each image whether it then returns a wrong class.

    The search is APGD on the cross-entropy, with gradients averaged over the noise of the
    certificate (EoT). Its result is judged by fresh votes: another class than the label must win by
    the test of Cohen et al. (PREDICT), which errs with a probability of at most alpha.

    Args:
        model: The base network.
        x: Images [B, ...] in [0, 1], on the device of the network.
        y: Labels [B], there too.
        index: Place of each image in its set [B].
        certificate: See :func:`smoothing_of`.
        sampling: Numbers of draws, alpha and seed.
        radius: Radius of the threat set, in the norm of the certificate.
        batch_size: Noisy images that are shown at once.

    Raises:
        ValueError: If the ball is larger than the box of all images.
    """
    threat = THREATS[certificate.norm](radius)
    require_ball_in_box(threat, x)
    network = NoisyInput(model, certificate.sigma)
    search = APGD(threat, steps=ATTACK_STEPS, loss=cross_entropy, gradient=EoT(ATTACK_DRAWS))
    name = ("certify", "attack", repr(float(radius)))
    x_adv = search(network, x, y, generator=SampleStreams(key(sampling.seed, *name), index))
    threat.check(x_adv, x)
    with torch.no_grad():
        seed = key(sampling.seed, *name, "votes")
        counts = _votes(network, x_adv, index, sampling.n, seed, batch_size)
    (most, second), classes = counts.topk(2).values.T.tolist(), counts.argmax(1)
    return [
        bool(winner != label) and outvotes(int(a), int(b), sampling.alpha)
        for winner, label, a, b in zip(classes, y, most, second, strict=True)
    ]


def _votes(
    network: nn.Module, x: Tensor, index: Tensor, draws: int, seed: int, batch_size: int
) -> Tensor:
    """Return how often each class was predicted [B, K] in some noise draws of every image."""
    shown = torch.arange(len(x) * draws)
    counts: Tensor | None = None
    with evaluating(network):
        for part in torch.split(shown, batch_size):
            image, draw = part // draws, part % draws
            streams = SampleStreams(seed, index.cpu()[image] * _MOST + draw)
            with randomness(network, streams):
                logits = classify(network, x[image], torch.zeros(len(part), dtype=torch.int64))
            if counts is None:
                counts = torch.zeros(len(x), logits.shape[1], dtype=torch.int64)
            ones = torch.ones(len(part), dtype=torch.int64)
            counts.index_put_((image, logits.argmax(1).cpu()), ones, accumulate=True)
    assert counts is not None
    return counts
