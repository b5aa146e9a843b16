"""Load a foreign model for the command line: call its factory, load weights, check, store."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.model_access import evaluating
from spikeguard.config.data_sources import load_test_images
from spikeguard.config.errors import ConfigError, raised
from spikeguard.config.plugins import NO_PLUGINS, SEARCHED, Plugins, import_part
from spikeguard.data.datasets import DATASETS
from spikeguard.data.images import ImageSet, Splits
from spikeguard.data.own import EvaluationImages
from spikeguard.encoders.input_space import InputSpace, require_same_kind, space_of
from spikeguard.evaluation.parallel import Reload
from spikeguard.export.importer import load_nir
from spikeguard.models.adapters.classifier import Foreign, foreign
from spikeguard.models.adapters.presentation import ImagesRefused
from spikeguard.models.snn import SNN
from spikeguard.preflight.checker import Preflight, described
from spikeguard.preflight.checker import check as examine
from spikeguard.runs.model_card import image_facts, weights_of, write_or_check_card
from spikeguard.storage.checkpoints import read_weights, restore_model
from spikeguard.storage.folder_lock import locked
from spikeguard.storage.npz_files import DamagedFile
from spikeguard.storage.torch_files import read_torch_file
from spikeguard.storage.weight_names import fitted

__all__ = [
    "ForeignSubject",
    "call_factory",
    "load_foreign_model",
    "load_weights",
    "results_folder",
]

_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
)  # keys that hold the weights
_CHECKED = 32
_NIR = "nir:"  # a model that is a NIR file


@dataclass(frozen=True)
class ForeignSubject:
    """A foreign model and the images to attack it on.

    Attributes:
        path: Folder of the results.
        model: The classifier.
        data: Its images.
        preflight: Result of the check before any attack; None if it was skipped.
        plugins: Packages from which parts may be imported.
        reload: A function that returns the model and its test images in another process.
    """

    path: Path
    model: nn.Module
    data: Splits | EvaluationImages
    preflight: Preflight | None
    reload: Reload
    plugins: Plugins = NO_PLUGINS


def load_foreign_model(
    model: str,
    *,
    weights: Path | None,
    T: int | None,
    framework: Any,
    readout: Any,
    data: str | None,
    out: Path | None,
    data_root: Path | None,
    plugins: Plugins = NO_PLUGINS,
    check: bool = True,
) -> ForeignSubject:
    """Build, load, adapt and check a foreign model; write its folder after all checks have passed.

    With ``check=False`` one image is shown, to detect how the network is run.

    Raises:
        ConfigError: If any step fails; the message is one line.
    """
    if data is None:
        raise ConfigError(
            "--data: name the images to attack, such as --data digits, data.npz, a folder of "
            "images, or my_module:function."
        )
    images = load_test_images(data, data_root, plugins=plugins)
    adapted = _built(model, weights, T, framework, readout, images.test.space)
    images = _in_steps(images, adapted)
    try:
        require_same_kind(space_of(adapted), images.test.space, f"--data: {data}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    x, y = images.test.batch(slice(_CHECKED))
    try:
        preflight = examine(adapted, x, y) if check else None
        if preflight is None:
            with evaluating(adapted), torch.no_grad():
                adapted(x[:1])
    except AttackError:
        raise
    except (RuntimeError, TypeError, ImagesRefused) as error:
        steps = f" in T={adapted.T} steps" if isinstance(adapted, Foreign) else ""
        why = error.why if isinstance(error, ImagesRefused) else _line(error)
        raise ConfigError(
            f"--model: {model} cannot be shown images of {data} {list(x.shape[1:])}{steps}: {why}"
        ) from error
    weights_now = weights_of(adapted)
    driven, neurons = described(adapted)
    facts = {} if data in DATASETS else image_facts(images.test)
    card = {"model": model, "data": data, "weights": weights_now, **facts, **driven}
    card["neurons"] = neurons
    path = results_folder(model, out)
    given = {"model": model, "weights": weights, "T": T, "framework": framework}
    given |= {"readout": readout, "data": data}
    words = [word for n, v in given.items() if v is not None for word in (f"--{n}", str(v))]
    found = {} if preflight is None else preflight.to_dict()
    shown = {"check": {name: v for name, v in found.items() if name not in card}} if found else {}
    with locked(path, if_writable=True):
        write_or_check_card(
            path, card, {"arguments": words, **shown}, free=("data",) if facts else ()
        )
    how = (model, weights, T, framework, readout, images.test.space)
    digests = (weights_now, images.test.digest)
    again = partial(_reloaded, how, data, data_root, digests, plugins)
    return ForeignSubject(path, adapted, images, preflight, again, plugins)


def results_folder(model: str, out: Path | None) -> Path:
    """Return the folder of the results of a foreign model: ``out``, or one named by its factory.

    The results of a NIR file ``nir:folder/net.nir`` are in ``runs/nir.net``.
    """
    if out is not None:
        return out
    if model.startswith(_NIR):
        return Path("runs") / f"nir.{Path(model.removeprefix(_NIR)).stem}"
    return Path("runs") / model.replace(":", ".")


def _built(
    model: str,
    weights: Path | None,
    T: int | None,
    framework: Any,
    readout: Any,
    space: InputSpace,
) -> nn.Module:
    if model.startswith(_NIR):
        for name, given in (("weights", weights), ("framework", framework), ("readout", readout)):
            if given is not None:
                raise ConfigError(f"--{name}: a NIR file has its own; leave it out.")
        return load_nir(model.removeprefix(_NIR), T=T)
    made = call_factory(model)
    if weights is not None:
        load_weights(weights, made.model if isinstance(made, Foreign) else made)
    return _adapted(made, T, framework, readout, space)


def _in_steps(images: Splits | EvaluationImages, model: nn.Module) -> Splits | EvaluationImages:
    """Return images with recordings, where there are any, framed in the steps of the model."""
    T = getattr(model, "T", None)

    def framed(part: Any) -> Any:
        if part is None or not hasattr(part, "framing") or T in (None, part.framing.T):
            return part
        return replace(part, framing=replace(part.framing, T=T))

    parts = {name: framed(getattr(images, name)) for name in ("test", "val")}
    if all(part is getattr(images, name) for name, part in parts.items()):
        return images
    return EvaluationImages(parts["test"], parts["val"])


def _reloaded(
    how: tuple[Any, ...], data: str, root: Path | None, digests: tuple[str, str], plugins: Plugins
) -> tuple[nn.Module, ImageSet]:
    adapted = _built(*how)
    images = _in_steps(load_test_images(data, root, plugins=plugins), adapted).test
    if weights_of(adapted) != digests[0]:
        raise ConfigError(
            f"--jobs: {how[0]} makes other weights at every call; pass --weights, or --jobs 1."
        )
    if images.digest != digests[1]:
        raise ConfigError(f"--jobs: {data} gives other images at every call; fix its seed.")
    with torch.no_grad():
        adapted(images.batch(slice(_CHECKED))[0])  # detects how to present images
    return adapted, images


def call_factory(text: str) -> nn.Module:
    """Import and call ``package.module:factory``; modules of the current folder are found too.

    Raises:
        ConfigError: If there is no such module or factory, or it does not return an nn.Module.
    """
    here = Path.cwd()
    sys.path.insert(0, str(here))
    try:
        factory = import_part(text, "--model", what="factory")
        if not callable(factory):
            kind = type(factory).__name__
            raise ConfigError(
                f"--model: {text} is no factory but of type {kind}; write a function that returns "
                "the network."
            )
        made = factory()
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigError(f"--model: no module named {error.name!r}; {SEARCHED}.") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--model: {text} {raised(error)}") from error
    finally:
        sys.path.remove(str(here))
        os.chdir(here)  # results go where the user said, whatever the factory did
    if not isinstance(made, nn.Module):
        raise ConfigError(f"--model: {text} returns {type(made).__name__}, not an nn.Module.")
    return made.eval()


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a state dict, strictly; only tensors are ever unpickled.

    Raises:
        ConfigError: If the file is missing or damaged, holds code, or holds no state dict.
        CheckpointError: If it belongs to another model.
    """
    if path.suffix == ".safetensors" or path.is_dir():
        _restore(model, read_weights(path), str(path))
        return
    if not path.is_file():
        raise ConfigError(f"--weights: {path}: no such file.")
    try:
        found = read_torch_file(path)
    except DamagedFile as error:
        raise ConfigError(f"--weights: {error}") from error
    inside = next((k for k in _WRAPPERS if isinstance(found, dict) and k in found), None)
    if inside is not None and isinstance(found[inside], dict):
        found = found[inside]
    if not _is_state_dict(found):
        raise ConfigError(f"--weights: {path} holds no state dict, a table of names and tensors.")
    _restore(model, found, f"--weights: {path}")


def _restore(model: nn.Module, found: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict whose names may have the prefixes of wrappers; see ``fitted``."""
    restore_model(model, fitted(found, model.state_dict()), where=where)


def _is_state_dict(found: object) -> bool:
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in found.items()
    )


def _adapted(
    made: nn.Module, T: int | None, framework: Any, readout: Any, space: InputSpace
) -> nn.Module:
    if isinstance(made, Foreign | SNN):
        given = [n for n, v in (("T", T), ("framework", framework), ("readout", readout)) if v]
        if given:
            raise ConfigError(
                f"--{given[0]}: the factory returns a model that already is a classifier over T "
                "steps; leave it out."
            )
        return made
    if T is None:
        raise ConfigError("--T: pass the number of time steps the network was trained with.")
    return foreign(made, T=T, framework=framework or "auto", readout=readout, space=space)


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
