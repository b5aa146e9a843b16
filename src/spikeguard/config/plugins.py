"""Parts from other packages, named ``my_package.parts:Mine`` in recipes and on the command line.

A recipe is data: a package is imported only if it was allowed, by ``--plugin my_package`` or the
argument ``plugins=["my_package"]``.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

from spikeguard.config.errors import ConfigError, ConfigPath, raised

__all__ = ["NO_PLUGINS", "SEARCHED", "Plugins", "import_part", "is_reference"]

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_REFERENCE = re.compile(rf"{_NAME.pattern}:[^\W\d]\w*")
SEARCHED = "it is looked for in the current folder and among the installed packages"


def is_reference(name: object) -> bool:
    """Whether a name refers to a part of another package: ``package.module:Part``."""
    return isinstance(name, str) and _REFERENCE.fullmatch(name) is not None


@dataclass(frozen=True)
class Plugins:
    """The packages whose parts may be imported by name.

    Args:
        packages: Top-level packages, or modules of them.

    Raises:
        ConfigError: If there is no such package.
    """

    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.packages:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"--plugin: expected the name of a package such as my_package, got {name!r}."
                )
            if not _exists(name):
                raise ConfigError(f"--plugin: no module named {name!r}; {SEARCHED}.")

    @classmethod
    def of(cls, packages: Iterable[str] | Plugins) -> Plugins:
        """Allow packages by name; a Plugins object is returned unchanged."""
        return packages if isinstance(packages, Plugins) else cls(tuple(dict.fromkeys(packages)))

    def and_module_of(self, name: str, where: str) -> Plugins:
        """Also allow the module of ``package.module:Part``, named on the command line by the user.

        Raises:
            ConfigError: If there is no such module.
        """
        module = name.partition(":")[0]
        if not _exists(module):
            raise ConfigError(f"{where}: no module named {module!r}; {SEARCHED}.")
        return Plugins(tuple(dict.fromkeys((*self.packages, module))))

    def find(self, name: str, where: ConfigPath | str) -> Any:
        """Import the part that ``package.module:Part`` names.

        Raises:
            ConfigError: If the package is not allowed, cannot be imported, or has no such part.
        """
        package = name.partition(":")[0]
        if not any(package == each or package.startswith(f"{each}.") for each in self.packages):
            raise ConfigError(
                f"{where}: {name!r} is a part of another package, which is imported only if you "
                f"allow it; add --plugin {package.partition('.')[0]}."
            )
        return import_part(name, where)

    def versions(self) -> dict[str, str | None]:
        """Return the version of each top-level package; None where it does not declare one."""
        tops = dict.fromkeys(name.partition(".")[0] for name in self.packages)
        return {name: _version(name) for name in tops}


NO_PLUGINS = Plugins()


def import_part(name: str, where: ConfigPath | str, *, what: str = "name") -> Any:
    """Import ``package.module:attribute``.

    Raises:
        ConfigError: If the text has another form, the module cannot be imported, or it has no such
            attribute.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{where}: expected package.module:{what}, got {name!r}.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{where}: {module_name} needs the module {error.name!r}, which is not installed."
            ) from error
        raise ConfigError(f"{where}: no module named {error.name!r}; {SEARCHED}.") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: {name} {raised(error)}") from error
    part = getattr(module, attribute, None)
    if part is None and attribute in vars(module):
        raise ConfigError(f"{where}: {name} is None.")
    if part is None:
        close = difflib.get_close_matches(attribute, vars(module), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"{where}: {module_name} has no {attribute!r}.{hint}")
    return part


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
    except (Exception, SystemExit) as error:  # a parent package raises when it is imported
        raise ConfigError(f"--plugin: {name} {raised(error)}") from error


def _version(package: str) -> str | None:
    for distribution in packages_distributions().get(package, ()):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    try:
        found = getattr(importlib.import_module(package), "__version__", None)
    except (Exception, SystemExit):  # reported where a part of it is imported
        return None
    return None if found is None else str(found)
