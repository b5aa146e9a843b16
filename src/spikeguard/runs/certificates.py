"""Certificates of a run: stored image by image, and continued where a killed command stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.config.errors import ConfigError
from spikeguard.runs.attack_results import require_identity
from spikeguard.storage.atomic_files import write_json, write_text
from spikeguard.storage.digests import is_sealed, sealed
from spikeguard.storage.folder_lock import locked
from spikeguard.storage.run_folder import CERTIFICATES

if TYPE_CHECKING:
    from torch import Tensor

    from spikeguard.certification.bounds import Certificate
    from spikeguard.certification.certify import Sampling
    from spikeguard.certification.result import Certification
    from spikeguard.runs.run import Run
    from spikeguard.system.progress import ProgressCallback

__all__ = ["certificate_name", "certify_once"]

_PASSES = 20_000  # noisy images between two writes, at least one image


def certify_once(
    run: Run,
    certificate: Certificate,
    sampling: Sampling,
    *,
    limit: int | None = None,
    radii: Sequence[float] = (),
    progress: ProgressCallback | None = None,
) -> Certification:
    """Certify test images of a run, attack the same classifier, and store every image.

    The results are in ``certificates/``: a JSON file with a record for each image, and a CSV file
    with the curves. Images that are stored are not computed again, so a killed command loses the
    last few images, and a larger limit or another radius adds to what is there.

    Args:
        run: The run.
        certificate: See ``smoothing_of``.
        sampling: Numbers of draws, alpha and seed.
        limit: Number of test images, from the first, >= 1; None is all.
        radii: Radii of the attacks, in the norm of the certificate, > 0.
        progress: Callback ``(done, total, what)``, or None.

    Raises:
        FolderLocked: If another process writes to the folder.
        ConfigError: If a stored result is damaged or of other weights, images or settings.
        ValueError: If a radius is larger than the box of the images.
    """
    from spikeguard.certification.certify import attacked, certified
    from spikeguard.certification.result import Certification
    from spikeguard.evaluation.identity import identity_of

    images = run.data.test
    count = len(images) if limit is None else min(limit, len(images))
    settings = _settings(run, certificate, sampling)
    file = run.path / CERTIFICATES / f"{certificate_name(settings)}.json"
    identity = identity_of(run.model, images)
    with locked(run.path):
        found = _stored(file, settings, identity) or Certification(
            str(certificate), certificate.norm, settings, identity=identity
        )
        block = max(1, _PASSES // (sampling.n0 + sampling.n))
        total, size = count * (1 + len(radii)), run.recipe.evaluate.batch_size
        report = progress or (lambda done, total, what: None)

        def shown(places: range) -> tuple[Tensor, Tensor, Tensor]:
            import torch

            index = torch.arange(places.start, places.stop)
            x, y = images.batch(index)
            return x.to(run.device), y.to(run.device), index

        for places in _blocks(len(found.records), count, block):
            report(places.start, total, "certificates")
            new = certified(run.model, *shown(places), certificate, sampling, batch_size=size)
            found = replace(found, records=(*found.records, *new))
            _write(file, found)
        for number, radius in enumerate(radii, start=1):
            before = found.attacks.get(radius, ())
            for places in _blocks(len(before), count, block):
                report(number * count + places.start, total, f"attack of radius {radius:g}")
                before += tuple(
                    attacked(
                        run.model,
                        *shown(places),
                        certificate,
                        sampling,
                        radius=radius,
                        batch_size=size,
                    )
                )
                found = replace(found, attacks={**found.attacks, radius: before})
                _write(file, found)
        report(total, total, "done")
    return found.first(count)


def certificate_name(settings: Mapping[str, Any]) -> str:
    """Return the file name without suffix of a result with these settings."""
    noise = f"sigma{_exactly(settings['sigma'])}" if settings["sigma"] else "own"
    drawn = "-".join(f"{k}{_exactly(settings[k])}" for k in ("n0", "n", "alpha", "seed"))
    return f"{settings['norm']}-{noise}-{drawn}-{settings['checkpoint']}"


def _exactly(value: float) -> str:
    """Write a number in six digits, or in as many as it has."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _settings(run: Run, certificate: Certificate, sampling: Sampling) -> dict[str, Any]:
    from spikeguard.certification.certify import ATTACK_DRAWS, ATTACK_STEPS

    stated = {"smoothing": str(certificate), "norm": certificate.norm, "sigma": certificate.sigma}
    searched = {"attack_steps": ATTACK_STEPS, "attack_draws": ATTACK_DRAWS}
    checkpoint = {"checkpoint": run.recipe.evaluate.checkpoint}
    return {**stated, **asdict(sampling), **searched, **checkpoint}


def _blocks(first: int, count: int, size: int) -> list[range]:
    return [range(at, min(at + size, count)) for at in range(first, count, size)]


def _stored(
    file: Path, settings: Mapping[str, Any], identity: Mapping[str, str]
) -> Certification | None:
    from spikeguard.certification.result import Certification

    if not file.exists():
        return None
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        is_sealed(card)
        found = Certification.from_dict(card)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: damaged ({error}); move it away and run again.") from error
    require_identity(found.identity, identity, file)
    if dict(found.settings) != dict(settings):
        raise ConfigError(f"{file}: made with other settings; move it away and run again.")
    return found


def _write(file: Path, found: Certification) -> None:
    """Write the records, and the curves of the attacks that cover all of them."""
    write_json(file, sealed(found.to_dict()))
    write_text(file.with_suffix(".csv"), found.first(len(found.records)).csv())
