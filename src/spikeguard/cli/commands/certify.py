"""``spikeguard certify``: certified radii of a smoothed network, and attacks on it beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from spikeguard.cli.console import Plugin, allowed_plugins, note, numbers, progress, say, table
from spikeguard.cli.device import device_of
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.config.errors import ConfigError

if TYPE_CHECKING:
    from spikeguard.certification.bounds import Certificate
    from spikeguard.certification.certify import Sampling
    from spikeguard.certification.result import Certification
    from spikeguard.evaluation.statistics import Score

__all__ = ["certify"]

Number = Annotated[str | None, Parameter(allow_leading_hyphen=True)]


def certify(
    run: Path,
    *,
    sigma: Number = None,
    n0: int = 100,
    n: int = 1000,
    alpha: float = 0.001,
    attack: Number = None,
    limit: int | None = None,
    seed: int | None = None,
    device: Literal["cpu", "cuda"] | None = None,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Certify radii inside which the smoothed classifier of a run keeps its class.

    The smoothed classifier returns the class that the network returns most often under noise. It is
    what is certified, not the bare network. With --sigma the noise is Gaussian and the radius L2;
    without it the noise is that of the network's rate coding (radius L1) or RSC coding (radius L2).

    Results are stored image by image in RUN/certificates; an interrupted command continues where it
    stopped. 'spikeguard report' shows them.

    Args:
        run: A run folder.
        sigma: Standard deviation of Gaussian noise on the input, in pixels of [0, 1], such as 0.25.
        n0: Noise draws that choose the class of an image.
        n: Further draws that bound its probability; more give larger radii.
        alpha: Probability that the certificate of an image is wrong, at most.
        attack: Radii at which the same classifier is attacked too, such as 0.1,0.25: an upper bound
            beside the lower one.
        limit: Number of test images, from the first; all when left out.
        seed: Seed of all random numbers; the run's seed when left out.
        device: Where the network runs; the first GPU if there is one, when left out.
        json: Print the results as JSON and nothing else on standard output.
        plugin: Package whose parts the recipe may name as package.module:Part; repeated or with
            commas. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.certification.certify import Sampling, smoothing_of
    from spikeguard.config.builder import require_images
    from spikeguard.runs.certificates import certify_once
    from spikeguard.runs.run import Run
    from spikeguard.storage.run_folder import CERTIFICATES

    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: a number of images >= 1, got {limit}.")
    deviation = None if sigma is None else _one("--sigma", sigma)
    radii = [] if attack is None else sorted(set(numbers("--attack", [attack])))
    if any(radius <= 0 for radius in radii):
        raise ConfigError(f"--attack: radii > 0 in pixels of [0, 1], got {radii[0]:g}.")
    Sampling(n0, n, alpha, seed or 0)  # before anything is read
    plugins, where = allowed_plugins(plugin), device_of(device)
    loaded = Run.load(run, data_root=data_root, plugins=plugins, device=where)
    require_images(limit, loaded.data, "--limit")
    sampling = Sampling(n0, n, alpha, loaded.recipe.seed if seed is None else seed)
    certificate = smoothing_of(loaded.model, deviation)
    _require_balls(certificate, radii, loaded.data.test.images[:1].numel())
    with progress(f"certify {run}") as update:
        found = certify_once(
            loaded, certificate, sampling, limit=limit, radii=radii, progress=update
        )
    _show(found, certificate, sampling)
    say(f"results in {run / CERTIFICATES}")
    if json:
        write_result("certify", _plain(found, run))
    return 0


def _one(option: str, text: str) -> float:
    found = numbers(option, [text])
    if len(found) != 1:
        raise ConfigError(f"{option}: one number, got {text!r}.")
    return found[0]


def _require_balls(certificate: Certificate, radii: list[float], pixels: int) -> None:
    """Reject radii that reach every image, before anything is computed."""
    from spikeguard.system.pixel_units import radius_problem

    for radius in radii:
        problem = radius_problem(certificate.norm, radius, pixels)
        if problem:
            raise ConfigError(f"--attack: {problem}")


def _show(found: Certification, certificate: Certificate, sampling: Sampling) -> None:
    """Print certified and attacked accuracy at a few radii."""
    from spikeguard.certification.bounds import clopper_pearson

    most = certificate.radius(clopper_pearson(sampling.n, sampling.n, sampling.alpha))
    shown = sorted({*(round(most * k / 4, 3) for k in range(4)), *found.attacks})
    say(f"{found.smoothing}; norm {found.norm}; {len(found.records)} images")
    rows = [
        (f"{radius:g}", _text(found.certified(radius)), _text(found.attacked(radius)))
        for radius in shown
    ]
    table(("radius", "certified: at least, %", "attacked: at most, %"), rows)
    alpha, n = f"{sampling.alpha:g}", f"n = {sampling.n}"
    say(f"abstained {_text(found.abstained)} %; largest radius that {n} can certify: {most:.4g};")
    say(f"the certificate of each image is wrong with a probability of {alpha} at most")
    if found.contradictions:
        note(
            f"{found.contradictions} images were broken inside their certified radius; at most "
            f"about {2 * sampling.alpha * len(found.records):.1g} are expected"
        )


def _text(score: Score | None) -> str:
    if score is None:
        return "not attacked"
    return str(score).replace("%", "").replace("  ", " ").strip()


def _plain(found: Certification, run: Path) -> dict[str, object]:
    return {
        "folder": run,
        "smoothing": found.smoothing,
        "norm": found.norm,
        "settings": dict(found.settings),
        "images": len(found.records),
        "abstained": found.abstained,
        "curve": [
            {"radius": r, "certified": found.certified(r), "attacked": found.attacked(r)}
            for r in found.radii()
        ],
        "contradictions": found.contradictions,
    }
