"""A PostgreSQL server on the loopback interface, in a temporary folder."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.toys.ports import free_port

PASSWORD = "a secret/with@signs"
QUOTED = "a%20secret%2Fwith%40signs"


def programs():
    """Return the folder of initdb and postgres; skip the test where there is none."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    pytest.skip("PostgreSQL is not installed: no initdb and postgres")


def ordinary_user():
    """Return how to start a process as an ordinary user: the server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'nobody'")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Server:
    """A server that can crash and come back with what it held.

    Its encoding is ASCII, the least that a server has.

    Attributes:
        url: Address of an empty database.
    """

    def __init__(self, folder):
        place, who = programs(), ordinary_user()
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            if who:
                os.chown(path, who["user"], who["group"])
        data, self._how = folder / "data", {"cwd": folder, "env": {"LC_ALL": "C"}, **who}
        login = ["-U", "me", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
        subprocess.run(
            [place / "initdb", "-D", data, "-N", *login],
            check=True,
            capture_output=True,
            **self._how,
        )
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        self._command = [place / "postgres", "-D", data, *options]
        self.url = f"postgresql://me:{QUOTED}@127.0.0.1:{port}/postgres"
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, **self._how
        )
        assert any("ready to accept connections" in line for line in self._process.stderr)

    def stop(self, how=signal.SIGINT):
        """End it with a signal: SIGINT ends the connections that are left, SIGKILL is a crash."""
        self._process.send_signal(how)
        self._process.communicate()


@contextmanager
def postgres():
    """Yield the URL of an empty database."""
    with crashing_postgres() as server:
        yield server.url


@contextmanager
def crashing_postgres():
    """Yield a :class:`Server`."""
    pytest.importorskip("psycopg")
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        server = Server(Path(name))
        try:
            yield server
        finally:
            server.stop()
