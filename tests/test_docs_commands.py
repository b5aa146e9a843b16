"""Every command on every page is one that the command line accepts."""

import re
import shlex
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from spikeguard.cli.entry import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL = ("", "sh", "bash", "console")
_MESSAGE = re.compile(r"spikeguard [a-z ]+:")  # "spikeguard train: unknown key ..."
_SYNOPSIS = re.compile(r" {3,}[^#\s]")  # a command, then what it does


def commands(text):
    """Return the commands in the blocks of a page, as words."""
    found = []
    for kind, block in _BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines() if kind in _SHELL else []
        for line in map(str.strip, lines):
            skipped = _MESSAGE.match(line) or _SYNOPSIS.search(line)
            if line.startswith("spikeguard ") and not skipped:
                alone = re.split(r" (?:\||&&|>) ", line)[0]
                found.append(shlex.split(alone, comments=True))
    return found


def rejected(words):
    try:
        app.parse_args(words[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return f"{shlex.join(words)}: {error}"
    return None


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if commands(page.read_text(encoding="utf-8"))],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_the_commands_of_a_page_are_accepted(page):
    found = commands(page.read_text(encoding="utf-8"))
    assert [problem for words in found if (problem := rejected(words))] == []


def test_a_wrong_option_is_noticed():
    (words,) = commands("```\nspikeguard attack runs/x --siute snn   # a typo\n```\n")
    assert "--siute" in rejected(words)
    assert len([words for page in PAGES for words in commands(page.read_text("utf-8"))]) > 50
