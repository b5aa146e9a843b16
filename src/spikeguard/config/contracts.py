"""Contracts that a part from another package must fulfil before it is used, one per registry.

Tests hold SpikeGuard's parts to the same contracts and to further ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spikeguard.config.errors import ConfigError, ConfigPath, raised

__all__ = ["Contract", "contract_of", "require_attack", "require_data_function"]


@dataclass(frozen=True)
class Contract:
    """The check of the parts of one registry.

    Attributes:
        kind: The noun for such a part in messages.
        base: The class a part must be or inherit from; None accepts every callable.
        probe: Runs a built part on a small input; returns the problem as text, or None.
    """

    kind: str
    base: Callable[[], type] | None
    probe: Callable[[Any], str | None]

    def require_class(self, part: object, name: str, where: ConfigPath | str) -> None:
        """Raise ConfigError if a part is not a class of this kind."""
        if self.base is None:
            if not callable(part):
                raise ConfigError(f"{where}: {name} is not {_a(self.kind)}; it cannot be called.")
            return
        base = self.base()
        if not (isinstance(part, type) and issubclass(part, base)):
            home = ".".join(base.__module__.split(".")[:2])  # the package that exports it
            raise ConfigError(
                f"{where}: {name} is not {_a(self.kind)}; write a class that inherits from "
                f"{home}.{base.__qualname__}."
            )

    def require_built(self, built: object, name: str, where: ConfigPath | str) -> None:
        """Raise ConfigError if a built part fails its probe."""
        try:
            problem = self.probe(built)
        except Exception as error:
            problem = raised(error)
        if problem is not None:
            raise ConfigError(f"{where}: {name} breaks the contract of {_a(self.kind)}: {problem}.")


def contract_of(registry: Mapping[str, Any]) -> Contract:
    """Return the contract of a registry's parts."""
    from spikeguard.attacks.registry import ATTACKS, GRADIENTS
    from spikeguard.defences import DEFENCES
    from spikeguard.encoders import ENCODERS
    from spikeguard.models import MODELS
    from spikeguard.neurons import NEURONS
    from spikeguard.neurons.surrogate import SURROGATES

    contracts = (
        (NEURONS, Contract("neuron", _neuron, _probe_neuron)),
        (SURROGATES, Contract("surrogate", None, _probe_surrogate)),
        (ENCODERS, Contract("encoder", _module, _probe_encoder)),
        (MODELS, Contract("network", None, _probe_network)),
        (DEFENCES, Contract("defence", _piece, _probe_defence)),
        (ATTACKS, Contract("attack", None, _probe_attack)),
        (GRADIENTS, Contract("gradient", None, _probe_gradient)),
    )
    return next(contract for known, contract in contracts if known is registry)


def require_attack(attack: object, name: str, where: ConfigPath | str) -> None:
    """Raise ConfigError if an object is not an attack: callable, with a threat set."""
    problem = _probe_attack(attack)
    if problem is not None:
        raise ConfigError(f"{where}: {name} breaks the contract of an attack: {problem}.")


def require_data_function(part: object, name: str, where: ConfigPath | str) -> None:
    """Raise ConfigError if a part is no function without arguments that could return images."""
    try:
        inspect.signature(part).bind()  # type: ignore[arg-type]
        is_function = not isinstance(part, type)
    except (TypeError, ValueError):
        is_function = False
    if not is_function:
        raise ConfigError(
            f"{where}: {name} is not a data set; write an instance of spikeguard.data.DataSet, or "
            "a function without arguments that returns (x, y) or a Dataset."
        )


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _neuron() -> type:
    from spikeguard.neurons.base import Neuron

    return Neuron


def _module() -> type:
    from torch import nn

    return nn.Module


def _piece() -> type:
    from spikeguard.defences.piece import Piece

    return Piece


def _accepts(part: Any, *arguments: object, **options: object) -> bool:
    try:
        return bool(inspect.signature(part).bind(*arguments, **options))
    except (TypeError, ValueError):
        return False


def _probe_attack(attack: Any) -> str | None:
    threat = getattr(attack, "threat", None)
    called = _accepts(attack, None, None, None, generator=None)
    if called and all(hasattr(threat, each) for each in ("norm", "eps", "check")):
        return None
    return (
        "it must be callable as attack(model, x, y, generator=g) and have a threat set in 'threat'"
    )


