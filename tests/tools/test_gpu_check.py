"""tools/gpu_check.py: parts in time, resuming, and a dry run of everything."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toys.scripts import loaded

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"


@pytest.fixture(scope="module")
def tool():
    """The command as a module; its steps are imported from the folder beside it."""
    with loaded(TOOLS / "gpu_check.py") as module:
        yield module


@pytest.fixture
def with_gpu(tool, monkeypatch):
    """A machine that has everything, so that no process is started to describe it."""
    found = {"torch": "9", "spikeguard": "1", "gpu": "A GPU", "xdist": "3"}
    monkeypatch.setattr(tool, "_machine", lambda check, clock: dict(found))
    monkeypatch.setattr(tool, "_require_row", lambda check, clock: None)


class Recorded:
    """Parts that note their time and end as they are told."""

    def __init__(self, **outcomes):
        self.outcomes, self.seconds = outcomes, {}

    def parts(self):
        def part(name):
            def run(check, seconds):
                self.seconds[name] = seconds
                status = self.outcomes[name]
                return (status, "why") if status == "failed" else (status, "")

            return run

        return {name: (1.0, part(name)) for name in self.outcomes}


def call(tool, tmp_path, *words):
    return tool.main(["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), *words])


def state(tmp_path):
    return json.loads((tmp_path / "work" / "state.json").read_text())["parts"]


def test_each_part_gets_its_share_of_what_is_left(tool, tmp_path, with_gpu, monkeypatch):
    """Of 315 s, 15 are kept; three parts that end at once get a third, a half and all of 300."""
    recorded = Recorded(a="done", b="done", c="done")
    monkeypatch.setattr(tool, "PARTS", recorded.parts())
    assert call(tool, tmp_path, "--seconds", "315") == 0
    assert list(recorded.seconds.values()) == pytest.approx([100, 150, 300], rel=0.2)


def test_a_second_call_goes_on_with_what_is_not_done(tool, tmp_path, with_gpu, monkeypatch):
    first = Recorded(a="done", b="stopped", c="failed", d="waits")
    monkeypatch.setattr(tool, "PARTS", first.parts())
    assert call(tool, tmp_path) == 1
    assert {name: part["status"] for name, part in state(tmp_path).items()} == first.outcomes
    second = Recorded(a="failed", b="done", c="done", d="done")
    monkeypatch.setattr(tool, "PARTS", second.parts())
    assert call(tool, tmp_path) == 0
    assert list(second.seconds) == ["b", "c", "d"]
    assert {part["status"] for part in state(tmp_path).values()} == {"done"}


def test_no_part_begins_when_the_time_is_over(tool, tmp_path, with_gpu, monkeypatch):
    recorded = Recorded(a="done")
    monkeypatch.setattr(tool, "PARTS", recorded.parts())
    assert call(tool, tmp_path, "--seconds", "1") == 0
    assert recorded.seconds == {}
    assert state(tmp_path)["a"]["status"] == "stopped"


def test_a_killed_call_leaves_the_results_so_far(tool, tmp_path, with_gpu, monkeypatch):
    def killed(check, seconds):
        raise SystemExit(143)

    parts = {**Recorded(a="done").parts(), "b": (1.0, killed)}
    monkeypatch.setattr(tool, "PARTS", parts)
    with pytest.raises(SystemExit):
        call(tool, tmp_path)
    found = json.loads((tmp_path / "out" / "results.json").read_text())["parts"]
    assert (found["a"]["status"], found["b"]["status"]) == ("done", "stopped")


def test_the_work_goes_on_from_an_output_folder_alone(tool, tmp_path, with_gpu, monkeypatch):
    monkeypatch.setattr(tool, "PARTS", Recorded(a="done", b="stopped").parts())
    call(tool, tmp_path)
    again = Recorded(a="done", b="done")
    monkeypatch.setattr(tool, "PARTS", again.parts())
    words = ["--out", str(tmp_path / "out2"), "--work", str(tmp_path / "elsewhere")]
    assert tool.main([*words, "--resume-from", str(tmp_path / "out")]) == 0
    assert list(again.seconds) == ["b"]


def test_a_row_waits_for_its_images(tool, tmp_path):
    waiting = ["part wheels-0.tar: not here yet", "part cifar10-test_batch.npz: not here yet"]
    check = tool.Check(tmp_path, False, "strong/wrn16_4-at", [], None, waiting)
    assert tool.row(check, 10.0) == ("waits", "part cifar10-test_batch.npz: not here yet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seconds", "0"], "--seconds: the time is positive, got 0"),
        (["--unpack", "nowhere"], "nowhere holds no manifest.json; bring it with the parts"),
        (["--resume-from", "."], "--resume-from: . holds no work.tar.gz.0"),
    ],
)
def test_bad_input_is_one_line(tool, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert call(tool, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpu_check: ") and message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_or_torch_it_says_what_to_do(tool, tmp_path, capsys, monkeypatch):
    said = {"torch": "2.13.0+cpu", "spikeguard": "0.1.0", "gpu": None}

    def describe(self, seconds, *words, env=None):
        (self.work / "machine.json").write_text(json.dumps(said))
        return tool.Ended(0, 0.0)

    monkeypatch.setattr(tool.Check, "run", describe)
    assert call(tool, tmp_path) == 2
    assert capsys.readouterr().err == (
        "gpu_check: torch 2.13.0+cpu sees no CUDA device; add --dry-run to run the same steps on "
        "the CPU.\n"
    )
    said["torch"] = "missing: No module named 'torch'"
    assert call(tool, tmp_path) == 2
    assert "torch cannot be imported: missing: No module named" in capsys.readouterr().err


def test_a_row_that_cannot_be_read_is_named_before_anything_runs(
    tool, tmp_path, capsys, monkeypatch
):
    recorded = Recorded(a="done")
    monkeypatch.setattr(tool, "PARTS", recorded.parts())
    monkeypatch.setattr(tool, "_machine", lambda check, clock: {})
    assert call(tool, tmp_path, "--dry-run", "--recipe", "demo/att") == 2
    said = capsys.readouterr().err
    assert "unknown recipe 'demo/att'" in said and len(said.splitlines()) == 1
    assert recorded.seconds == {}


def test_a_folder_has_one_row(tool, tmp_path, with_gpu, capsys, monkeypatch):
    monkeypatch.setattr(tool, "PARTS", Recorded(a="done").parts())
    assert call(tool, tmp_path, "--recipe", "demo/at") == 0
    assert call(tool, tmp_path, "--recipe", "demo/tgo") == 2
    assert "has the row demo/at train.precision=bf16; choose another" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made_is_known_at_once(tool, tmp_path, capsys, monkeypatch):
    recorded = Recorded(a="done")
    monkeypatch.setattr(tool, "PARTS", recorded.parts())
    (tmp_path / "file").write_text("")
    words = ["--out", str(tmp_path / "file" / "out"), "--work", str(tmp_path / "work")]
    assert tool.main(words) == 2
    assert "Not a directory" in capsys.readouterr().err and recorded.seconds == {}


def test_without_a_folder_it_says_so(tool, capsys, monkeypatch):
    monkeypatch.delenv("OUT", raising=False)
    assert tool.main([]) == 2
    assert "--out: name the folder of the results, or set OUT" in capsys.readouterr().err


def test_a_dry_run_and_a_real_one_have_different_folders(tool, tmp_path, with_gpu, monkeypatch):
    monkeypatch.setattr(tool, "PARTS", Recorded(a="done").parts())
    assert call(tool, tmp_path, "--dry-run") == 0
    assert call(tool, tmp_path) == 2
    (tmp_path / "work" / "state.json").write_text("{")
    assert call(tool, tmp_path) == 2


@pytest.mark.slow
def test_the_dry_run_takes_every_step(tool, tmp_path):
    words = [sys.executable, str(TOOLS / "gpu_check.py"), "--dry-run", "--out", str(tmp_path / "o")]
    words += ["--work", str(tmp_path / "work"), "--seconds", "280"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, (done.stdout, done.stderr, (tmp_path / "work/log.txt").read_text())
    found = json.loads((tmp_path / "o" / "results.json").read_text())
    assert {name: part["status"] for name, part in found["parts"].items()} == dict.fromkeys(
        tool.PARTS, "done"
    )
    assert set(found["tests"]["outcomes"]) == {"skipped"}
    assert {key.partition("/")[0] for key in found["bench"]["bench"]["cases"]} == {"equal", "time"}
    assert set(found["roofline"]["cases"]) == {"float32/T2", "bfloat16/T2"}
    assert len(found["epochs"]) == found["plan"]["epochs"]
    assert [card["samples"] for card in found["attacks"].values()] == [4, 4]
    page = (tmp_path / "o" / "summary.md").read_text()
    assert "A dry run on the CPU" in page and "worst case" in page
    assert len(list((tmp_path / "o").iterdir())) <= 8
