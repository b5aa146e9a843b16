"""Does the gradient follow every path that the signal takes? Checks S12, S13."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP, EoT, Gradient
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.attack_variants import with_gradient
from spikeguard.auditing.measurements.layer_gradients import layer_gradients, watched
from spikeguard.auditing.tolerances import LUCK, percent
from spikeguard.encoders.coding import Poisson
from spikeguard.evaluation.estimates import Estimate
from spikeguard.models.snn import SNN
from spikeguard.neurons.base import Neuron

__all__ = ["WithReset", "coder_gradient", "no_detached_path"]

_SAMPLES = 32
_DRAWS = {"full": 32, "quick": 16}
_COSINE = 0.5


def no_detached_path(context: Context) -> CheckOutcome:
    """No part of the network is cut off from the gradient.

    Every layer's output must have a gradient; a layer without one precedes a detach or a no_grad,
    or its output is unused. If neurons detach their reset, the reported attack runs again with the
    gradient of the reset, which must not make it clearly stronger.

    Source: SpikeGuard's own; Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420), for paths
    without a gradient.
    """
    index = torch.arange(min(_SAMPLES, len(context)))
    with watched(context.model) as outputs:
        grads = layer_gradients(context, index, outputs)
    if not grads:
        return does_not_apply("the model has no layers with weights or spikes")
    cut = [name for name, grad in grads.items() if grad is None]
    detached = [
        n for n, m in context.model.named_modules() if isinstance(m, Neuron) and m.detach_reset
    ]
    evidence: dict[str, object] = {"cut": cut, "detach_reset": detached, "layers": len(grads)}
    measured = f"{len(cut)} of {len(grads)} layers without a gradient"
    failed: bool | None = bool(cut)
    fault = f"no gradient reaches {', '.join(cut[:3])}: a path is detached there"
    if detached and not cut:
        without = context.attacked(context.reference())
        with_it = context.attacked(with_gradient(context, WithReset()))
        own, whole = without.accuracy, with_it.accuracy
        gap = context.gap(without.right, with_it.right)
        failed = gap.above(LUCK)
        evidence |= {"own": own, "with_reset": whole}
        measured += (
            f"; {len(detached)} detach their reset: the attack leaves {percent(own)}, with the "
            f"reset's gradient {percent(whole)}, lower by {gap}, n = {len(context)}"
        )
        fault = (
            f"the detached reset hides the gradient: the attack leaves {percent(own)} without it, "
            f"{percent(whole)} with it"
        )
    return judged(
        failed=failed,
        measured=measured,
        threshold="every layer has a gradient, and that of the reset lowers accuracy by at most "
        f"{percent(LUCK)}",
        sound="the gradient follows every path of the signal",
        fault=fault,
        remedy="let the gradient through (detach_reset=False in the attacker's copy), or give the "
        "part a straight-through gradient (BPDA)",
        evidence=evidence,
    )


@dataclass(frozen=True)
class WithReset:
    """Differentiate through the reset of every spiking layer, even if the layer detaches it.

    Args:
        inner: The gradient to compute.
    """

    inner: Gradient = BACKPROP

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        neurons = [m for m in model.modules() if isinstance(m, Neuron)]
        before = [n.detach_reset for n in neurons]
        try:
            for neuron in neurons:
                neuron.detach_reset = False
            return self.inner(model, x, y, loss)
        finally:
            for neuron, flag in zip(neurons, before, strict=True):
                neuron.detach_reset = flag


def coder_gradient(context: Context) -> CheckOutcome:
    """The straight-through gradient of a Poisson encoder agrees with the gradient of the rate.

    For each sample the straight-through gradient, averaged over many draws, is compared with the
    gradient of the same network when its encoder outputs the rate at every step, without noise.

    Source: SpikeGuard's own.
    """
    network = next((m for m in context.model.modules() if isinstance(m, SNN)), None)
    coder = None if network is None else network.encoder
    if network is None or not isinstance(coder, Poisson):
        return does_not_apply("the model has no Poisson encoder")
    draws, parts = context.pick(full=_DRAWS["full"], quick=_DRAWS["quick"]), []
    for index in context.batches():
        with context.searching(index) as (x, y):
            _, drawn = EoT(draws)(context.model, x, y, cross_entropy)
            try:
                network.encoder = _Rate(coder.signed)
                _, analytic = BACKPROP(context.model, x, y, cross_entropy)
            finally:
                network.encoder = coder
        parts.append(torch.cosine_similarity(drawn.flatten(1), analytic.flatten(1), dim=1).cpu())
    cosine = torch.cat(parts)
    mean = Estimate.mean(cosine, context.looks)
    agrees = mean.above(_COSINE)
    return judged(
        failed=None if agrees is None else not agrees,
        measured=f"cosine of the mean of {draws} draws with the rate's gradient: {mean.value:.2f} "
        f"[{mean.low:.2f}, {mean.high:.2f}] in the mean of {len(cosine)}",
        threshold=f"above {_COSINE:g}",
        sound="averaged over draws, the encoder's gradient is that of the rate",
        fault=f"the encoder's gradient, averaged over {draws} draws, differs from that of the rate "
        f"(cosine {mean.value:.2f}): noise or a wrong straight-through pass misleads the attack",
        remedy="average over more draws, check the encoder's backward pass, and attack the network "
        "with direct encoding as well (BPDA)",
        evidence={"mean": mean.value, "draws": draws, "lowest": float(cosine.min())},
    )


class _Rate(nn.Module):
    """An encoder that outputs the firing rate of a Poisson encoder at every step."""

    constant = True
    normalised = False

    def __init__(self, signed: bool):
        super().__init__()
        self.signed = signed

    def forward(self, x: Tensor, T: int) -> Tensor:
        rate = 2 * x - 1 if self.signed else x
        return rate.expand(T, *x.shape)
