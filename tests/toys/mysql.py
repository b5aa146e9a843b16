"""A MariaDB server, which speaks MySQL, on the loopback interface, in a temporary folder."""

import getpass
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.toys.postgres import PASSWORD, QUOTED


@contextmanager
def mysql():
    """Yield the URL of an empty database."""
    pytest.importorskip("pymysql")
    install = shutil.which("mariadb-install-db")
    server = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    if install is None or server is None:
        pytest.skip("MariaDB is not installed: no mariadb-install-db and mariadbd")
    with tempfile.TemporaryDirectory(prefix="mysql-") as name:
        folder = Path(name)
        data, start = folder / "data", folder / "start.sql"
        who = [f"--user={getpass.getuser()}", f"--datadir={data}"]
        subprocess.run([install, "--no-defaults", *who], check=True, capture_output=True)
        start.write_text(
            "CREATE DATABASE toy;\n"  # one statement a line
            f"CREATE USER me@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON toy.* TO me@'127.0.0.1';\n"
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = [
            *("--no-defaults", *who, f"--init-file={start}", f"--socket={folder / 'socket'}"),
            *("--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve"),
        ]
        with (folder / "log").open("w") as log:
            running = subprocess.Popen([server, *words], stderr=log)
        try:
            _wait(running, folder / "log")
            yield f"mysql://me:{QUOTED}@127.0.0.1:{port}/toy"
        finally:
            running.terminate()
            running.wait()


def _wait(running, log):
    """Return when the server has said in its log that it is ready."""
    deadline = time.monotonic() + 60
    while "ready for connections" not in log.read_text():
        assert running.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
