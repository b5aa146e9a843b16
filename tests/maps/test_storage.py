"""Maps on PostgreSQL: workers on several machines, one killed, leave the same map."""

import json

import pytest

from spikeguard.maps.operational_map import draw_map
from tests.toys.maps import begun, toy_map
from tests.toys.postgres import postgres


@pytest.mark.slow
def test_workers_of_two_machines_one_of_them_killed_draw_the_same_map(tmp_path):
    draw_map(toy_map(tmp_path / "a" / "toy", nx=3, ny=3))
    with postgres() as url:
        here = toy_map(tmp_path / "b" / "toy", storage=url, nx=3, ny=3, killed=(0.25,))
        assert draw_map(here, jobs=3).left == 0
        names = {path.name for path in (tmp_path / "b" / "toy").iterdir()}
        assert "killed-0.25" in names and "study.log" not in names
        elsewhere = toy_map(
            tmp_path / "c" / "toy", storage=url, nx=3, ny=3
        )  # as from another machine
        assert draw_map(elsewhere).left == 0 and not (tmp_path / "c" / "toy" / "begun.txt").exists()
    cards = [json.loads((tmp_path / n / "toy" / "map.json").read_text()) for n in "abc"]
    assert cards[0] == cards[1] == cards[2]
    assert len(begun(tmp_path / "b" / "toy")) == len(begun(tmp_path / "a" / "toy")) + 1
