"""Every attack, gradient and check has its page, and every link between pages leads somewhere."""

import re
from pathlib import Path

import pytest

from spikeguard import attacks
from spikeguard.attacks import ATTACKS

DOCS = Path(__file__).parents[1] / "docs"
GRADIENTS = ("BPTR", "RGA", "HART", "ASSG", "PDSG", "ANNTwin", "NES", "MembraneReadout")
PAGES = sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"])


@pytest.mark.parametrize("name", [*(part.__name__ for part in ATTACKS.values()), *GRADIENTS])
def test_every_attack_and_gradient_is_linked_to_its_page(name):
    assert hasattr(attacks, name)
    row = re.search(rf"\[`{name}[^`]*`\]\((attacks/[^)]+)\)", (DOCS / "attacks.md").read_text())
    assert row, f"docs/attacks.md has no link for {name}"
    page = (DOCS / row[1]).read_text()
    assert "**Source.**" in page and "**Idea.**" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS.parent).as_posix())
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target
