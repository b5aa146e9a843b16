"""The ranks of a training: one alone, batches they cannot divide, ranks that do not come."""

import socket

import pytest
import torch

from spikeguard.system.launch_place import Place
from spikeguard.training import meeting
from spikeguard.training.meeting import NotJoined, join
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import require_parts
from spikeguard.training.world import ALONE, World
from tests.toys.ports import free_port


def test_a_process_alone_keeps_its_values():
    assert ALONE.sum([1.0, 2.0]) == [1.0, 2.0] and ALONE.gather("a") == ["a"]
    assert ALONE.is_first and not ALONE.any(False) and ALONE.of_first(3) == 3
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError("a")


@pytest.mark.parametrize("count", [4, 7, 8])
def test_the_shares_of_all_ranks_are_the_rows_in_order(count):
    rows = torch.arange(count)
    shares = [World(Place(rank, 4, rank)).share(rows) for rank in range(4)]
    assert torch.equal(torch.cat(shares), rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("images", "batch", "accumulate", "message"),
    [
        (90, 10, 1, "batch_size 10 does not divide by 4 ranks; take train.batch_size 8 or 12"),
        (90, 2, 1, "take train.batch_size 4, or another number"),
        (96, 12, 2, "4 ranks times 2 parts .accumulate.; take train.batch_size 8 or 16"),
        (91, 8, 1, "the last batch of an epoch has 3 of 91 images, too few for 4 ranks"),
        (92, 8, 2, "the last batch of an epoch has 4 of 92 images"),
    ],
)
def test_batches_that_the_ranks_cannot_divide_are_rejected(images, batch, accumulate, message):
    options = TrainOptions(batch_size=batch, accumulate=accumulate)
    with pytest.raises(ValueError, match=message):
        require_parts(images, options, 4)


def test_batches_that_they_can_divide_are_accepted():
    for images, batch in ((92, 8), (95, 12), (8, 16)):
        require_parts(images, TrainOptions(batch_size=batch), 4)


def test_a_missing_rank_is_named():
    place = Place(0, 2, 0)
    with (
        pytest.raises(NotJoined, match=r"1 of 2 ranks did not come .* within 0.2 s: 1;") as error,
        join(place, "127.0.0.1", free_port(), seconds=0.2),
    ):
        pass
    assert error.value.must_show


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_unreachable_rank_0_is_named_before_the_store_waits_and_tries_again(host, monkeypatch):
    """TCPStore waits two to three times its time, and prints the frames of its C++ code."""
    monkeypatch.setattr(meeting, "TCPStore", None)
    port = free_port()
    with (
        pytest.raises(NotJoined, match=rf"rank 3 of 4 on .* cannot reach rank 0 at {host}:{port}"),
        join(Place(3, 4, 1), host, port, seconds=0.2),
    ):
        pass


def test_a_rank_waits_for_the_host_of_the_store(monkeypatch):
    port, tries = free_port(), []

    def late(where, timeout):
        tries.append(where)
        if len(tries) < 3:
            raise ConnectionRefusedError("not yet")
        return socket.socket()

    monkeypatch.setattr(meeting.socket, "create_connection", late)
    monkeypatch.setattr(meeting.time, "sleep", lambda seconds: None)
    meeting._await_host("node7", port, 60)
    assert tries == [("node7", port)] * 3


def test_only_the_entry_that_differs_is_named(monkeypatch):
    ours = {"code": 1, "recipe": {"data": {"name": "digits", "limit": None}, "seed": 0}}
    theirs = {"code": 1, "recipe": {"data": {"name": "digits", "limit": 65}, "seed": 1}}
    ranks = World(Place(0, 2, 0))
    monkeypatch.setattr(ranks, "gather", lambda facts: [ours, ours])
    ranks.require_equal(ours)
    monkeypatch.setattr(ranks, "gather", lambda facts: [ours, theirs])
    with pytest.raises(ValueError) as error:
        ranks.require_equal(ours)
    assert str(error.value) == (
        "rank 1 has another recipe.data.limit than rank 0, 65 instead of None; give all ranks the "
        "same code, data and settings."
    )
