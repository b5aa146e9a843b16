"""Ranks that attack one run together: bits, deaths, other settings, full disks."""

import errno
import json
import os
import shutil
import signal

import pytest

from spikeguard.cli.entry import main
from spikeguard.evaluation import plan as plan_module
from spikeguard.evaluation.result_files import PARTS
from spikeguard.storage.claims import Claims
from spikeguard.storage.members import RANKS
from spikeguard.storage.owner import Owner
from tests.drill.runs import TINY, content
from tests.toys.ranks import after, dies_at, rank_of, shards, wait_for, wait_until

pytestmark = pytest.mark.slow

ATTACK = ("--suite", "quick", "--eps", "0.05", "--cascade")
STEM = "quick-linf-0.05-cascade-last"  # the result's name
FIRST_TWO = ("fgsm", "pgd10")  # attacks of the suite


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    words = ["train", "demo/vanilla", *TINY, "data.test_limit=12", "train.epochs=2"]
    assert main([*words, "--out", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory):
    """What one process leaves."""
    path = shutil.copytree(trained, tmp_path_factory.mktemp("alone") / "run")
    assert main(["attack", str(path), *ATTACK]) == 0
    return content(path)


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def written(path, number):
    return path.with_name(f"{path.name}.rank-{number}").read_text()


def one_line(capsys):
    shown = capsys.readouterr()
    (line,) = [each for each in shown.err.splitlines() if each.startswith("spikeguard")]
    assert "Traceback" not in shown.err
    return line


def test_two_ranks_give_the_bits_of_one_process(run, alone):
    """Both ran a shard: each waits for one of the other before it goes on."""
    words = ["attack", run, *ATTACK]
    first = rank_of(0, 2, words, before=after(lambda: shards(run)))
    second = rank_of(1, 2, words, before=after(lambda: len(shards(run)) > 1, second=True))
    assert wait_for(first, second) == [0, 0]
    assert content(run) == alone
    assert "worst case" in written(run, 0) and written(run, 1) == ""
    log = (run / RANKS / "rank-1.log").read_text()
    assert f": {FIRST_TWO[0]} (0/12)" in log and "(12/12)" in log
    assert [each.name for each in (run / RANKS).iterdir()] == ["rank-1.log"]


def test_a_killed_rank_loses_nothing_and_the_other_finishes(run, alone):
    """Rank 1 is killed within its first shard, after two attacks, which are not run again."""
    words = ["attack", run, *ATTACK]
    killed = rank_of(1, 2, words, before=dies_at(3, signal.SIGKILL))
    wait_until(lambda: list(run.glob(f"attacks/*/{PARTS}/*.begun")))
    other = rank_of(0, 2, words, before=after(lambda: ended(run)))
    assert wait_for(killed, other) == [-signal.SIGKILL, 0], written(run, 0)
    assert content(run) == alone
    begun = [line for line in written(run, 0).splitlines() if "linf eps 0.05: " in line]
    assert not any(f": {name} (0/12" in line for line in begun for name in FIRST_TWO)


def ended(run):
    """Whether the process of the only shard claim has ended."""
    (claim,) = run.glob(f"{RANKS}/*@0*.claim-0")
    return not Owner.of(json.loads(claim.read_text())).runs()


def test_an_array_task_leaves_when_no_shard_is_free_and_the_rest_is_kept(run, alone):
    """This process claims the first shard, as a task that is slow."""
    claims = Claims(run / RANKS)
    with claims.take(f"{STEM}@00000000"):
        (code,) = wait_for(rank_of(1, 2, ["attack", run, *ATTACK], array=True))
        assert code == 0
        assert "its last images are with other tasks; no result yet" in written(run, 1)
        kept = {shard.name: shard.read_bytes() for shard in shards(run)}
        assert kept and "00000000.npz" not in kept
    assert wait_for(rank_of(0, 2, ["attack", run, *ATTACK], array=True)) == [0]
    assert "worst case" in written(run, 0)
    assert content(run) == alone


def test_ranks_of_other_settings_are_refused_in_one_line(run, capsys, monkeypatch):
    holder = rank_of(0, 2, ["attack", run, *ATTACK], before=after(lambda: False))
    try:
        ready = run / "attacks" / STEM / PARTS / "check.json"
        wait_until(lambda: ready.exists() and not list(run.glob(f"{RANKS}/*@result*")))
        before = content(run)
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
        assert main(["attack", str(run), *ATTACK, "--limit", "7"]) == 2
        line = one_line(capsys)
        assert f"process {holder} (rank 0 of 2)" in line and "--limit (none there, 7 here)" in line
        monkeypatch.undo()
        assert main(["attack", str(run), *ATTACK]) == 2  # alone: it would write the same files
        assert f"process {holder} (rank 0 of 2) writes to it" in one_line(capsys)
        assert content(run) == before
    finally:
        os.kill(holder, signal.SIGKILL)
        wait_for(holder)


def test_a_rank_with_other_data_is_refused_and_says_so(run, capsys, monkeypatch):
    """The identity of the shards is of other images, as on a node with another disk."""
    code = wait_for(rank_of(1, 2, ["attack", run, *ATTACK], before=dies_at(3, signal.SIGKILL)))
    assert code == [-signal.SIGKILL]
    (card,) = run.glob(f"attacks/*/{PARTS}/identity.json")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"data": "of another disk"}))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["attack", str(run), *ATTACK]) == 2
    assert "holds an unfinished evaluation with other data;" in one_line(capsys)


def test_a_full_disk_is_one_line_and_releases_the_claim(run, alone, capsys, monkeypatch):
    """The second shard finds no space; the first one is kept, and the rest is run later."""
    real, calls = plan_module.write_npz, []

    def full(path, **arrays):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, **arrays)

    monkeypatch.setattr(plan_module, "write_npz", full)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["attack", str(run), *ATTACK]) == 2
    assert one_line(capsys).endswith(f"{calls[1]}: No space left on device")
    assert len(shards(run)) == 1 and not (run / RANKS).exists()
    assert main(["attack", str(run), *ATTACK]) == 0
    assert content(run) == alone


@pytest.mark.parametrize(
    ("given", "words", "line"),
    [
        ({"RANK": "1"}, (), "RANK is set and WORLD_SIZE is not"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, (), "SLURM_ARRAY_TASK_COUNT is not"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, ("--jobs", "2"), "--jobs: the 2 ranks share the images"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, ("--suite", "qiuck"), "unknown suite 'qiuck'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(given, words, line, run, capsys, monkeypatch):
    before = content(run)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["attack", str(run), *words]) == 2
    assert line in one_line(capsys)
    assert content(run) == before and not (run / RANKS).exists()


def test_what_all_ranks_have_wrong_only_the_first_one_says(run, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["attack", str(run), "--suite", "qiuck"]) == 2
    assert capsys.readouterr() == ("", "")
    assert "unknown suite 'qiuck'" in (run / RANKS / "rank-1.log").read_text()


def test_an_audit_is_run_by_the_first_rank_alone(run, capsys, monkeypatch):
    before = content(run)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["audit", str(run), "--quick"]) == 0
    assert capsys.readouterr() == ("", "") and content(run) == before
