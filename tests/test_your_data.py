"""docs/your-data.md: every code block is run, in the order of the page."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from spikeguard.cli.entry import main
from spikeguard.config.builder import load_data
from spikeguard.config.schema import load_recipe

PAGE = Path(__file__).parents[1] / "docs" / "your-data.md"
FEWER = "--limit 4 --quick"  # images of an audit
SMALLER = ["model.T=2", "model.width=2", "model.hidden=8"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def follow(text, folder):
    """Run the code blocks of a page in a folder; return the number of blocks of each kind.

    A Python block that begins with a file name is that file, other ones share their names.
    """
    names, ran = {}, dict.fromkeys(("file", "python", "command", "yaml"), 0)
    for kind, body in BLOCK.findall(text):
        title = re.match(r"# (\w+\.py)\n", body)
        if title:
            (folder / title[1]).write_text(body, encoding="utf-8")
            ran["file"] += 1
        elif kind == "python":
            exec(compile(body, str(PAGE), "exec"), names)
            ran["python"] += 1
        elif kind == "yaml":
            (folder / "recipe.yaml").write_text(body, encoding="utf-8")
            assert len(load_data(load_recipe("recipe.yaml")).test) == 40
            ran["yaml"] += 1
        else:
            for line in body.splitlines():
                program, *words = shlex.split(line.replace("--limit 16 --quick", FEWER))
                assert program == "spikeguard"
                words = [*words[:2], *SMALLER, *words[2:]] if words[0] == "train" else words
                assert main(words) == 0, line
                ran["command"] += 1
    return ran


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, whose modules can be imported and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) in map(str, tmp_path.glob("*.py")):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.timeout(900)  # it trains three networks and audits one
def test_every_block_of_the_page_runs(folder):
    text = PAGE.read_text(encoding="utf-8")
    ran = follow(text, folder)
    assert ran["command"] == len(re.findall(r"^spikeguard ", text, re.MULTILINE)) > 8
    assert (ran["file"], ran["yaml"]) == (2, 1)
    assert ran["python"] == text.count("```python") - ran["file"] > 4
    assert (folder / "runs/mine/on/noise/report.html").is_file()


def test_a_wrong_block_is_found(folder):
    with pytest.raises(AssertionError, match="list nothing"):
        follow("```\nspikeguard list nothing\n```\n", folder)
    with pytest.raises(NameError):
        follow("```python\nnothing\n```\n", folder)
