"""Of several ranks only rank 0 writes output; another one speaks where rank 0 cannot."""

import sys

import pytest

from spikeguard.cli.entry import main
from spikeguard.cli.rank_output import is_one_of_several, of_first_rank
from spikeguard.training.world import RankLost

PLACE = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture
def rank(monkeypatch):
    def become(number):
        for name, value in (PLACE | {"RANK": str(number), "LOCAL_RANK": str(number)}).items():
            monkeypatch.setenv(name, value)

    return become


@pytest.mark.parametrize(("number", "seen"), [(0, "said"), (1, "")])
def test_rank_0_alone_writes(rank, capsys, number, seen):
    rank(number)
    with of_first_rank():
        print("said")
        print("said", file=sys.stderr)
    shown = capsys.readouterr()
    assert (shown.out.strip(), shown.err.strip()) == (seen, seen)


def test_only_trainings_are_shared(rank, monkeypatch):
    assert not is_one_of_several(["train", "demo/tgo"])
    rank(0)
    assert is_one_of_several(["train", "demo/tgo"]) and not is_one_of_several(["sweep", "demo/tgo"])
    monkeypatch.setenv("RANK", "five")  # the command reports it
    assert not is_one_of_several(["train", "demo/tgo"])


def test_a_broken_environment_is_one_line(rank, monkeypatch, capsys):
    rank(0)
    monkeypatch.setenv("RANK", "five")
    assert main(["train", "demo/tgo"]) == 2
    assert capsys.readouterr().err == (
        "spikeguard train: RANK is a whole number >= 0, got 'five'.\n"
    )


@pytest.mark.parametrize("must_show", [False, True])
def test_rank_1_reports_the_death_of_rank_0(rank, monkeypatch, capfd, must_show):
    """Its own line goes around the silence; the exit code is that of the failure."""

    def lost(place):
        raise RankLost("rank 0 has died", exit_code=75, must_show=must_show)

    rank(1)
    monkeypatch.setattr("spikeguard.cli.commands.train.joined", lost)
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    with of_first_rank():
        assert main(["train", "demo/tgo"]) == 75
    shown = capfd.readouterr().err
    assert shown == ("spikeguard train: rank 0 has died\n" if must_show else "")
