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


@contextmanager
def postgres():
    """Yield the URL of an empty database; its encoding is ASCII, the least that a server has."""
    pytest.importorskip("psycopg")
    place, who = programs(), ordinary_user()
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            if who:
                os.chown(path, who["user"], who["group"])
        data, how = folder / "data", {"cwd": folder, "env": {"LC_ALL": "C"}, **who}
        login = ["-U", "me", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
        subprocess.run(
            [place / "initdb", "-D", data, "-N", *login], check=True, capture_output=True, **how
        )
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command = [place / "postgres", "-D", data, *options]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how)
        try:
            assert any("ready to accept connections" in line for line in server.stderr)
            yield f"postgresql://me:{QUOTED}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # ends the connections that are left
            server.communicate()