def _probe_gradient(gradient: Any) -> str | None:
    called = _accepts(gradient, None, None, None, None)
    return None if called else "it must be callable as gradient(model, x, y, loss)"


def _probe_defence(piece: Any) -> str | None:
    """Reject a piece that changes nothing: it would be recorded as a defence all the same."""
    from spikeguard.defences.piece import AddsTerm, Constrains, Fits, Perturbs, Piece

    acts = isinstance(piece, Perturbs | AddsTerm | Fits | Constrains)
    if acts or type(piece).frozen is not Piece.frozen:
        return None
    return "it defines neither perturb nor term nor constrain"


def _probe_neuron(neuron: Any) -> str | None:
    """Run a copy on images of potentials, as a network does after it has set their shape."""
    import copy

    import torch

    from spikeguard.neurons.modes import record
    from spikeguard.rng import randomness, stream

    neuron = copy.deepcopy(neuron).eval()
    steps = getattr(neuron, "T", None) or 3
    current = torch.linspace(-1, 3, steps * 2 * 4 * 4 * 4).reshape(steps, 2, 4, 4, 4)
    if not neuron.settled:
        neuron.settle(current.shape[2:])
    with torch.no_grad(), randomness(neuron, stream(0, "probe")), record(neuron) as trace:
        spikes = neuron(current, T=steps)
    if not isinstance(spikes, torch.Tensor) or spikes.shape != current.shape:
        shape = list(getattr(spikes, "shape", ())) or type(spikes).__name__
        return f"for a current {list(current.shape)} it returns {shape}, not spikes of its shape"
    if not bool(torch.isfinite(spikes).all()):
        return "its spikes are not finite"
    if not len(trace):
        return "record() sees no potentials; let forward call self.fire(current, ...)"
    return None


def _probe_surrogate(surrogate: Any) -> str | None:
    import torch

    x = torch.linspace(-2, 2, 9)
    slope = surrogate(x)
    if not isinstance(slope, torch.Tensor) or slope.shape != x.shape:
        return "it must return the derivative at every value of v - v_th, shaped like its input"
    if not bool(torch.isfinite(slope).all()):
        return "its derivative is not finite"
    if not getattr(surrogate, "half_width", 0) > 0 or not hasattr(surrogate, "widened"):
        return "it needs a half_width > 0 and a method widened(factor) (see neurons.Surrogate)"
    return None


def _probe_encoder(encoder: Any) -> str | None:
    import torch

    from spikeguard.encoders.input_space import PIXELS
    from spikeguard.rng import randomness, stream

    steps = getattr(encoder, "T", None) or 4
    x = torch.rand(2, 3, 8, 8, generator=stream(0, "probe"))
    if getattr(encoder, "space", PIXELS).temporal:
        x = x.round()[:, None].repeat(1, steps, 1, 1, 1)
    for attribute in ("constant", "normalised"):
        if not isinstance(getattr(encoder, attribute, None), bool):
            return f"it needs an attribute {attribute!r}, True or False (see encoders.Encoder)"
    with torch.no_grad(), randomness(encoder, stream(0, "draws")):
        code = encoder(x, steps)
    wanted = ([steps, 2], [1, 2]) if encoder.constant else ([steps, 2],)
    if not isinstance(code, torch.Tensor) or list(code.shape[:2]) not in wanted:
        shape = list(getattr(code, "shape", ())) or type(code).__name__
        return f"for images {list(x.shape)} and T={steps} it returns {shape}, not [T, B, ...]"
    return None


def _probe_network(network: Any) -> str | None:
    import torch

    from spikeguard.models.snn import SNN

    if not isinstance(network, SNN):
        return f"it builds {type(network).__name__}, not a spikeguard.models.SNN"
    was, x = network.training, torch.full((2, *network.in_shape), 0.5)
    try:
        with torch.no_grad():
            logits = network.eval()(x)
    finally:
        network.train(was)
    if logits.ndim != 2 or len(logits) != 2 or not bool(torch.isfinite(logits).all()):
        found = list(logits.shape)
        return f"for images {list(x.shape)} it returns {found}, not finite logits [B, K]"
    return None
