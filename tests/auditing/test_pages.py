"""Every check has a page of the same parts, and a row in the index that matches the registry."""

import re
from pathlib import Path

import pytest

from spikeguard.auditing import REQUIRED, Check, does_not_apply
from spikeguard.auditing.check import title
from spikeguard.auditing.registry import CHECKS

DOCS = Path(__file__).parents[2] / "docs"
PARTS = ["Measured", "Passes", "A failure means", "Remedy", "Cost", "Cannot see", "Source"]


def page_fault(text, check):
    """Return the fault of the page of a check; empty if there is none."""
    if not text.startswith(f"# {check.code}: {title(check.measure)}\n\n"):
        return "the first line is not the code and title of the check"
    parts = re.findall(r"^\* \*\*(.+?)\*\*: \S", text, re.MULTILINE)
    if parts != PARTS:
        return f"the parts are {', '.join(parts)}"
    about = f"about {check.cost:g} gradient evaluation" if check.cost else "none"
    cost = re.search(r"\*\*Cost\*\*: (.*?)\n\* ", text, re.DOTALL)[1]
    if not re.match(rf"{re.escape(about)}\b|{re.escape(about)}s\b", cost):
        return f"the cost is not {about}"
    if ("full budget only" in re.sub(r"\s+", " ", cost)) == check.quick:
        return "the budgets are wrong"
    return ""


@pytest.mark.parametrize("code", CHECKS)
def test_every_check_has_a_page(code):
    page = (DOCS / "audit" / f"{code}.md").read_text(encoding="utf-8")
    assert not page_fault(page, CHECKS[code])


def measure(context):
    """Something holds."""
    return does_not_apply("nothing to measure")


def page(code="X1", name="Something holds", cost="about 2 gradient evaluations", parts=PARTS):
    lines = [
        f"* **{part}**: {f'{cost} per sample' if part == 'Cost' else 'words'}." for part in parts
    ]
    return "\n".join([f"# {code}: {name}", "", "A question?", "", *lines, ""])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (page(), ""),
        (page(code="X2"), "the first line is not the code and title of the check"),
        (page(name="Another thing holds"), "the first line is not the code and title of the check"),
        (page(parts=PARTS[:-1]), "the parts are " + ", ".join(PARTS[:-1])),
        (page(parts=PARTS[::-1]), "the parts are " + ", ".join(PARTS[::-1])),
        (page(cost="about 20 gradient evaluations"), "the cost is not about 2 gradient evaluation"),
        (page(cost="about 2 gradient evaluations, full budget only,"), "the budgets are wrong"),
    ],
)
def test_a_wrong_page_is_found(text, fault):
    assert page_fault(text, Check(measure, cost=2, code="X1")) == fault


@pytest.mark.parametrize("code", CHECKS)
def test_every_check_has_a_row_in_the_index(code):
    check = CHECKS[code]
    row = f"| [{code}](audit/{code}.md) | {title(check.measure)} |"
    row += f" {'yes' if code in REQUIRED else ''} | {'yes' if check.quick else ''} |"
    assert f"{row} {check.cost:g} |" in (DOCS / "audit.md").read_text(encoding="utf-8")


def test_the_index_names_no_check_that_is_not_there():
    assert {page.stem for page in (DOCS / "audit").glob("*.md")} == set(CHECKS)
