"""collect(): read run folders completely; an error names the damaged file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.membrane import MembraneHistogram
from spikeguard.auditing.findings import Verdict
from spikeguard.certification.result import Certification
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import Recipe, load_recipe
from spikeguard.config.trained_recipe import require_trained_recipe
from spikeguard.reporting.readers.analyses import read_analyses
from spikeguard.reporting.readers.attack_results import AttackResult, read_attacked
from spikeguard.reporting.readers.audit import (
    audits_other_checkpoint,
    read_audited,
    read_evidence,
)
from spikeguard.reporting.readers.audit_evidence import Evidence
from spikeguard.reporting.readers.certificates import read_certificates
from spikeguard.reporting.readers.foreign_model import ForeignModelCard, read_foreign_model
from spikeguard.reporting.readers.json_files import of_other_checkpoint, read_json
from spikeguard.reporting.readers.training import Epoch, TrainingResult, read_epochs, read_trained
from spikeguard.storage.checkpoints import load
from spikeguard.storage.digests import weights_digest
from spikeguard.storage.run_folder import (
    ANALYSIS,
    ATTACKS,
    AUDIT,
    CERTIFICATES,
    CHECKPOINTS,
    ENVIRONMENT,
    MEMBRANE,
    METRICS,
    MODEL,
    RECIPE,
    RESULT,
    no_such_run,
)

__all__ = ["Network", "collect"]


@dataclass(frozen=True)
class Network:
    """Content of the folder of a run or of a foreign model. Stages not run are empty or None.

    Attributes:
        path: The run folder.
        label: Name in the report: title of the recipe or name of the model, made unique.
        recipe: The recipe; None for a foreign model, as are ``recipe_text`` and ``trained``.
        recipe_text: Text of ``recipe.yaml``.
        trained: The outcome of the training.
        foreign: Content of ``model.json`` of a foreign model; None for a run.
        environment: Versions, machine, command.
        epochs: The training curves.
        attacked: Results of attacks.
        audited: The audit's verdict.
        evidence: The curves that the audit stored.
        membrane: Histogram of the membrane potentials.
        analyses: Stored measurements by file name without suffix.
        certificates: Certified radii, and attacks on the same smoothed classifier.
        left_out: Files of an audit, a histogram or analyses of another checkpoint than the recipe
            attacks, which are not used.
    """

    path: Path
    label: str
    recipe: Recipe | None
    recipe_text: str | None
    trained: TrainingResult | None
    foreign: ForeignModelCard | None
    environment: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    attacked: tuple[AttackResult, ...]
    audited: Verdict | None
    evidence: Evidence
    membrane: MembraneHistogram | None
    analyses: Mapping[str, Measurement] = field(default_factory=dict)
    certificates: tuple[Certification, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint that the recipe attacks; None for a foreign model, which has one."""
        return None if self.recipe is None else self.recipe.evaluate.checkpoint

    @property
    def data(self) -> str:
        """Name of the data set."""
        if self.foreign is not None:
            return self.foreign.data
        assert self.recipe is not None
        return self.recipe.data.name


def collect(runs: Sequence[str | Path]) -> tuple[Network, ...]:
    """Read run folders.

    Args:
        runs: Folders of finished trainings or of foreign models, at least one, none twice.

    Raises:
        ValueError: If a folder is no finished run, or a file is missing or damaged: one line that
            names it.
    """
    paths = [Path(run) for run in runs]
    if not paths:
        raise ValueError("report: name at least one run folder.")
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ValueError(f"report: {path} is named twice; name every run folder once.")
    sources = [_source(path) for path in paths]
    titles = [s.model if isinstance(s, ForeignModelCard) else s.title or s.name for s in sources]
    titles = [
        t if titles.count(t) == 1 else f"{t} ({p.name})" for t, p in zip(titles, paths, strict=True)
    ]
    titles = [t if titles.count(t) == 1 else f"{t} [{i}]" for i, t in enumerate(titles, start=1)]
    return tuple(map(_network, paths, titles, sources))


def _network(path: Path, label: str, source: Recipe | ForeignModelCard) -> Network:
    audit, membrane = path / AUDIT, path / MEMBRANE
    recipe, foreign = (None, source) if isinstance(source, ForeignModelCard) else (source, None)
    trained = None if recipe is None else read_trained(path / RESULT)
    weights = _weights(path, source)
    wanted, left_out = None if recipe is None else recipe.evaluate.checkpoint, []
    audited = read_audited(audit, weights) if audit.exists() else None
    if audited is not None and audits_other_checkpoint(audit, weights, wanted):
        audited, left_out = None, [AUDIT]
    potentials = _membrane(membrane, weights) if membrane.exists() else None
    if potentials is not None and of_other_checkpoint(potentials.weights, None, weights, wanted):
        potentials = None
        left_out.append(MEMBRANE)
    analyses = read_analyses(path / ANALYSIS, weights)
    others = [
        name
        for name, measured in analyses.items()
        if of_other_checkpoint(measured.identity.get("weights"), None, weights, wanted)
    ]
    left_out += [f"{ANALYSIS}/{name}.npz" for name in others]
    results = sorted((path / ATTACKS).glob("*.json")) if (path / ATTACKS).is_dir() else []
    return Network(
        path=path,
        label=label,
        recipe=recipe,
        recipe_text=None if recipe is None else (path / RECIPE).read_text(encoding="utf-8"),
        trained=trained,
        foreign=foreign,
        environment={} if trained is None else read_json(path / ENVIRONMENT),
        epochs=() if trained is None else read_epochs(path / METRICS, trained.epochs),
        attacked=tuple(read_attacked(result, weights) for result in results),
        audited=audited,
        evidence=Evidence() if audited is None else read_evidence(audit, audited),
        membrane=potentials,
        analyses={name: measured for name, measured in analyses.items() if name not in others},
        certificates=read_certificates(path / CERTIFICATES, weights),
        left_out=tuple(left_out),
    )


def _weights(path: Path, source: Recipe | ForeignModelCard) -> dict[str, str]:
    """Return the digest of each checkpoint by name, and compare its recipe with the folder's."""
    if isinstance(source, ForeignModelCard):
        return {"best": source.weights} if source.weights else {}
    found = {}
    for name in ("best", "last"):
        checkpoint = load(path / CHECKPOINTS / name)
        if checkpoint is not None:
            require_trained_recipe(source, checkpoint.info, path / RECIPE)
            found[name] = weights_digest(checkpoint.model)
    return found


def _membrane(path: Path, weights: Mapping[str, str]) -> MembraneHistogram:
    found = MembraneHistogram.load(path)
    if found.weights and weights and found.weights not in weights.values():
        raise ValueError(f"{path}: is of other weights; delete it and audit again.")
    return found


def _source(path: Path) -> Recipe | ForeignModelCard:
    if not path.is_dir():
        raise ValueError(no_such_run(path))
    if (path / MODEL).is_file():
        return read_foreign_model(path / MODEL)
    if not (path / RECIPE).is_file():
        raise ValueError(f"{path}: not a run folder, it holds no {RECIPE}.")
    try:
        return load_recipe(path / RECIPE)
    except ConfigError as error:
        raise ValueError(f"{path / RECIPE}: {error}") from error
