"""Variants: one way to run a network each, and the three pieces of work that are measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import frozen
from spikeguard.benchmarking.peers import FLOOR, PEERS, Unavailable, floor, peer
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.models.snn import SNN

__all__ = ["OURS", "WORKS", "Variant", "default_variant", "known_variants", "ready", "variant"]

OURS = "spikeguard/"  # followed by the kernel
_OTHER_DEVICES = {"cpu": {"triton"}, "cuda": {"cpu"}}  # kernels that a device cannot run
_STEP = 2 / 255


@dataclass(frozen=True)
class Variant:
    """A network with the way to run it.

    Args:
        name: "spikeguard/KERNEL", a peer's name, or "floor".
        model: A classifier with the weights of all other variants.
    """

    name: str
    model: nn.Module

    @property
    def kernel(self) -> str | None:
        """The SpikeGuard kernel it runs with; None for a peer and the floor."""
        return self.name.removeprefix(OURS) if self.name.startswith(OURS) else None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Use the variant's kernel inside the block."""
        with ExitStack() as stack:
            if self.kernel is not None:
                stack.enter_context(use_kernel(self.kernel))
            yield


def known_variants(*, slow: bool = False, device: str = "cpu") -> list[str]:
    """Return the names of all variants: each SpikeGuard kernel for a device, each peer, the floor.

    Args:
        slow: Include the reference kernel, which exists for tests and is not fast.
        device: "cpu" or "cuda".
    """
    left_out = _OTHER_DEVICES[device] | (set() if slow else {"reference"})
    return [*(OURS + name for name in KERNELS if name not in left_out), *PEERS, FLOOR]


def default_variant() -> str:
    """Return the name of the variant with the default kernel."""
    return OURS + ("cpu" if "cpu" in KERNELS and why_not("cpu") is None else "multistep")


def variant(name: str, model: SNN, *, channels_last: bool = False) -> Variant:
    """Build a variant of a network; the network itself is not changed.

    Args:
        name: One of ``known_variants(slow=True)``.
        model: Network whose weights all variants share, and whose device.
        channels_last: Store the weights of convolutions in that memory format.

    Raises:
        Unavailable: If its kernel or library is not available.
    """
    if name.startswith(OURS):
        reason = why_not(name.removeprefix(OURS))
        if reason is not None:
            raise Unavailable(f"{name} is not available: {reason}")
        made: nn.Module = copy.deepcopy(model)
    else:
        made = floor(model) if name == FLOOR else peer(name, model)
        made = made.to(next(model.parameters()).device)
    if channels_last:
        made = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Variant(name, made)


@contextmanager
def ready(work: str, variant: Variant, x: Tensor, y: Tensor) -> Iterator[Callable[[], Tensor]]:
    """Prepare a piece of work and yield a function that runs it once.

    Args:
        work: "train": forward, cross-entropy, backward, an SGD step. "pgd": input gradient with
            weights frozen, and one step. "eval": forward without gradients.
        variant: The variant that runs it.
        x: Images [B, C, H, W] in [0, 1].
        y: Labels [B].

    Raises:
        ValueError: If the work is unknown.
    """
    if work not in WORKS:
        raise ValueError(f"bench: unknown work {work!r}; known: {', '.join(WORKS)}.")
    with variant.running(), WORKS[work](variant, x, y) as run:
        yield run


@contextmanager
def _train(variant: Variant, x: Tensor, y: Tensor) -> Iterator[Callable[[], Tensor]]:
    model = variant.model.train().requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def run() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    yield run


@contextmanager
def _pgd(variant: Variant, x: Tensor, y: Tensor) -> Iterator[Callable[[], Tensor]]:
    model = variant.model.eval()

    def step(grad: Tensor) -> Tensor:
        return (x + _STEP * grad.sign()).clamp_(0, 1)

    if variant.kernel is not None:
        with frozen(model):
            yield lambda: step(BACKPROP(model, x, y, cross_entropy)[1])
        return

    def run() -> Tensor:
        image = x.detach().requires_grad_()
        loss = functional.cross_entropy(model(image), y, reduction="sum")
        return step(torch.autograd.grad(loss, image)[0])

    try:
        model.requires_grad_(False)
        yield run
    finally:
        model.requires_grad_(True)


@contextmanager
def _eval(variant: Variant, x: Tensor, y: Tensor) -> Iterator[Callable[[], Tensor]]:
    model = variant.model.eval()

    def run() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(x)
        return logits

    yield run


WORKS = {"train": _train, "pgd": _pgd, "eval": _eval}
