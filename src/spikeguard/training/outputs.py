"""require_outputs(): a network with fewer outputs than classes is rejected before the training."""

from __future__ import annotations

import torch
from torch import nn

from spikeguard.attacks.model_access import evaluating, require_logits
from spikeguard.data.images import Splits
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.rng import randomness, stream, torch_seeded

__all__ = ["require_outputs"]


def require_outputs(model: nn.Module, data: Splits, seed: int) -> None:
    """Reject a model with fewer outputs than there are classes among the labels.

    It is shown two training images in evaluation mode; its mode, its statistics and the random
    streams of the training stay as they are.

    Args:
        model: A classifier of these images.
        data: Training and validation images, and their labels.
        seed: Names the random stream of a noisy model.

    Raises:
        ValueError: If it does not return logits [B, K], or a label is K or larger.
    """
    highest = max(int(part.labels.max()) for part in (data.train, data.val) if part is not None)
    x, _ = data.train.batch(slice(2))
    device = next((weight.device for weight in model.parameters()), x.device)
    seeded = torch_seeded(seed, "outputs", device=device)
    noise = randomness(model, stream(seed, "outputs", device=device))
    with evaluating(model), seeded, noise, torch.no_grad():
        logits = model(in_dtype_of(model, x.to(device)))
    require_logits(logits, len(x), highest, "train")
