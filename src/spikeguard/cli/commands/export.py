"""``spikeguard export``: write the network of a run to a NIR or ONNX file, and verify the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spikeguard.cli.console import Plugin, allowed_plugins, say
from spikeguard.cli.json_output import AsJson, write_result
from spikeguard.config.errors import ConfigError

if TYPE_CHECKING:
    from spikeguard.data.images import ImageSet
    from spikeguard.models.snn import SNN

__all__ = ["export"]


def export(
    run: Path,
    /,
    *,
    to: Literal["nir", "onnx"],
    out: Path | None = None,
    checkpoint: Literal["best", "last"] | None = None,
    noise: Literal["on", "off"] = "on",
    weights: int | None = None,
    per: Literal["tensor", "channel"] | None = None,
    threshold_grid: float | None = None,
    limit: int = 128,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
) -> int:
    """Write the network of a run to a NIR or ONNX file, read the file back and verify it.

    A NIR file holds the network after its encoder: weights with normalisations folded in, pooling
    and neurons. It is verified on test images: all spikes and all logits. An ONNX file holds the
    whole classifier with its steps unrolled, and is verified with onnxruntime. A file that computes
    something else than the network is not written.

    Args:
        run: Run folder.
        to: Format: nir, for neuromorphic simulators and chips, or onnx.
        out: The file; RUN/export/<run>.nir or .onnx when left out, with a checkpoint other than
            the recipe's and the quantisation in its name.
        checkpoint: Weights of the best epoch or of the last; those that the run's recipe attacks
            when left out.
        noise: "off" exports a network with noisy neurons without its noise, which is another
            network; "on" rejects it.
        weights: Bits of a weight, 2 to 8, such as --weights 8; NIR only. Full precision when left
            out.
        per: One quantisation step for each tensor (default) or each output channel.
        threshold_grid: Round thresholds to multiples of this number, such as 0.25; NIR only.
        limit: Test images on which the file is verified.
        json: Print the result as JSON and nothing else on standard output.
        plugin: Package whose parts the recipe may name as package.module:Part. Its code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.export.exporter import export_nir
    from spikeguard.export.onnx_file import export_onnx
    from spikeguard.runs.run import Run

    small = {"--weights": weights, "--per": per, "--threshold-grid": threshold_grid}
    given = next((name for name, value in small.items() if value is not None), None)
    if to == "onnx" and given is not None:
        raise ConfigError(f"{given}: an ONNX file has full precision; export --to nir.")
    if per is not None and weights is None:
        raise ConfigError(f"--per {per} goes with --weights, the bits of a weight.")
    if limit < 2:
        raise ConfigError(f"--limit: at least 2 test images, got {limit}.")
    loaded = Run.load(run, data_root=data_root, plugins=allowed_plugins(plugin))
    model = _with_checkpoint(loaded.model, run, checkpoint)
    own = loaded.recipe.evaluate.checkpoint
    other = checkpoint if checkpoint not in (None, own) else None
    name = _name(run, to, other, weights, per, threshold_grid)
    path = run / "export" / name if out is None else out
    stated = {"checkpoint": checkpoint or own}
    if path.is_dir():
        raise ConfigError(f"--out: {path} is a folder; name a file.")
    images = loaded.data.test.subset(slice(limit))
    x, _ = images.batch(slice(None))
    if to == "onnx":
        written = export_onnx(model, path, x, noise=noise, stated=stated)
        say(f"{written}; accuracy {_share(written.predictions, images)}")
        result: dict[str, Any] = {"logits": written.logits, "stated": stated}
    else:
        options: dict[str, Any] = {"bits": weights, "threshold_grid": threshold_grid}
        options["stated"] = stated
        found = export_nir(model, path, x, noise=noise, per=per or "tensor", **options)
        say(f"network and graph: {found.mapping}")
        say(f"graph and file: {found.file}")
        for fact in ("weights", "thresholds", "noise"):
            say(f"{fact}: {found.facts[fact]}")
        before, after = _share(found.before, images), _share(found.after, images)
        say(f"accuracy on {len(x)} test images: {before} before, {after} in the file")
        result = {"nodes": found.nodes, "stated": dict(found.facts)}
        result |= {"mapping": vars(found.mapping), "read_back": vars(found.file)}
    say(f"checkpoint: {stated['checkpoint']}")
    say(f"written to {path}")
    if json:
        write_result("export", {"file": path, "images": len(x), **result})
    return 0


def _with_checkpoint(model: SNN, run: Path, name: str | None) -> SNN:
    """Load the weights of another checkpoint."""
    from spikeguard.storage.checkpoints import load, restore_model
    from spikeguard.storage.run_folder import CHECKPOINTS

    if name is None:
        return model
    place = run / CHECKPOINTS / name
    stored = load(place)
    if stored is None:
        raise ConfigError(f"--checkpoint: {place}: there is no checkpoint.")
    restore_model(model, stored.model, where=str(place))
    return model


def _name(
    run: Path,
    to: str,
    checkpoint: str | None,
    weights: int | None,
    per: str | None,
    threshold_grid: float | None,
) -> str:
    parts = [run.resolve().name]
    parts += [checkpoint] if checkpoint is not None else []
    parts += [f"w{weights}-{per or 'tensor'}"] if weights is not None else []
    parts += [f"grid{threshold_grid:g}"] if threshold_grid is not None else []
    return f"{'-'.join(parts)}.{to}"


def _share(predicted: Any, images: ImageSet) -> str:
    right = float((predicted == images.labels.to(predicted.device)).double().mean())
    return f"{100 * right:.1f} %"
