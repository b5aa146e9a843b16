"""Every command on every page is one that the command line accepts; the cheap ones run.

README.md runs in tests/test_readme.py and your-data.md in tests/test_your_data.py. The commands of
results.md, which measured its tables, take hours. Analyses run in tests/analysis/test_analyse.py.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from spikeguard.auditing import CHECKS
from spikeguard.cli.entry import app, main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHELL = ("", "sh", "bash", "console")
_MESSAGE = re.compile(r"spikeguard [a-z ]+:")  # "spikeguard train: unknown key ..."
_SYNOPSIS = re.compile(r" {3,}[^#\s]")  # a command, then what it does
_NOT_RUN = ("README.md", "docs/your-data.md", "docs/results.md")
_SEARCH = re.compile(r"(?<![^,])snn(?:-short)?(?![^,])")  # a suite of some hundred steps
_LONG = ("demo", "bench", "reproduce", "sweep", "map", "download", "analyse")
_NOT_HERE = ("cifar10", "imagenet", "mini/", "runs/at-tgo", "my_package", "package.module")
_NOT_HERE += ("record/", "runs/wrn16_4-at-ema")  # CIFAR-10, at full size
_NOT_HERE += ("nir:",)  # the check before a foreign model rejects the silent network of this test
_NOT_HERE += ("nmnist", "--threat", "events")  # event recordings, and networks trained on them
LEFT_BEFORE = ("runs/demo/vanilla", "runs/demo/at", "runs/demo/tgo", "runs/demo/at-tgo")
LEFT_BEFORE += ("runs/first", "RUN")
TINY = [
    *("data.train_limit=60", "data.test_limit=12", "model.T=2", "model.width=2", "model.hidden=8"),
    *("train.epochs=1", "evaluate.suite=quick", "evaluate.eps=0.1", "evaluate.limit=4"),
]
SMALL = {  # what is added to a command so that it ends in a second
    "attack": {"--limit": ["2"], "--eot": ["1"]},
    "audit": {"--quick": [], "--limit": ["4"]},
    "certify": {"--limit": ["1"], "--attack": ["0.1"], "--n": ["100"]},
}


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


def cheap(words):
    """Whether a command needs only digits and the networks of the demo."""
    long = any(word in _LONG for word in words[1:3])
    return not long and not any(part in word for word in words for part in _NOT_HERE)


def shortened(words):
    """Return a command with a shorter search, on few images."""
    quick = [_SEARCH.sub("quick", word) for word in words[1:]]
    if words[1] == "train":
        return [*quick, *TINY]
    for option, value in SMALL.get(words[1], {}).items():
        if option not in quick:
            quick += [option, *value]
        else:
            start = quick.index(option) + 1
            quick[start : start + len(value)] = value
    return quick


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("docs") / "run"
    assert main(["train", "demo/vanilla", *TINY, "--out", str(path)]) == 0
    return path


RUN_HERE = [
    (page, cheap_ones)
    for page in PAGES
    if page.relative_to(ROOT).as_posix() not in _NOT_RUN
    and (cheap_ones := list(filter(cheap, commands(page.read_text(encoding="utf-8")))))
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "found"), RUN_HERE, ids=[page.stem for page, _ in RUN_HERE])
def test_the_cheap_commands_of_a_page_run_in_their_order(
    page, found, trained, tmp_path, monkeypatch, capsys
):
    """Beside the folders of the demo, and runs/first of the quick start if the page is another."""
    trains = [words for words in found if words[1] == "train" and "--out" in words]
    written = {words[words.index("--out") + 1] for words in trains}
    for name in {*LEFT_BEFORE} - ({"runs/first"} & written):
        shutil.copytree(trained, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    if page.name == "your-parts.md":  # what stands before the commands is the reader's module
        parts = page.read_text(encoding="utf-8").partition("\nspikeguard ")[0]
        blocks = [block for kind, block in _BLOCK.findall(parts) if kind == "python"]
        Path("my_parts.py").write_text("".join(blocks), encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
    for check in list(CHECKS)[6:]:  # how a verdict is reached is tested in tests/auditing
        monkeypatch.delitem(CHECKS, check)
    for words in found:
        code = main(shortened(words))
        verdict = {0, 3, 4, 5} if "--strict" in words else {0}
        assert code in verdict, (words, capsys.readouterr().err)


def test_most_commands_of_the_other_pages_run():
    """A page whose commands all become expensive would be left out in silence."""
    assert {page.stem for page, _ in RUN_HERE} >= {"quick-start", "recipes", "report", "json"}
    assert sum(len(found) for _, found in RUN_HERE) >= 24
