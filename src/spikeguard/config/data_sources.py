"""Images that a recipe or --data names: a data set, own files, or a part of another package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.config.contracts import require_data_function
from spikeguard.config.errors import ConfigError, ConfigPath, raised
from spikeguard.config.plugins import NO_PLUGINS, Plugins, is_reference

if TYPE_CHECKING:
    from spikeguard.data.datasets import DataSet
    from spikeguard.data.images import Splits
    from spikeguard.data.own import EvaluationImages, OwnData

__all__ = ["load_images", "load_test_images"]


def load_images(
    name: str,
    data_root: str | Path | None = None,
    *,
    where: ConfigPath | str = "--data",
    plugins: Plugins = NO_PLUGINS,
    **settings: Any,
) -> Splits:
    """Load the images to train on.

    Args:
        name: A name in ``DATASETS``, the path of own data, or ``package.module:part``: a
            ``DataSet``, or a function without arguments that returns images (see ``own_data``).
        data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.
        where: Path in the recipe or option, for messages.
        plugins: Packages that may be imported.
        settings: Arguments of :func:`spikeguard.data.load`.

    Raises:
        ConfigError: If there are no such data, or they are damaged or rejected.
    """
    from spikeguard.data.datasets import DATASETS, DataSet, load, load_own

    part = _own_part(name, where, plugins) if is_reference(name) else None
    try:
        if part is None or isinstance(part, DataSet):
            known = DATASETS if part is None else {name: part}
            return load(name, data_root, known=known, **settings)
        return load_own(part, name, **settings)
    except ValueError as error:
        if not is_reference(name) and isinstance(where, str) and name in DATASETS:
            raise
        raise ConfigError(f"{where}: {str(error).removeprefix('load: ')}") from error
    except Exception as error:
        if not is_reference(name):
            raise
        raise ConfigError(f"{where}: {name} {raised(error)}") from error


def load_test_images(
    name: str,
    data_root: str | Path | None = None,
    *,
    where: ConfigPath | str = "--data",
    plugins: Plugins = NO_PLUGINS,
    size: int | None = None,
) -> Splits | EvaluationImages:
    """Load the images to attack; own data need no training images. See ``load_images``.

    With a ``size``, image files are cut to it and read when they are attacked.
    """
    from spikeguard.data.datasets import DATASETS, DataSet
    from spikeguard.data.own import find_own, read_own
    from spikeguard.data.paths import data_root as root_of

    if is_reference(name):
        own = _own_part(name, where, plugins)
        if isinstance(own, DataSet):
            return load_images(name, data_root, where=where, plugins=plugins)
    else:
        path = None if name in DATASETS else find_own(name, root_of(data_root))
        if path is None:
            cut: dict[str, Any] = (
                {"size": size} if name in DATASETS and DATASETS[name].sized else {}
            )
            return load_images(name, data_root, where=where, **cut)
        try:
            own = read_own(path, size)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
    try:
        return own.for_evaluation(name)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _own_part(name: str, where: ConfigPath | str, plugins: Plugins) -> DataSet | OwnData:
    """Import ``package.module:part``; call a function, and return what it returns as own data."""
    from spikeguard.data.datasets import DataSet
    from spikeguard.data.own import own_data

    part = plugins.find(name, where)
    if isinstance(part, DataSet):
        return part
    require_data_function(part, name, where)
    here = Path.cwd()
    try:
        made = part()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: {name} {raised(error)}") from error
    finally:
        os.chdir(here)
    if made is None:
        raise ConfigError(f"{where}: {name} returns None; let it return the images, (x, y).")
    try:
        return own_data(made, name)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{where}: {name} {raised(error)}") from error
