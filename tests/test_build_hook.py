"""The build hook: with a compiler there is a library, without one there is a reason."""

import json
import shutil
from pathlib import Path

import pytest

from tests.toys.scripts import loaded

ROOT = Path(__file__).parent.parent
pytest.importorskip("hatchling", reason="hatchling builds the package; it is in the extra 'dev'")


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Compile in an empty folder, with $CXX set to a word."""

    def run(compiler, source="int x;\n"):
        monkeypatch.setenv("CXX", compiler)
        (tmp_path / "cpu.cpp").write_text(source)
        with loaded(ROOT / "hatch_build.py") as hook:
            libraries, reason = hook.compile_kernel(tmp_path)
        card = json.loads((tmp_path / "_cpu.json").read_text())
        assert card["libraries"] == libraries and card["reason"] == reason
        return libraries, reason, sorted(p.name for p in tmp_path.glob("*.so"))

    return run


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler on this machine")
def test_a_library_for_every_instruction_set(build):
    libraries, reason, files = build("c++")
    assert "base" in libraries and sorted(libraries.values()) == files and reason == ""


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler on this machine")
def test_a_failed_compilation_leaves_no_old_library_and_says_why(build):
    build("c++")
    libraries, reason, files = build("c++", source="no C++\n")
    assert libraries == {} and files == []
    assert reason.startswith("c++ failed when the package was installed: ") and "error" in reason


def test_no_compiler_is_a_reason_and_not_an_error(build, monkeypatch):
    _, reason, files = build("/no/such/compiler")
    assert files == [] and reason == "/no/such/compiler cannot be run: No such file or directory"
    monkeypatch.setenv("PATH", "")
    _, reason, _ = build("")
    assert reason.startswith("no C++ compiler was found")
