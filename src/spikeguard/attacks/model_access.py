"""Access to a model under attack: frozen weights, checked inputs and logits, seeded noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError
from spikeguard.encoders.input_space import PIXELS, InputSpace, space_of
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.neurons.modes import under_attack
from spikeguard.rng import Randomness, SampleStreams, randomness
from spikeguard.system.swapping import restored, swapped

__all__ = [
    "DEFAULT_DRAWS",
    "DEFAULT_EOT",
    "evaluating",
    "frozen",
    "crafting",
    "draws_under_attack",
    "observe_passes",
    "classify",
    "is_stochastic",
    "require_finite_weights",
]

DEFAULT_EOT = 4  # gradients averaged in every step against a stochastic model
DEFAULT_DRAWS = 10  # noise draws on which an input of a stochastic model is scored


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode inside the block; restore every module's training flag afterwards."""
    with restored(model.modules(), "training"):
        model.eval()
        yield


def is_stochastic(model: nn.Module) -> bool:
    """Whether two calls in evaluation mode can differ: a module has a true ``stochastic``."""
    with evaluating(model):
        return any(getattr(module, "stochastic", False) for module in model.modules())


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode, no parameter gradients and neurons "under attack" inside the block.

    The flags of every module and parameter are restored afterwards.
    """
    constant = swapped(model.parameters(), "requires_grad", False)
    with constant, evaluating(model), under_attack(model):
        yield


def draws_under_attack(model: nn.Module) -> bool:
    """Whether two calls inside an attack can differ: noise of the test alone does not count."""
    with frozen(model):
        return is_stochastic(model)


@contextmanager
def crafting(
    model: nn.Module, x: Tensor, y: Tensor, generator: Randomness | None
) -> Iterator[SampleStreams]:
    """Prepare an attack: check the input, freeze the model, seed the model's noise per sample.

    Args:
        model: The classifier under attack.
        x: Inputs [B, ...], floating point, in the ``space_of`` the model: [0, 1] for images.
        y: Labels [B], integers.
        generator: A generator or SampleStreams; None is a fixed stream.

    Yields:
        The streams for the attack's random numbers, one for each sample.

    Raises:
        ValueError: If x is not floating point in that space or holds NaN, or y is not int64
            [B] >= 0.
        AttackError: If a parameter or buffer holds NaN.
    """
    require_inputs(x, y, space_of(model))
    require_finite_weights(model)
    streams = SampleStreams.of(generator, len(x))
    with frozen(model), randomness(model, streams.fork("noise")), torch.no_grad():
        yield streams.fork("search")


Listener = Callable[[int, bool], None]


_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def observe_passes(listener: Listener) -> Iterator[None]:
    """Call ``listener(samples, gradient)`` after every pass of a model inside the block.

    Blocks may be nested: the listeners of all of them are called.
    """
    outer = _LISTENER.get()

    def both(samples: int, gradient: bool) -> None:
        listener(samples, gradient)
        if outer is not None:
            outer(samples, gradient)

    before = _LISTENER.set(both)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def require_logits(logits: Tensor, n: int, highest: int, where: str) -> None:
    """Reject outputs that are no logits [B, K] of n inputs with a class for every label.

    Args:
        logits: The output of a model.
        n: Number of inputs.
        highest: The largest label.
        where: What asks, for the message.

    Raises:
        ValueError: If they are not.
    """
    if logits.ndim != 2 or len(logits) != n or logits.shape[1] < 2:
        raise ValueError(
            f"{where}: the model must return logits [B, K], K >= 2, for {n} inputs, got "
            f"{list(logits.shape)}."
        )
    if highest >= logits.shape[1]:
        raise ValueError(
            f"{where}: labels go up to {highest}, but the model has {logits.shape[1]} classes."
        )


def classify(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the logits [B, K] of one forward pass on images in the type of the model's weights.

    Raises:
        ValueError: If the logits have another shape, a label exceeds the number of classes, or the
            model writes to its argument.
        AttackError: If the logits are not finite.
    """
    shown = in_dtype_of(model, x)
    version = None if shown.is_inference() else shown._version
    logits: Tensor = model(shown)
    if version is not None and shown._version != version:
        raise ValueError(
            "attack: the model writes to its argument, so every call changes the images; write "
            "x = x.clone() at the start of forward, or adapt it with spikeguard.foreign."
        )
    require_logits(logits, len(x), int(y.max()), "attack")
    if not bool(torch.isfinite(logits).all()):
        raise AttackError("attack: the model's logits are not finite; check its weights first.")
    listener = _LISTENER.get()
    if listener is not None:
        listener(len(x), torch.is_grad_enabled())
    return logits


def require_finite_weights(model: nn.Module) -> None:
    """Reject NaN in parameters or buffers.

    A NaN potential never crosses the threshold, so the layer emits no spike and the logits stay
    finite.

    Raises:
        AttackError: Naming the first parameter or buffer that holds NaN.
    """
    named = [*model.named_parameters(), *model.named_buffers()]
    named = [(name, weight) for name, weight in named if weight.is_floating_point()]
    if not named:
        return
    broken = torch.stack([weight.detach().isnan().any() for _, weight in named])
    if bool(broken.any()):
        name = named[int(broken.int().argmax())][0]
        raise AttackError(f"attack: {name} holds NaN; the model cannot be attacked or scored.")


def require_inputs(x: Tensor, y: Tensor, space: InputSpace = PIXELS) -> None:
    """Reject inputs outside the space of the model and labels that are not int64 [B] >= 0."""
    space.check(x, "attack")
    if y.shape != x.shape[:1] or y.dtype != torch.int64:
        one_hot = y.ndim == 2 and y.shape[1] > 1
        remedy = "y.argmax(1)" if one_hot else "y.flatten().long()" if y.ndim > 1 else "y.long()"
        raise ValueError(
            f"attack: labels are int64 [{len(x)}], got {y.dtype} {list(y.shape)}; use {remedy}."
        )
    if int(y.min()) < 0:
        raise ValueError(f"attack: labels start at 0, got {int(y.min())}.")
