"""tools/check_citations.py: planted papers and citations, and the citations of this repository."""

import os
from pathlib import Path

import pytest

from tests.toys.scripts import loaded

ROOT = Path(__file__).parents[2]
PAPERS = Path(os.environ.get("SPIKEGUARD_PAPERS", ROOT.parent / "shared" / "papers"))
FILE = ROOT / "tools" / "check_citations.py"


@pytest.fixture(scope="module")
def tool():
    with loaded(FILE) as module:
        yield module


PAPER = r"""
# 2. Background

Nothing (2020).

### 3. Method

#### 3.1. The neuron

$$v[t] = \lambda u[t-1] + I[t] \tag{1}$$

where $u$ is a potential (see Eq. 2).

$$u[t] = (1 - s[t]) v[t], \quad (2) \\
\quad t = 1, 2.$$

#### 3.2. The gain

**Theorem 3.1.** The gain is bounded.

sqrt(1 / (1 - lambda)), (3)

III. RESULTS

A. Accuracy

It is high.

B. Cost

It is low.
"""


def test_a_citation_of_several_numbers_is_one_of_each(tool):
    text = "Source: X, Eqs. 1\n        to 3 and 15 (noise); Section II-B, sections 3.1 and 4.2.1."
    assert tool.cited(text) == {
        *("Eq. 1", "Eq. 2", "Eq. 3", "Eq. 15"),
        *("section II-B", "section 3.1", "section 4.2.1"),
    }
    assert tool.cited("Sections of a recipe; 2.3 of the text; the equation (4)") == set()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("Eq. 1", r"\lambda u[t-1]"),
        ("Eq. 2", "(1 - s[t])"),
        ("Eq. 3", "sqrt(1"),
        ("section 3.1", "is a potential"),
        ("section 3.2", "gain is bounded"),
        ("Theorem 3.1", "the gain"),
        ("section III-A", "it is high"),
        ("section III-B", "it is low"),
    ],
)
def test_a_citation_is_found_at_its_place_and_nowhere_else(tool, what, words):
    files = {"a.py": f"Source: the paper, {what}."}
    right = tool.Citation("a.py", what, "paper", words)
    assert tool.problems([right], {"paper": PAPER}, files) == []
    (line,) = tool.problems([right._replace(words="absent")], {"paper": PAPER}, files)
    assert line == f"a.py: {what} of paper does not read 'absent'"


@pytest.mark.parametrize(
    ("what", "words", "message"),
    [
        ("Eq. 1", "(1 - s[t])", "does not read"),  # that is Eq. 2
        ("Eq. 3", "(1 - s[t])", "does not read"),
        ("section 3.2", "is a potential", "does not read"),
        ("section III-A", "it is low", "does not read"),
        ("Eq. 4", "anything", "paper has no Eq. 4"),
        ("section II-B", "it is low", "paper has no section II-B"),
        ("Theorem 3.2", "the gain", "paper has no Theorem 3.2"),
    ],
)
def test_a_wrong_number_is_found(tool, what, words, message):
    row = tool.Citation("a.py", what, "paper", words)
    (line,) = tool.problems([row], {"paper": PAPER}, {"a.py": f"see {what}"})
    assert line.startswith("a.py: ") and message in line


def test_the_list_has_what_the_files_cite_and_no_more(tool):
    row = tool.Citation("a.py", "Eq. 1", "-", "")
    files = {"a.py": "Eqs. 1 and 2", "b.md": "nothing"}
    assert tool.problems([row], {}, files) == ["a.py: Eq. 2 is not in citations.csv"]
    assert tool.problems([row], {}, {"a.py": "nothing"}) == [
        "a.py: citations.csv lists Eq. 1, which the file does not cite"
    ]
    (line,) = tool.problems([row._replace(paper="lost")], {}, {"a.py": "Eq. 1"})
    assert line == "a.py: Eq. 1: no text of the paper 'lost'"


def test_every_citation_of_the_repository_is_listed(tool):
    listed = {(row.file, row.what) for row in tool.read_list()}
    made = {(f, what) for f, text in tool.citing_files().items() for what in tool.cited(text)}
    assert made == listed


papers = pytest.mark.skipif(not PAPERS.is_dir(), reason=f"no texts of the papers in {PAPERS}")


@papers
def test_every_citation_of_the_repository_is_right(tool):
    texts = {path.stem: path.read_text(encoding="utf-8") for path in PAPERS.glob("*.txt")}
    assert tool.problems(tool.read_list(), texts, tool.citing_files()) == []


@papers
def test_the_number_after_each_cited_equation_is_wrong(tool):
    """The words of the list distinguish neighbouring equations of the papers."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in PAPERS.glob("*.txt")}
    for row in tool.read_list():
        if row.paper != "-" and row.what.startswith("Eq."):
            other = f"Eq. {int(row.what[4:]) + 1}"
            moved = row._replace(what=other)
            found = tool.problems([moved], texts, {row.file: other})
            assert found, f"{row.file}: {other} of {row.paper} also reads {row.words!r}"
