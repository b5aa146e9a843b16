"""check(): can this model be attacked at all? Cheap questions to ask before any attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from spikeguard.attacks import AttackError, NoGradientError, classify, cross_entropy
from spikeguard.attacks.base import frozen, require_finite_weights, require_inputs
from spikeguard.attacks.gradient import BACKPROP
from spikeguard.models.adapters import Foreign
from spikeguard.models.frameworks import ForeignNeuron
from spikeguard.models.presentation import taken
from spikeguard.neurons import spiking_layers
from spikeguard.rng import SampleStreams, key, randomness, stream

__all__ = ["Preflight", "check"]

_SAMPLES = 32
_RADII = (2 / 255, 8 / 255, 0.1, 0.3)
_DRAWS = 4  # random directions that the gradient's has to beat
_MOVED = 0.1  # share of samples in which rounding may flip a spike


@dataclass(frozen=True)
class Preflight:
    """What a model that can be attacked showed.

    Attributes:
        samples: Images it was shown.
        accuracy: Share it classifies right, in [0, 1].
        zero_gradient: Share whose input gradient is exactly zero.
        eps: Radius of the steps below.
        along_gradient: Rise of the mean loss after a step of length eps along the gradient's sign.
        along_random: The largest rise after steps of the same length in random directions.
        graded: Spiking layers that give other values than 0 and 1.
        driven: How a network of another framework is driven: T, framework, presentation, readout.
    """

    samples: int
    accuracy: float
    zero_gradient: float
    eps: float
    along_gradient: float
    along_random: float
    graded: tuple[str, ...]
    driven: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        driven = ", ".join(f"{name} {value}" for name, value in self.driven.items())
        graded = f"; graded spikes in {', '.join(self.graded)}" if self.graded else ""
        return (
            f"{driven or 'a classifier'}: {100 * self.accuracy:.1f} % of {self.samples} images "
            f"right, {100 * self.zero_gradient:.0f} % without a gradient; a step of {self.eps:.3g} "
            f"along the gradient raises the loss by {self.along_gradient:.3g}, in a random "
            f"direction by {self.along_random:.3g}{graded}"
        )


def check(model: nn.Module, x: Tensor, y: Tensor, *, seed: int = 0) -> Preflight:
    """Refuse a model whose attack would measure something else than its robustness.

    It must give the same logits when it is asked again, in other company and in another order; have
    an input gradient that raises the loss more than chance; and stay as it is. The first 32 images
    are shown.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``, such as
            :func:`spikeguard.foreign` makes; it is examined in evaluation mode and left as it was.
        x: Images [B, ...] in [0, 1], B >= 2.
        y: Labels [B].
        seed: Names the random directions.

    Raises:
        ValueError: If the model fails; the message says in what and what to do about it.

    Source: faults reported against stateful networks, sampling encoders and evaluations in training
        mode.
    """
    x, y = x[:_SAMPLES], y[:_SAMPLES]
    require_inputs(x, y)
    if len(x) < 2:
        raise ValueError("check: needs at least 2 images, to show them in other company.")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x, y = x.to(device), y.to(device)
    before = _state(model)
    try:
        require_finite_weights(model)
        with frozen(model):
            found = _examined(model, x, y, seed)
    except AttackError as error:
        raise ValueError(f"check: {error}") from error
    after = _state(model)
    changed = sorted(n for n in before | after if not _equal(before.get(n), after.get(n)))
    if changed:
        raise ValueError(
            f"check: calls in evaluation mode change the model ({', '.join(changed[:3])}); keep "
            "batch norm in evaluation mode and write to no buffer in forward."
        )
    return found


def _examined(model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Preflight:
    def logits(images: Tensor, index: Tensor) -> Tensor:
        streams = SampleStreams(key(seed, "check"), index)
        with randomness(model, streams), torch.no_grad():
            return classify(model, images, y[index.to(y.device)])

    everyone = torch.arange(len(x))
    graded: set[str] = set()
    with _watched(model, graded):
        first = logits(x, everyone)
    _require_same_again(lambda: logits(x, everyone), first)
    _require_independence(logits, x, first)
    streams = SampleStreams(key(seed, "check"), everyone)
    try:
        with randomness(model, streams):
            losses, grad = BACKPROP(model, x, y, cross_entropy)
    except NoGradientError as error:
        raise ValueError(
            "check: no gradient reaches the input: an encoder under no_grad, or one that draws "
            "spikes (PoissonEncoder, LatencyEncoder), cuts it; show the image itself at every step."
        ) from error
    zero = float((grad.flatten(1).abs().amax(1) == 0).double().mean())
    if zero == 1:
        raise ValueError(
            "check: the input gradient is exactly zero for every image: an encoder that draws "
            "spikes (snntorch.spikegen.rate) has derivative 0, and so has a spike without a "
            "surrogate; show the image itself at every step, or exchange the surrogates."
        )
    eps, along, chance = _rises(logits, x, y, grad, float(losses.mean()), seed)
    if not along > chance:
        raise ValueError(
            f"check: a step of {eps:.3g} along the gradient's sign raises the mean loss by "
            f"{along:.3g}, one in a random direction by {chance:.3g}: the gradient is not that of "
            "the loss; look for a detached or sampling part, or exchange the surrogates."
        )
    adapter = next((m for m in model.modules() if isinstance(m, Foreign)), None)
    names = ("framework", "T", "presentation", "readout")
    return Preflight(
        samples=len(x),
        accuracy=float((first.argmax(1) == y).double().mean()),
        zero_gradient=zero,
        eps=eps,
        along_gradient=along,
        along_random=chance,
        graded=tuple(sorted(graded)),
        driven={} if adapter is None else {name: getattr(adapter, name) for name in names},
    )


def _require_same_again(again: Callable[[], Tensor], first: Tensor) -> None:
    """Two calls agree to the bit; if not, say whether it is chance or memory."""
    try:
        if torch.equal(again(), first):
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            one = again()
            torch.manual_seed(0)
            chance = torch.equal(again(), one)
    except RuntimeError as error:
        if isinstance(error, AttackError | torch.OutOfMemoryError):
            raise
        line = str(error).partition("\n")[0]
        raise ValueError(
            f"check: the second call raises ({line}), as if the model kept state between calls; "
            "adapt it with spikeguard.foreign, or reset its states at the start of forward."
        ) from error
    if chance:
        raise ValueError(
            "check: two calls on the same images differ, because the model draws from torch's "
            "global generator: its robustness would be luck; show the image itself at every step "
            "instead of sampled spikes, and leave dropout in evaluation mode."
        )
    raise ValueError(
        "check: two calls on the same images differ: states of the first call leak into the "
        "second; adapt the model with spikeguard.foreign, or reset its states at the start of "
        "forward."
    )


def _require_independence(
    logits: Callable[[Tensor, Tensor], Tensor], x: Tensor, first: Tensor
) -> None:
    """What is said of an image does not depend on its company or its place."""
    index = torch.arange(len(x))
    some = min(8, len(x))
    alone = torch.cat([logits(x[i : i + 1], index[i : i + 1]) for i in range(some)])
    turned = logits(x.flip(0), index.flip(0)).flip(0)
    for how, other, same in (
        ("alone", alone, first[:some]),
        ("in another order", turned, first),
    ):
        close = torch.isclose(other, same, rtol=1e-4, atol=1e-5).all(1)
        moved = float((~close).double().mean())
        if moved > _MOVED:
            raise ValueError(
                f"check: logits of {100 * moved:.0f} % of the images change when they are shown "
                f"{how}: images of a batch share statistics or states; keep batch norm in "
                "evaluation mode and reset all states at the start of forward."
            )


def _rises(
    logits: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    grad: Tensor,
    base: float,
    seed: int,
) -> tuple[float, float, float]:
    """Return (eps, rise along the gradient's sign, best rise of random signs) of the mean loss.

    Of the first radius at which the gradient beats chance; of the last if it never does.
    """
    index = torch.arange(len(x))
    generator = stream(seed, "check", "directions")

    def rise(direction: Tensor, eps: float) -> float:
        moved = (x + eps * direction).clamp(0, 1)
        return float(cross_entropy(logits(moved, index), y).mean()) - base

    found = (0.0, 0.0, 0.0)
    for eps in _RADII:
        draws = torch.randint(0, 2, (_DRAWS, *x.shape), generator=generator).to(x) * 2 - 1
        found = eps, rise(grad.sign(), eps), max(rise(draw, eps) for draw in draws)
        if found[1] > found[2]:
            break
    return found


@contextmanager
def _watched(model: nn.Module, graded: set[str]) -> Iterator[None]:
    """Note layers that give graded spikes; refuse layers in training mode."""

    def require_evaluation(module: nn.Module, given: object) -> None:
        if module.training:
            raise ValueError(
                f"check: a {type(module).__name__} runs in training mode although the model is in "
                "evaluation mode; switch no mode inside forward."
            )

    watched = [m for m in model.modules() if isinstance(m, _BatchNorm | _DropoutNd)]
    handles = [m.register_forward_pre_hook(require_evaluation) for m in watched]
    for name, layer in spiking_layers(model).items():
        if isinstance(layer, ForeignNeuron):

            def look(module: nn.Module, given: object, result: Any, name: str = name) -> None:
                spikes = taken(result, 0)
                if not bool(((spikes == 0) | (spikes == 1)).all()):
                    graded.add(name)

            handles.append(layer.module.register_forward_hook(look))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _state(model: nn.Module) -> dict[str, Tensor | bool]:
    named = [*model.named_parameters(), *model.named_buffers()]
    state: dict[str, Tensor | bool] = {name: t.detach().clone() for name, t in named}
    return state | {f"{n or 'model'}.training": m.training for n, m in model.named_modules()}


def _equal(before: Tensor | bool | None, after: Tensor | bool | None) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return torch.equal(before, after)
    return before is after
