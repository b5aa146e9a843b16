"""quick_check(): a few passes before an evaluation, to measure nothing wrong silently."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, AttackError
from spikeguard.attacks.gradients.base import BACKPROP, Backprop, unwrap
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import (
    frozen,
    is_stochastic,
    require_finite_weights,
    require_inputs,
)
from spikeguard.attacks.searches.converging import Converging
from spikeguard.attacks.searches.portfolio import portfolio
from spikeguard.encoders.input_space import space_of
from spikeguard.neurons.modes import spiking_layers
from spikeguard.preflight.axes import require_axes
from spikeguard.preflight.gradient import beats_its_negative
from spikeguard.preflight.modes import TrainingModeError, evaluation_mode_required
from spikeguard.preflight.padding import padding_recorded
from spikeguard.preflight.repeats import (
    Logits,
    UndeclaredRandomness,
    changes,
    global_generators_kept,
    left_unchanged,
    presented,
    require_independence,
    require_same_again,
    restore,
    show_few,
    state,
)
from spikeguard.preflight.unknown_spikes import OUT_OF_REACH, unknown_spikes
from spikeguard.rng import SampleStreams, key, randomness

__all__ = ["SAMPLES", "PreflightWarning", "quick_check", "warn"]

SAMPLES = 32  # images of the test of the gradient
_REPEATED = 16  # of these, of all other tests
_SKIP = "check=False, or --no-check, measures it all the same."
_WATCHED = 2  # of these, shown while layers are observed


class PreflightWarning(UserWarning):
    """A result may be wrong: a suspicion that the quick check of a model cannot prove."""


def warn(found: Iterable[str], *, stacklevel: int = 2) -> None:
    """Issue what a quick check returned as a ``PreflightWarning`` each."""
    for text in found:
        warnings.warn(text, PreflightWarning, stacklevel=stacklevel + 1)


def quick_check(
    model: nn.Module, x: Tensor, y: Tensor, attacks: Iterable[Attack] = (), *, seed: int = 0
) -> tuple[str, ...]:
    """Reject a model whose accuracy cannot be measured; return what is suspicious.

    The model must have no layer in training mode, return the same logits when it is called again,
    and return the same for an image alone and in a batch. Uses the first 16 images, and 32 to
    test the gradient; costs about 60 forward passes of one image, and 400 with that test. The
    model, the global random generators and all named streams stay as they are.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``. It runs in evaluation
            mode; its mode is restored.
        x: Images [B, ...] in [0, 1], B >= 1.
        y: Labels [B].
        attacks: The attacks that will run. If one uses a gradient, the model's own is tested; if
            one changes how spiking layers are differentiated, layers that it cannot change are
            named.
        seed: Seed of the random directions, and of a noisy model's draws.

    Returns:
        Warnings, one sentence each: a gradient that is missing, zero or not that of the loss;
        spiking layers that a surrogate sweep does not reach; a model that changes its buffers; one
        that declares its randomness but draws it from a global generator; weights that see nothing
        but padding.

    Raises:
        ValueError: If the model fails; the message names the fault and a remedy.
        AttackError: If weights or logits are not finite.
    """
    x, y = x[:SAMPLES], y[:SAMPLES]
    require_axes(model, x)
    require_inputs(x, y, space_of(model))
    require_finite_weights(model)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x, y = x.to(device, copy=True), y.to(device)
    gradients, before = _gradients(attacks), state(model)
    exact = torch.autocast(device.type, enabled=False)
    try:
        with global_generators_kept(device), frozen(model), exact, left_unchanged(x):
            found = _examined(model, x, y, seed, gradients)
        changed = changes(before, state(model))
    except TrainingModeError as error:
        raise ValueError(f"check: {error} {_SKIP}") from error
    except ValueError as error:
        if str(error).startswith("check: "):
            raise ValueError(f"{error} {_SKIP}") from error
        raise
    finally:
        restore(model, before)
    if changed:
        found.append(
            f"check: calls in evaluation mode change the model ({', '.join(changed[:3])}), so a "
            "result may depend on the calls before it; write to no buffer in forward."
        )
    return tuple(found)


def _gradients(attacks: Iterable[Attack]) -> list[object]:
    """Return the gradients that the attacks use, without the wrappers that average them."""
    found: list[object] = []
    for attack in attacks:
        searches = [attack]
        if isinstance(attack, Converging):
            searches = [entry.build(0, 0.0) for entry in portfolio(attack.threat).values()]
        found += [unwrap(getattr(search, "gradient", None)) for search in searches]
    return [gradient for gradient in found if gradient is not None]


def _examined(
    model: nn.Module, x: Tensor, y: Tensor, seed: int, gradients: list[object]
) -> list[str]:
    """Return the warnings about the model's passes."""
    logits, few = presented(model, y, seed), x[:_REPEATED]
    index = torch.arange(len(few))
    with evaluation_mode_required(model), padding_recorded(model) as padding:
        show_few(logits, few, _WATCHED)
    found = [f"check: {padding}"] if str(padding) else []
    try:
        first = require_same_again(lambda: logits(few, index))
        require_independence(logits, few, first)
        if gradients:
            found += _gradient(model, logits, x, y, seed)
    except UndeclaredRandomness:
        if not is_stochastic(model):
            raise
        found.append(
            "check: the model declares its randomness but draws from a global generator, so a "
            "result changes from run to run; draw from a spikeguard.rng.RandomSource."
        )
    if any(not isinstance(gradient, Backprop) for gradient in gradients):
        found += _out_of_reach(model, logits, few)
    return found


def _gradient(model: nn.Module, logits: Logits, x: Tensor, y: Tensor, seed: int) -> list[str]:
    """Return what is wrong with the model's own gradient; attacks on it can still succeed.

    Of the tests of ``require_gradient`` the one that costs eight passes runs; fewer than 32 images
    decide nothing.
    """

    def losses(direction: Tensor, eps: float, n: int) -> Tensor:
        moved = space_of(model).clamp(x[:n] + eps * direction[:n])
        return cross_entropy(logits(moved, torch.arange(n)), y[:n]).double()

    try:
        with randomness(model, SampleStreams(key(seed, "check"), torch.arange(len(x)))):
            _, grad = BACKPROP(model, x, y, cross_entropy)
    except AttackError as error:
        fault = str(error).removeprefix("attack: ").rstrip(".")
    else:
        if not bool(grad.any()):
            fault = f"the input gradient is exactly zero for all {len(x)} images"
        elif len(x) == SAMPLES and not beats_its_negative(losses, grad.sign(), seed):
            fault = (
                "a step along the gradient's sign raises the loss no more than one against it: the "
                "gradient is not that of the loss"
            )
        else:
            return []
    return [
        f"check: {fault}. Attacks with the model's own gradient may find nothing; exchange the "
        "surrogates (suite 'snn'), or see what sg.check says."
    ]


def _out_of_reach(model: nn.Module, logits: Logits, x: Tensor) -> list[str]:
    """Return the spiking layers whose derivative no attack can change, beside those it changes."""
    if not spiking_layers(model):
        return []
    with unknown_spikes(model) as names:
        logits(x, torch.arange(len(x)))
    if not names:
        return []
    return [
        f"check: {OUT_OF_REACH.format(', '.join(names))}: a worst case over surrogates is "
        "incomplete; give it the interface of its framework, see docs/foreign.md."
    ]
