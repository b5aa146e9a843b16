"""CONTRIBUTING: its three walk-throughs are carried out on a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(python|diff)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PARTS = {  # the registry entries of the three walk-throughs, and what tests them
    "halving_lif": ("tests/contracts/test_neurons.py", "tests/neurons/test_halving_lif.py"),
    "bim": ("tests/contracts/test_attacks.py", "tests/attacks/searches/test_bim.py"),
    "logit_penalty": ("tests/contracts/test_defences.py", "tests/defences/test_logit_penalty.py"),
}

ALSO = ["tests/test_layering.py", "tests/neurons/test_custom_backward.py"]  # must pass as well


def copy_package(root):
    """Copy what the walk-throughs change, and the tests that they name."""
    ignore = shutil.ignore_patterns("__pycache__", "recipes")
    shutil.copytree(ROOT / "src" / "spikeguard", root / "src" / "spikeguard", ignore=ignore)
    for name in ("contracts", "toys"):
        shutil.copytree(ROOT / "tests" / name, root / "tests" / name, ignore=ignore)
    (root / "tests" / "neurons").mkdir()
    for name in ("tests/__init__.py", "tests/conftest.py", *ALSO):
        shutil.copy(ROOT / name, root / name)
    (root / "docs").mkdir()
    for name in ("pyproject.toml", "CONTRIBUTING.md", "docs/architecture.md"):
        shutil.copy(ROOT / name, root / name)


def follow(text, root):
    """Do what the code blocks say: write the files, and add the lines with a ``+``.

    A line with a ``+`` goes below the line before it, which must occur exactly once in the file.
    """
    for kind, name, body in BLOCK.findall(text):
        path = root / name
        if kind == "python":
            assert not path.exists(), f"{name} exists"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
            continue
        lines, at = path.read_text(encoding="utf-8").splitlines(), None
        for line in body.splitlines():
            if line.startswith("+"):
                at += 1
                lines.insert(at, line[1:])
            else:
                assert lines.count(line[1:]) == 1, f"{name}: {line[1:]!r} is not there once"
                at = lines.index(line[1:])
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pytest_on(root, *arguments):
    """Run pytest on the copy; return its exit code and its output."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_text_has_a_file_a_registry_line_and_a_test_for_each():
    kinds = [kind for kind, _, _ in BLOCK.findall(TEXT)]
    assert kinds == ["python", "diff", "python"] * len(PARTS)
    names = {name for _, name, _ in BLOCK.findall(TEXT)}
    assert {own for _, own in PARTS.values()} <= names
    assert TEXT.count("```python") + TEXT.count("```diff") == len(kinds), "a block without a path"


def test_the_walk_throughs_pass_their_own_tests_and_the_contracts(tmp_path):
    copy_package(tmp_path)
    follow(TEXT, tmp_path)
    files = [path for paths in PARTS.values() for path in paths]
    chosen = " or ".join([*PARTS, "test_layering"])
    code, said = pytest_on(tmp_path, *files, *ALSO, "-k", chosen, "-rpfE")
    assert code == 0, said
    for name, (contract, own) in PARTS.items():
        assert f"PASSED {own}::" in said
        passed = re.findall(rf"^PASSED {contract}::.*\b{name}\b", said, re.MULTILINE)
        assert len(passed) > 5, f"the contract hardly asks anything of {name}:\n{said}"


FAULTS = {
    "halving_lif": ("decay=0.5**steps", "decay=0.5"),
    "bim": ("self.threat.project(x_adv + length * self.threat.steepest(grad), x)", "x_adv + grad"),
    "logit_penalty": ("logits.square().mean()", "logits.square().sum()"),
}


def test_a_fault_in_the_text_is_found(tmp_path):
    """By each part's own test; and by the contract, for an attack that leaves its threat set."""
    text = TEXT
    for right, wrong in FAULTS.values():
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    copy_package(tmp_path)
    follow(text, tmp_path)
    contract = f"{PARTS['bim'][0]}::test_stays_in_its_threat_set[quiet-bim-linf]"
    expected = [*(own for _, own in PARTS.values()), contract]
    code, said = pytest_on(tmp_path, *expected)
    assert code == 1
    assert all(f"FAILED {path}" in said for path in expected), said


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (" NEURONS: dict[str, type[Neuron]] = {", " NEURONS = {", "is not there once"),
        ("searches/bim.py\n", "searches/pgd.py\n", "pgd.py exists"),
    ],
)
def test_a_line_that_does_not_fit_the_package_is_found(tmp_path, right, wrong, message):
    assert TEXT.count(right) == 1
    copy_package(tmp_path)
    with pytest.raises(AssertionError, match=message):
        follow(TEXT.replace(right, wrong), tmp_path)
