"""Sections of a recipe as frozen models; unknown keys, wrong types and ranges are rejected."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from spikeguard.config.errors import ConfigError, ConfigPath, first_problem, unknown_name
from spikeguard.config.instantiate import parse_number
from spikeguard.config.plugins import Plugins
from spikeguard.config.published import row
from spikeguard.config.yaml_files import dump, override, read
from spikeguard.storage.atomic_files import write_text
from spikeguard.system.pixel_units import fraction_text, radius_problem

__all__ = ["DataSection", "EvaluateSection", "Recipe", "eps_text", "load_recipe"]


def eps_text(eps: float) -> str:
    """Format a radius as papers do: "8/255", but "0.1" where the decimal is shorter."""
    return f"{eps!r}" if float(eps).is_integer() else fraction_text(eps)


def _saved(eps: float) -> str | float:
    return eps_text(eps) if "/" in eps_text(eps) else eps


def _entry(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _written(value: object) -> object:
    return str(value) if type(value) is int else value


Number = Annotated[float, BeforeValidator(parse_number), Field(allow_inf_nan=False)]
Radius = Annotated[
    float,
    BeforeValidator(parse_number),
    Field(ge=0, allow_inf_nan=False),
    PlainSerializer(_saved),
]
Count = Annotated[int, Field(ge=1)]
Entry = Annotated[dict[str, Any], BeforeValidator(_entry)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_S = TypeVar("_S", bound=_Section)


class DataSection(_Section):
    """Name and size of the data set; the arguments of :func:`spikeguard.data.load`.

    ``skip_bad: true`` leaves out event recordings that cannot be read, and records their list.
    ``val_fraction: 0`` trains on all images and needs ``evaluate.checkpoint: last``.
    The name may be the path of own data, or ``package.module:function`` of an allowed package.
    ``frames`` says how recordings of events become frames: the fields of
    :class:`spikeguard.data.events.framing.Framing` except T, which is ``model.T``.
    ``size`` is the height and width to which image files are cut when they are read, batch by batch
    (see :class:`spikeguard.data.PhotoSet`).
    """

    name: str
    train_limit: Count | None = None
    test_limit: Count | None = None
    skip_bad: bool | None = None
    val_fraction: Number = 0.1
    augment: tuple[str, ...] = ()
    size: Count | None = None
    frames: dict[str, Any] | None = None


_NORMS = ("linf", "l2", "l1", "flips", "edits", "counts", "retiming")


class EvaluateSection(_Section):
    """Settings of the attacks on the trained model.

    Attributes:
        eps: Radii in pixel units of [0, 1].
        norm: "linf", "l2", "l1", or a threat on events with its further limits: "flips", "edits",
            "counts", "retiming total=20". Its ``eps`` is then a budget, a whole number.
        suite: Names of attack suites; none where ``attacks`` are given alone.
        attacks: Attack lines such as "mtpgd steps=40 eot=3", each a result of its own.
        limit: Attack only the first ``limit`` test images; None attacks all.
        eot: Gradients averaged in every attack step; None is 4 for stochastic models, else 1.
        draws: Noise draws of every score; None is 10 for stochastic models, else 1.
        batch_size: Images attacked at once; results do not depend on it.
        cascade: Run attacks from cheap to expensive, each on the samples that survived the cheaper
            ones: the worst case in less time, but no accuracy of a single attack. None runs only
            the suites "standard", "snn", "snn-short", "snn-cascade" and "events" as
            cascades.
        precision: Precision of the attacks' passes, "32" or "bf16"; scores are float32.
        seed: Seed of the attacks' random streams, >= 0; None is the seed of the recipe.
        tune: Choose the settings of a suite's gradients, HART's gamma and ASSG's A, on validation
            images instead of using fixed values.
        checkpoint: The checkpoint that is attacked and audited: that of the "best" epoch by clean
            validation accuracy, or of the "last" one. A defence whose weight grows during training
            reaches its full weight only in the last epoch.
    """

    eps: Annotated[tuple[Radius, ...], BeforeValidator(_listed), Field(min_length=1)] = (8 / 255,)
    norm: str = "linf"
    suite: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("quick",)
    attacks: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    limit: Count | None = None
    eot: Count | None = None
    draws: Count | None = None
    batch_size: Count = 128
    cascade: bool | None = None
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(_written)] = "32"
    seed: Annotated[int, Field(ge=0)] | None = None
    tune: bool = False
    checkpoint: Literal["best", "last"] = "best"

    @field_validator("eps")
    @classmethod
    def _above_zero(cls, eps: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in eps:
            raise ValueError("radius 0 allows no change; write a decimal point, 0.1, not 0,1")
        return eps

    @field_validator("norm")
    @classmethod
    def _known_norm(cls, norm: str) -> str:
        if norm.partition(" ")[0] not in _NORMS:
            raise ValueError(
                "write 'linf', 'l2' or 'l1', or on events 'flips', 'edits', 'counts' or 'retiming'"
            )
        return norm

    @model_validator(mode="before")
    @classmethod
    def _attacks_alone(cls, raw: Any) -> Any:
        """Where attack lines are given and no suite, the default suite is not run."""
        alone = isinstance(raw, Mapping) and raw.get("attacks") and "suite" not in raw
        return {**raw, "suite": []} if alone else raw

    @model_validator(mode="after")
    def _some_attack(self) -> Self:
        if not self.runs:
            raise ValueError("no attack: write a suite or an attack line")
        return self

    @model_validator(mode="after")
    def _inside_the_box(self) -> Self:
        for eps in self.eps:
            if problem := radius_problem(self.norm, eps):
                raise ValueError(problem)
            if self.norm not in _NORMS[:3]:
                from spikeguard.attacks.threat_names import threat_of

                threat_of(self.norm, eps)
        return self

    @property
    def runs(self) -> tuple[str, ...]:
        """Suites, then attack lines: each is one result at each radius."""
        return (*self.suite, *self.attacks)

    def changed(self, **changes: Any) -> EvaluateSection:
        """Return a copy with some fields changed and checked; None leaves a field unchanged."""
        kept = {key: value for key, value in changes.items() if value is not None}
        return _validated(EvaluateSection, {**self.model_dump(), **kept}, ConfigPath(""))


class Recipe(_Section):
    """One experiment, complete: data, model, objective, training, evaluation, seed.

    Entries (the model, its neuron, surrogate and encoder, the pieces of the objective) are mappings
    with a ``name`` and options; :func:`build` checks them.

    Attributes:
        published: Keys of the published table rows that the recipe reproduces, as in
            :mod:`spikeguard.config.published`: "tgo/1/cifar10/wrn16-4/at+tgo".
        readings: Points that the source leaves open or contradicts, and the choice made; one
            sentence each.
    """

    name: str
    title: str = ""
    source: str = ""
    published: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    readings: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    data: DataSection
    model: Entry
    objective: tuple[Entry, ...] = ()
    train: dict[str, Any] = {}
    evaluate: EvaluateSection = EvaluateSection()
    _plugins: Plugins = PrivateAttr(default_factory=Plugins)  # never read from or saved to a file

    @field_validator("name")
    @classmethod
    def _relative(cls, name: str) -> str:
        parts = Path(name).parts
        inside = parts and not any(part.startswith((".", "/")) for part in parts)
        if not inside or not name.isprintable():
            raise ValueError("should be a name that can serve as a folder, such as 'digits-tgo'")
        return name

    @field_validator("published")
    @classmethod
    def _known(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            row(key)
        return keys

    @model_validator(mode="after")
    def _chosen_on_validation_images(self) -> Self:
        if self.data.val_fraction == 0:
            if self.evaluate.checkpoint == "best":
                raise ValueError(
                    "data.val_fraction: 0 leaves no images to choose the best epoch, got "
                    "evaluate.checkpoint: best; write evaluate.checkpoint: last"
                )
            if self.train.get("patience") is not None:
                raise ValueError(
                    "data.val_fraction: 0 leaves no images to stop early, got train.patience: "
                    f"{self.train['patience']}; leave it out"
                )
            if self.evaluate.tune:
                raise ValueError(
                    "data.val_fraction: 0 leaves no images to choose settings, got "
                    "evaluate.tune: true; write evaluate.tune: false"
                )
        return self

    @property
    def label(self) -> str:
        """The recipe's name in messages."""
        return f"recipe {self.name}"

    @property
    def plugins(self) -> Plugins:
        """The packages whose parts may be imported when the recipe is built."""
        return self._plugins

    def allowing(self, plugins: Iterable[str] | Plugins) -> Recipe:
        """Return a copy whose parts may be imported from these packages."""
        copy = self.model_copy()
        copy._plugins = Plugins.of(plugins)
        return copy

    def training_part(self) -> dict[str, Any]:
        """Return the part that the trained weights depend on: no titles, no attacks."""
        part = {"seed", "data", "model", "objective", "train"}
        return self.model_dump(mode="json", include=part, exclude_none=True)

    def to_yaml(self) -> str:
        """Return the recipe as text that :func:`load_recipe` reads back as an equal recipe."""
        return dump(self.model_dump(mode="json", exclude_none=True))

    def save(self, path: str | Path) -> None:
        """Write the recipe to a file, atomically."""
        write_text(path, self.to_yaml())


