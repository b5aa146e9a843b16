"""The study of a sweep in an Optuna storage: a journal file in its folder, or a database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spikeguard.config.errors import ConfigError
from spikeguard.sweeps.file_locks import exclusive, journal_backend
from spikeguard.sweeps.samplers import make_pruner

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study

__all__ = [
    "JOURNAL",
    "LOCK",
    "close_study",
    "database_errors",
    "open_study",
    "require_database",
]

JOURNAL = "study.log"
LOCK = "queue.lock"
_SPEC = "spec"
_DATABASE = re.compile(r"(postgres(?:ql)?|mysql|mariadb)(\+\w+)?://")
# what to install; module and name of the driver that is used if it is present; the other one
_POSTGRES = ("postgres", ("psycopg2", "psycopg2"), "psycopg")
_MYSQL = ("mysql", ("MySQLdb", "mysqldb"), "pymysql")
_PATIENCE = 10  # seconds to connect


def open_study(
    name: str,
    spec: Mapping[str, Any],
    *,
    storage: str | None,
    folder: Path,
    directions: Sequence[Literal["minimize", "maximize"]],
    prune: bool = False,
) -> Study:
    """Open the study of a sweep, or create it; a folder is made once the database has answered.

    Args:
        name: Its name in the storage.
        spec: What the sweep is, as plain data; a stored study must have the same.
        storage: URL of a database, such as postgresql://host/name; None for a journal file in
            ``folder``.
        folder: Folder of the sweep.
        directions: "maximize" or "minimize" for each objective.
        prune: Stop trials below the median.

    Raises:
        ConfigError: If the storage cannot be reached, or holds another study of that name; or if
            the folder holds something else.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with database_errors(storage):
        place = None if storage is None else _database(storage)
        _require_own(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / LOCK):
            study = optuna.create_study(
                study_name=name,
                storage=_journal(folder) if place is None else place,
                pruner=make_pruner(prune),
                directions=list(directions),
                load_if_exists=True,
            )
            now, stored = json.loads(json.dumps(spec)), study.user_attrs.get(_SPEC)
            if stored is None:
                study.set_user_attr(_SPEC, now)
    if stored not in (None, now):
        close_study(study)
        keys = [key for key in {**stored, **now} if stored.get(key) != now.get(key)]
        was, given = (str(each.get(keys[0])) for each in (stored, now))
        raise ConfigError(
            f"{folder} holds another sweep, or study {name!r} of the database does: {keys[0]} was "
            f"{was}, is now {given}; choose another folder with --out."
        )
    return study


def close_study(study: Study) -> None:
    """Close the connections of a study to its database."""
    from optuna.storages import RDBStorage

    backend = getattr(study._storage, "_backend", None)  # under Optuna's cache
    if isinstance(backend, RDBStorage):
        backend.remove_session()
        backend.engine.dispose()


@contextmanager
def database_errors(url: str | None) -> Iterator[None]:
    """Raise what a database reports inside the block as one line without the password.

    Raises:
        ConfigError: If the database cannot be reached or answers with an error.
    """
    if url is None:
        yield
        return
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        first = next((line for line in str(cause or error).splitlines() if line.strip()), "")
        raise ConfigError(
            f"--storage: {_without_password(url)} cannot be used: {_hidden(first, url)}"
        ) from None  # the cause shows the address


def _journal(folder: Path) -> BaseStorage:
    from optuna.storages.journal import JournalStorage

    return JournalStorage(journal_backend(folder / JOURNAL))


def require_database(url: str | None) -> None:
    """Connect to a database once; nothing is written.

    Args:
        url: Its URL; None for a journal file, which needs none.

    Raises:
        ConfigError: If it is no URL of a database, its driver is missing, or it does not answer.
    """
    if url is None:
        return
    from sqlalchemy import create_engine

    with database_errors(url), _driver_errors(url):
        address, connect = _address(url)
        engine = create_engine(address, connect_args=connect)
        try:
            engine.connect().close()
        finally:
            engine.dispose()


def _database(url: str) -> BaseStorage:
    from optuna.storages import RDBStorage

    with _driver_errors(url):
        address, connect = _address(url)
        return RDBStorage(address, engine_kwargs={"connect_args": connect, "pool_pre_ping": True})


def _address(url: str) -> tuple[str, dict[str, Any]]:
    """Return the URL with its driver, and the options of a connection."""
    found = _DATABASE.match(url)
    if found is None:
        raise ConfigError(
            f"--storage: a database such as postgresql://host/name or mysql://host/name, got "
            f"{_without_password(url)}; leave it out for a file in the folder of the sweep."
        )
    kind, driver = found.groups()
    _, (module, usual), other = _drivers(url)
    if driver is None:
        driver = f"+{usual}" if find_spec(module) else f"+{other}"
    connect: dict[str, Any] = {"connect_timeout": _PATIENCE}
    if kind.startswith("postgres"):
        kind = "postgresql"
        connect["client_encoding"] = "utf8"  # of the database else: bytes instead of text in ASCII
    return f"{kind}{driver}://{url[found.end() :]}", connect


def _drivers(url: str) -> tuple[str, tuple[str, str], str]:
    return _POSTGRES if url.startswith("postgres") else _MYSQL


@contextmanager
def _driver_errors(url: str) -> Iterator[None]:
    """Raise a missing driver as one line that says what to install."""
    try:
        yield
    except ImportError as error:
        reason = _hidden(str(error).partition("\n")[0], url)
        raise ConfigError(
            f"--storage: {_without_password(url)} needs a driver, such as pip install "
            f"'spikeguard[{_drivers(url)[0]}]': {reason}"
        ) from None


def _without_password(url: str) -> str:
    return re.sub(r"//.*@", "//", url)


def _hidden(text: str, url: str) -> str:
    """Return a message without the user and password of an address."""
    found = re.search(r"//(.*)@", url)
    secrets = [found[1], found[1].partition(":")[2]] if found else []
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text


def _require_own(folder: Path) -> None:
    """Reject a folder that holds something else than a sweep."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another folder with --out.")
    known = (JOURNAL, LOCK)
    used = folder.is_dir() and any(folder.iterdir())
    if used and not any((folder / name).exists() for name in known):
        raise ConfigError(f"{folder} holds no sweep; choose another folder with --out.")
