"""A MariaDB server, which speaks MySQL, on the loopback interface, in a temporary folder."""

import getpass
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.toys.ports import free_port
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
        port = free_port()
        words = [
            *("--no-defaults", *who, f"--init-file={start}", f"--socket={folder / 'socket'}"),
            *("--bind-address=127.0.0.1", f"--port={port}", "--skip-name-resolve"),
        ]
        running = subprocess.Popen([server, *words], stderr=subprocess.PIPE, text=True)
        try:
            assert any("ready for connections" in line for line in running.stderr)
            yield f"mysql://me:{QUOTED}@127.0.0.1:{port}/toy"
        finally:
            running.terminate()
            running.communicate()
