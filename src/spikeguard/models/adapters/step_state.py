"""State that a single-step network takes and returns: the arguments of forward after the input."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spikeguard.models.adapters.trial_errors import ResultRejected

__all__ = ["StateArguments"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class StateArguments:
    """The arguments of ``forward`` that may hold a state, such as ``forward(x, mem=None)``.

    An argument may hold a state if it has no default, or None, an empty container, 0 or a tensor as
    its default; others, such as ``steps=25`` or ``verbose=False``, are options.

    Attributes:
        names: Names of the arguments.
        any_number: Whether forward takes any number of them, as ``*state``.
    """

    names: tuple[str, ...] = ()
    any_number: bool = False

    @classmethod
    def of(cls, model: nn.Module) -> StateArguments:
        """Read the signature of a model's forward; none where it cannot be read."""
        try:
            given = list(inspect.signature(model.forward).parameters.values())
        except (TypeError, ValueError):  # compiled by torch.jit
            return cls()
        if given and given[0].kind in _POSITIONAL:
            given = given[1:]
        names = tuple(p.name for p in given if p.kind in _NAMED and _may_hold_state(p.default))
        return cls(names, any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in given))

    def fit(self, result: Any) -> bool:
        """Whether a step's result (output, *states) fills the arguments."""
        states = _states(result)
        return bool(states) and (self.any_number or len(states) == len(self.names))

    def filled(self, result: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of the next step, positional and by name; empty without a state.

        Raises:
            ResultRejected: If forward returns more or fewer states than it takes.
        """
        states = _states(result)
        if self.any_number:
            return states, {}
        if not states or not self.names:
            return (), {}
        if len(states) != len(self.names):
            raise ResultRejected(
                f"foreign: forward takes the states {', '.join(self.names)} but returns "
                f"{len(states)} after its output; return (output, {', '.join(self.names)})."
            )
        return (), dict(zip(self.names, states, strict=True))


def _states(result: Any) -> tuple[Any, ...]:
    """Return what follows the output in a step's result; nothing if it is None throughout."""
    states = tuple(result[1:]) if isinstance(result, tuple) else ()
    return states if any(state is not None for state in states) else ()


def _may_hold_state(default: Any) -> bool:
    if default is inspect.Parameter.empty or default is None or isinstance(default, Tensor):
        return True
    if isinstance(default, bool):
        return False
    return isinstance(default, int | float | tuple | list | dict) and not default
