"""Event data in a recipe: how recordings are framed, and the encoder that the network gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spikeguard.config.errors import ConfigError, ConfigPath
from spikeguard.config.instantiate import call_checked

if TYPE_CHECKING:
    from spikeguard.config.schema import Recipe
    from spikeguard.data.images import ImageSet, Splits
    from spikeguard.models.snn import SNN

__all__ = ["event_encoder", "framing", "in_steps", "require_fitting"]

_NAME = "event_frames"


def framing(recipe: Recipe) -> dict[str, Any]:
    """Return the argument ``framing`` of ``data.load``; none without ``data.frames``.

    Raises:
        ConfigError: If a field of ``data.frames`` is unknown or rejected, or ``model.T`` is
            missing.
    """
    if recipe.data.frames is None:
        return {}
    from spikeguard.data.events.framing import Framing

    fields = dict(recipe.data.frames)
    if type(fields.get("size")) is int:
        fields["size"] = [fields["size"]] * 2
    where = ConfigPath("data.frames", recipe.label)
    return {"framing": call_checked(Framing, fields, where, T=_steps(recipe))}


def in_steps(recipe: Recipe, data: Splits) -> Splits:
    """Return data whose recordings are framed in ``model.T`` steps; others are unchanged.

    Raises:
        ConfigError: If ``model.T`` is missing.
    """
    if not hasattr(data.test, "framing"):
        return data

    def framed(part: Any) -> Any:
        if part is None or _steps(recipe) == part.framing.T:
            return part
        return replace(part, framing=replace(part.framing, T=_steps(recipe)))

    parts = {name: framed(getattr(data, name)) for name in ("train", "val", "test")}
    same = all(part is getattr(data, name) for name, part in parts.items())
    return data if same else replace(data, **parts)


def _steps(recipe: Recipe) -> int:
    T = recipe.model.get("T")
    if type(T) is not int:
        raise ConfigError(
            f"{ConfigPath('model.T', recipe.label)}: events are framed in as many steps as the "
            "network has; write model.T, for example 10."
        )
    return T


def event_encoder(entry: Mapping[str, Any], data: ImageSet, where: ConfigPath) -> dict[str, Any]:
    """Return the network's entry with the encoder ``event_frames`` where the data are frames.

    The encoder gets the space of the data. An entry with an encoder of its own is returned as it
    is, and :func:`require_fitting` judges the network.

    Raises:
        ConfigError: If images are given to ``event_frames``, or a field of it is stated that
            follows from the data.
    """
    given = entry.get("encoder")
    name = given.get("name") if isinstance(given, Mapping) else given
    if not data.space.temporal:
        if name == _NAME:
            raise ConfigError(
                f"{where / 'encoder'}: {data.name} holds images, {_NAME} is for event data; leave "
                "the encoder out."
            )
        return dict(entry)
    if name not in (None, _NAME):
        return dict(entry)
    space = data.space
    known = {"high": space.high, "whole": space.whole, "exclusive": space.exclusive}
    stated = {k: v for k, v in given.items() if k != "name"} if isinstance(given, Mapping) else {}
    return {**entry, "encoder": {"name": _NAME, **known, **stated}}


def require_fitting(model: SNN, data: ImageSet, where: ConfigPath) -> None:
    """Reject a network whose encoder does not take the data.

    Raises:
        ConfigError: If one is for images and the other for frames, the data have larger values or
            another number of frames.
    """
    from spikeguard.encoders.input_space import require_same_kind, space_of

    space = space_of(model)
    try:
        require_same_kind(space, data.space, f"{where / 'encoder'}: {data.name}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if space.temporal:
        T = data.batch(slice(1))[0].shape[1]
        if model.T != T:
            raise ConfigError(
                f"{where / 'T'}: the recordings of {data.name} have {T} frames, got {model.T}; "
                f"write {T}."
            )
