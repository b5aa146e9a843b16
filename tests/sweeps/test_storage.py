"""Databases: three workers on PostgreSQL and on MySQL, one killed; what fails is one line."""

import sys

import pytest

from spikeguard.cli.entry import main
from spikeguard.config.errors import ConfigError
from spikeguard.sweeps.engine import sweep
from tests.toys.mysql import mysql
from tests.toys.postgres import PASSWORD, QUOTED, postgres
from tests.toys.sweeps import TINY, begun, toy_sweep

AXES = ["--x", "neuron.v_th=0.5,1", "--y", "neuron.tau=2,3", "--steps", "1"]
MAP = ["map", "demo/vanilla", *TINY, *AXES]
SWEEP = ["sweep", "demo/vanilla", "neuron.v_th=0.5,1", "--maximise", "accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "server, refused", [(postgres, "authentication failed"), (mysql, "Access denied")]
)
def test_three_workers_one_of_them_killed_leave_the_same_table(tmp_path, server, refused):
    sweep(toy_sweep(tmp_path / "a" / "toy"))
    with server() as url:
        moments = (("begun", 1.0), ("recorded", 2.0))
        of = toy_sweep(tmp_path / "b" / "toy", killed=moments, storage=url)
        found = sweep(of, jobs=3)
        assert found.left == 0 and found.failed == []
        names = {path.name for path in (tmp_path / "b" / "toy").iterdir()}
        assert {"begun-1.0", "recorded-2.0"} <= names and "study.log" not in names
        again = begun(tmp_path / "b" / "toy")
        assert [again.count(v_th) for v_th in (0.5, 1.0, 1.5, 2.0)] == [1, 2, 1, 2]
        stored = [tmp_path / name / "toy" / "sweep.json" for name in "ab"]
        assert stored[0].read_bytes() == stored[1].read_bytes()

        elsewhere = toy_sweep(tmp_path / "c" / "toy", storage=url)  # as from another machine
        assert len(sweep(elsewhere).records) == 4
        assert not (tmp_path / "c" / "toy" / "begun.txt").exists()

        with pytest.raises(ConfigError, match="study 'toy' of the database does: fields was"):
            sweep(toy_sweep(tmp_path / "d" / "toy", fields=["neuron.v_th=1,3"], storage=url))

        wrong = url.replace(QUOTED, "another-one")
        with pytest.raises(ConfigError, match=f"cannot be used: .*{refused}") as caught:
            sweep(toy_sweep(tmp_path / "e", storage=wrong))
        assert "another-one" not in str(caught.value) and not (tmp_path / "e").exists()
        assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("command", ["sweep", "map"])
def test_a_database_that_does_not_answer_is_one_line_without_the_password(
    tmp_path, capsys, command
):
    pytest.importorskip("psycopg")
    url = "postgresql://me:secret@127.0.0.1:1/none"
    words = SWEEP if command == "sweep" else MAP
    assert main([*words, "--storage", url, "--out", str(tmp_path / "a")]) == 2
    shown = capsys.readouterr()
    (line,) = shown.err.splitlines()
    assert line.startswith(f"spikeguard {command}: --storage: postgresql://127.0.0.1:1/none cannot")
    assert "secret" not in shown.err + shown.out and "Traceback" not in shown.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [SWEEP, MAP], ids=["sweep", "map"])
def test_a_storage_that_is_no_database_is_one_line(tmp_path, capsys, command):
    words = [*command, "--storage", "sqlite:///x.db", "--out", str(tmp_path / "a")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--storage: a database such as postgresql://host/name" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "url", "extra"),
    [
        (SWEEP, "mysql://me:secret@there/x", "mysql"),
        (SWEEP, "mariadb://me:secret@there/x", "mysql"),
        (MAP, "mysql://me:secret@there/x", "mysql"),
        (MAP, "postgresql+asyncpg://me:secret@there/x", "postgres"),
    ],
)
def test_a_missing_driver_is_named(tmp_path, capsys, monkeypatch, command, url, extra):
    for driver in ("MySQLdb", "pymysql", "asyncpg"):
        monkeypatch.setitem(sys.modules, driver, None)  # importing it fails
    assert main([*command, "--storage", url, "--out", str(tmp_path / "a")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    shown = url.replace("me:secret@", "")
    assert f"{shown} needs a driver, such as pip install 'spikeguard[{extra}]'" in line
    assert "secret" not in line and list(tmp_path.iterdir()) == []
