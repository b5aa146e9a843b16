"""The drill itself: it passes on today's readers and fails when a check is taken away."""

import pytest

from spikeguard.data import cifar
from tests.drill.mutate import MUTATIONS, mutated
from tests.drill.mutations import drill

pytestmark = pytest.mark.slow


def test_a_reader_without_its_check_is_silently_wrong(tmp_path, monkeypatch):
    def say(text, flush):
        (tmp_path / "said").open("a").write(text)

    for folder in ("whole", "blind"):
        (tmp_path / folder).mkdir()
    how = {"count": 12, "kinds": ("CIFAR-10 ",), "say": say}
    assert drill(tmp_path / "whole", **how) == 0
    assert "12/12  detected 12" in (tmp_path / "said").read_text()
    monkeypatch.setattr(cifar, "is_official", lambda *_: True)
    assert drill(tmp_path / "blind", **how) > 0


def test_mutations_are_seeded_and_change_the_data():
    data = bytes(range(256)) * 3
    names = set()
    for seed in range(100):
        changed, name = mutated(data, seed)
        assert changed != data
        assert mutated(data, seed) == (changed, name)
        names.add(name)
    assert names == {mutation.__name__ for mutation in MUTATIONS}
    assert mutated(b"a", 0)[0] != b"a"