def load_recipe(
    recipe: str | Path, overrides: Sequence[str] = (), *, plugins: Iterable[str] | Plugins = ()
) -> Recipe:
    """Load a recipe and change it.

    Args:
        recipe: A path to a YAML file, or the name of a recipe that ships with SpikeGuard.
        overrides: Changes such as ``"model.T=8"`` or ``"objective.at.eps=8/255"``; values are YAML,
            an empty one restores the default.
        plugins: Packages whose parts the recipe may name as ``package.module:Part``. Nothing is
            imported before the recipe is built.

    Raises:
        ConfigError: If there is no such recipe or plugin, a key is unknown or a value has the wrong
            type.

    Example:
        >>> load_recipe("demo/tgo", ["model.T=8"]).model["T"]
        8
    """
    stored = read(recipe)
    raw = {"name": stored["name"], **override(stored, overrides)}
    raw["data"] = _entry(raw.get("data"))
    found = _validated(Recipe, raw, ConfigPath("", f"recipe {raw['name']}"))
    return found.allowing(plugins)


def _validated(section: type[_S], raw: Mapping[str, Any], where: ConfigPath) -> _S:
    """Check a section as JSON, strictly; the first problem becomes a one-line error."""
    try:
        return section.model_validate_json(json.dumps(_without_null(raw)))
    except ValidationError as error:
        place, message, got = first_problem(error)
        kind = error.errors(include_url=False)[0]["type"]
        for step in place if kind != "extra_forbidden" else place[:-1]:
            where = where / step
        if kind == "extra_forbidden":
            inner: dict[str, type[_Section]] = {"data": DataSection, "evaluate": EvaluateSection}
            owner: type[_Section] = section if len(place) == 1 else inner[str(place[0])]
            raise unknown_name(where, "key", str(place[-1]), owner.model_fields) from None
        shown = "" if kind == "missing" or ", got " in message else f", got {got!r}"
        end = "" if message.endswith("?") else "."
        prefix = f"{where}: " if str(where) else ""
        raise ConfigError(f"{prefix}{message}{shown}{end}") from None


def _without_null(value: object) -> object:
    """Remove every key whose value is None, which means the default."""
    if isinstance(value, Mapping):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_null(item) for item in value]
    return value
