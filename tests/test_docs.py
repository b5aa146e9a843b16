"""Every attack, gradient and check has its page, and every link between pages leads somewhere."""

import re
from pathlib import Path

import pytest

from spikeguard import attacks
from spikeguard.attacks import ATTACKS

DOCS = Path(__file__).parents[1] / "docs"
GRADIENTS = (
    "BPTR",
    "RGA",
    "HART",
    "ASSG",
    "PDSG",
    "ANNTwin",
    "NES",
    "MembraneReadout",
    "MeanField",
)
ROOT = DOCS.parent
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


@pytest.mark.parametrize("name", [*(part.__name__ for part in ATTACKS.values()), *GRADIENTS])
def test_every_attack_and_gradient_is_linked_to_its_page(name):
    assert hasattr(attacks, name)
    row = re.search(rf"\[`{name}[^`]*`\]\((attacks/[^)]+)\)", (DOCS / "attacks.md").read_text())
    assert row, f"docs/attacks.md has no link for {name}"
    page = (DOCS / row[1]).read_text()
    assert "**Source.**" in page and "**Idea.**" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS.parent).as_posix())
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def missing_paths(text):
    """Return the paths that a page names in code and that do not exist."""
    named = set(re.findall(r"`((?:src|tests|docs|benchmarks)/[\w./-]+)`", text))
    assert named, "the page names no path"
    return sorted(path for path in named if not (ROOT / path).exists())


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_paths_that_a_page_names_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert missing_paths(text) == []
    planted = text.replace("tests/test_layering.py", "tests/test_layers.py")
    assert missing_paths(planted) == ["tests/test_layers.py"]


def test_every_package_is_in_the_table_of_the_architecture():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `src/spikeguard/(\w+)(?:/|\.py)` \|", text, re.MULTILINE)
    package = ROOT / "src" / "spikeguard"
    folders = {path.parent.name for path in package.glob("*/__init__.py")} - {"recipes"}
    assert sorted(listed) == sorted({*folders, "rng"})


def repeated_headings(text):
    """Return the headings of the first two levels that a page has more than once."""
    found = re.findall(r"^##? .+$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return sorted({heading for heading in found if found.count(heading) > 1})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS.parent).as_posix())
def test_no_section_stands_twice_on_a_page(page):
    text = page.read_text(encoding="utf-8")
    assert repeated_headings(text) == []
    assert repeated_headings(text + text) != []
