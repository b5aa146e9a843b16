"""Claims: one owner at a time, planted owners on this and other hosts, planted times."""

import json
import os
import platform
import subprocess
import sys
import time

import pytest

from spikeguard.storage import claims as claims_module
from spikeguard.storage.claims import SILENT, Claims, has_ended
from spikeguard.storage.owner import Owner


def plant(folder, *, host=None, pid=None, silent=0.0, number=0):
    """Leave the claim "a" of another process, silent for so many seconds; return its file."""
    folder.mkdir(exist_ok=True)
    file = folder / f"a.claim-{number}"
    owner = Owner(os.getpid() if pid is None else pid, host or platform.node(), "1")
    file.write_text(json.dumps(owner.to_dict()))
    now = file.stat().st_mtime
    os.utime(file, (now - silent, now - silent))
    return file


def test_a_claim_is_held_once_and_released(tmp_path):
    claims = Claims(tmp_path / "ranks", {"rank": "rank 1 of 2"})
    with claims.take("a") as held:
        card = json.loads((tmp_path / "ranks" / "a.claim-0").read_text())
        assert card == {**Owner.this_process().to_dict(), "rank": "rank 1 of 2"}
        assert claims.take("a") is None and not held.lost
        with claims.take("b"):
            pass
    assert list((tmp_path / "ranks").iterdir()) == []
    with claims.take("a"):
        pass


def test_the_claim_of_a_killed_process_is_taken_over_in_the_next_generation(tmp_path):
    code = """
import os, signal, sys
from pathlib import Path
from spikeguard.storage.claims import Claims
Claims(Path(sys.argv[1])).take("a")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9 and (tmp_path / "a.claim-0").exists()
    claims = Claims(tmp_path)
    with claims.take("a"):
        assert claims.generations("a") == [0, 1]
        assert claims.take("a") is None
    claims.clear("a")
    assert list(tmp_path.iterdir()) == []


def test_a_process_of_this_host_that_runs_keeps_its_claim_however_silent(tmp_path):
    file = plant(tmp_path, silent=10 * SILENT)
    file.write_text(json.dumps(Owner.this_process().to_dict()))
    os.utime(file, (0, 0))
    assert Claims(tmp_path).take("a") is None


@pytest.mark.parametrize("skew", [-86400.0, 0.0, 86400.0])
@pytest.mark.parametrize(("silent", "taken"), [(SILENT - 60, False), (SILENT + 60, True)])
def test_the_silence_of_another_host_counts_in_the_file_systems_time(
    skew, silent, taken, tmp_path, monkeypatch
):
    """A day's difference between the clock of this host and that of the disk changes nothing."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew)
    plant(tmp_path, host="elsewhere", silent=silent)
    assert (Claims(tmp_path).take("a") is not None) == taken


def test_the_clock_of_this_host_would_be_wrong(tmp_path, monkeypatch):
    """The planted fault: with it, a claim that was just renewed would be taken over."""
    monkeypatch.setattr(claims_module, "_now", lambda folder: time.time() + 86400)
    assert has_ended(plant(tmp_path, host="elsewhere"))


@pytest.mark.parametrize(("silent", "taken"), [(0.0, False), (SILENT + 60, True)])
def test_a_claim_without_a_readable_owner_is_judged_by_its_silence(silent, taken, tmp_path):
    file = plant(tmp_path, silent=silent)
    before = file.stat().st_mtime
    file.write_text('{"pid": 1')
    os.utime(file, (before, before))
    assert (Claims(tmp_path).take("a") is not None) == taken


def test_of_two_that_take_over_one_succeeds_and_the_first_has_lost(tmp_path):
    """The first owner was silent, not dead: its claim is lost, the other one is not released."""
    claims = Claims(tmp_path)
    first = claims.take("a")
    (tmp_path / "a.claim-1").write_text(json.dumps(Owner.this_process().to_dict()))
    assert first.lost and claims.take("a") is None
    with first:
        pass
    assert claims.generations("a") == [1]


def test_a_late_generation_below_a_higher_one_is_given_back(tmp_path, monkeypatch):
    """A slow process judged generation 0; 1 was taken, given back and 2 taken meanwhile."""
    plant(tmp_path, pid=2**22 + 1)
    claims, real = Claims(tmp_path), Claims.generations
    seen = iter([[0]])
    plant(tmp_path, number=2)
    monkeypatch.setattr(
        Claims, "generations", lambda self, name: next(seen, None) or real(self, name)
    )
    assert claims.take("a") is None
    assert real(claims, "a") == [0, 2]


def test_a_full_disk_leaves_no_claim(tmp_path):
    """Where no byte can be written, taking is an error that names the file, and leaves nothing."""
    code = """
import resource, signal, sys
from pathlib import Path
from spikeguard.storage.claims import Claims
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Claims(Path(sys.argv[1])).take("a")
except OSError as error:
    print(error.filename)
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "a.claim-0")
    assert list(tmp_path.iterdir()) == []


def test_a_renewed_claim_is_young_again(tmp_path, monkeypatch):
    """The thread of a claim sets its time anew; waited for, not slept for."""
    monkeypatch.setattr(claims_module, "BEAT", 0.01)
    with Claims(tmp_path).take("a"):
        file = tmp_path / "a.claim-0"
        os.utime(file, (0, 0))
        until = time.monotonic() + 20
        while file.stat().st_mtime == 0 and time.monotonic() < until:
            pass
        assert file.stat().st_mtime > 0


def test_waiting_for_a_claim_ends_with_its_owner(tmp_path):
    plant(tmp_path, pid=2**22 + 1)  # ended
    with Claims(tmp_path).waiting("a"):
        assert Claims(tmp_path).generations("a") == [0, 1]
