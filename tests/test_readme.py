"""Every command of the README, run in its order beside the folders of the demo.

The blocks of Python run in tests/test_docs_code.py.
"""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from spikeguard.cli.entry import app, main
from spikeguard.data import downloads
from tests.toys.report_runs import plant_demo

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [(found[1], found[2]) for found in re.finditer(r"^```(\w*)\n(.*?)^```", TEXT, re.M | re.S)]
NET = """
import torch

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""
ALSO_NAMES = {"YAML", "UCI", "MNIST", "PGD"}  # PGD is spelt out with PGD-40
SMALL = {  # what is added to a command so that it ends in seconds
    "train": [
        *("data.train_limit=60", "data.test_limit=12", "model.T=2", "model.width=2"),
        *("model.hidden=", "model.neuron=lif", "train.epochs=1", "evaluate.eot="),
        *(
            "evaluate.suite=quick",
            "evaluate.eps=0.1",
            "evaluate.checkpoint=best",
            "evaluate.limit=",
        ),
    ],
    "attack": ["--limit", "4"],
    "audit": ["--quick", "--limit", "4"],
    "analyse": ["zeros", "activity", "--limit", "4"],
}


def commands(word):
    """Return the commands of the README that begin with a word, without their comments."""
    lines = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.partition(" ")[0] == word]


def test_every_line_of_a_block_is_a_command_that_a_test_runs():
    lines = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
    assert {line.partition(" ")[0] for line in lines} == {"make", "python3", "pip", "spikeguard"}
    assert [kind for kind, _ in BLOCKS if kind] == ["python"]


def test_make_and_pip_name_what_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for _, target in commands("make"):
        assert re.search(rf"^{target}:", makefile, re.M), target
    assert "spikeguard demo --out runs/demo" in makefile
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for command in commands("pip"):
        for word in command:
            assert word != "constraints.txt" or (ROOT / word).is_file()
            for extra in re.findall(r"\[(\w+)\]", word):
                assert extra in extras["optional-dependencies"]


def test_a_target_runs_although_a_folder_has_its_name():
    """Such as docs: without .PHONY make calls it up to date."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    assert sorted(phony.split()) == sorted(re.findall(r"^([a-z-]+):", makefile, re.M))


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A folder as ``make demo`` leaves it, with a network of the reader's own."""
    monkeypatch.chdir(tmp_path)
    plant_demo(tmp_path / "runs" / "demo")
    (tmp_path / "my_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.manual_seed(0)
    torch.save(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).state_dict(), "net.pt"
    )
    yield tmp_path
    sys.modules.pop("my_nets", None)


@pytest.mark.slow
def test_the_commands_run_in_their_order(fresh, monkeypatch, capsys):
    fetched, measured = [], []

    def stub(*, quick: bool = False) -> int:  # benchmarks run in tests/benchmarking
        measured.append(quick)
        return 0

    monkeypatch.setattr(app["bench"], "default_command", stub)
    monkeypatch.setattr(
        downloads, "download", lambda name, root, **_: fetched.append(name) or Path(name)
    )
    ran = []
    for _, *words in commands("spikeguard"):
        short = ["snn-short" if word == "snn" else word for word in words]
        code = main([*short, *SMALL.get(words[0], [])])
        told = capsys.readouterr()
        assert code in ({0, 3, 4, 5} if "--strict" in words else {0}), (words, told.err)
        ran.append(words[0])
    expected = ["list", "train", "attack", "audit", "analyse", "report", "attack", "bench", "data"]
    assert ran == expected
    assert (fetched, measured) == (["cifar10"], [True])
    assert (fresh / "runs/tgo-50/report.html").is_file()


def test_the_readme_says_how_long_the_demo_and_a_search_take():
    """Also how to show progress or to hide it."""
    (demo,) = [line for line in TEXT.splitlines() if line.startswith("make demo")]
    assert re.search(r"\d+ minutes on two cores", demo)
    assert re.search(r"search takes minutes.*`progress=None` hides it.*`progress=function`", TEXT)


def test_acronyms_of_the_readme_are_explained():
    """Each stands in brackets behind its words, or behind a name that is spelt out."""
    explained = set(re.findall(r"[\w-]+", " ".join(re.findall(r"\(([^()]*)\)", TEXT))))
    for word in ("SNNs", "PGD-40", "GPU", "TGO", "LIF", "PLIF", "DLIF", "StoG", "MTPGD", "FAB-T"):
        assert word in explained
    lists = "".join(re.findall(r"^\| .*$", TEXT, re.M))
    used = set(re.findall(r"(?<![\w-])[A-Z][A-Z-]*[A-Z](?![\w-])", lists))
    assert used - explained - ALSO_NAMES == set()


def test_the_numbers_of_the_demo_are_those_of_its_table():
    """Both pages print one run; a fresh number on one of them only is an error."""
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"- In the demo.*?(?=\n- )", TEXT, re.S)
    numbers = re.findall(r"(\d+\.\d) (?:%|and)", said)
    assert len(numbers) == 4
    rows = {
        name: re.search(rf"^\| {name} \| 0\.1 \|.*$", results, re.M)[0]
        for name in ("Vanilla", "AT")
    }
    assert [n for n in numbers if n in rows["AT"]] == numbers[:2]
    assert [n for n in numbers if n in rows["Vanilla"]] == numbers[2:]
