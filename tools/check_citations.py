"""Check the numbers of equations, sections and theorems cited in code, docs and recipes.

``citations.csv`` lists every citation of a file, its paper, and words that the paper has at that
place. A citation that is not listed, or whose words are not at that place, is an error.

    python tools/check_citations.py ../shared/papers

The folder holds the papers' texts as ``PAPER.txt``. The paper ``-`` is one without a text here: its
citations are listed and not checked.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("citations.csv")
CITING = ("src/**/*.py", "src/**/*.yaml", "docs/**/*.md", "README.md")
WINDOW = 8  # lines before and after the number of an equation or a theorem, at most

_NUMBER = r"(?:[IVX]+-[A-Z]|[IVX]+|\d+(?:\.\d+)*)"
_MORE = rf"{_NUMBER}(?:(?:, | to | and |, and ){_NUMBER})*"
_CITED = re.compile(
    rf"\b(Eqs?\.|[Ss]ections?|Theorems?) ({_MORE})(?![\w-])",
)
_NUMBERED = re.compile(  # the number of an equation, at the end of its line
    r"\\tag\{(\d+)\}|(?:^|[^\w\\])\((\d+)\)(?:[\s$}]*$| *\\\\)"
)
_KINDS = {"eq": "Eq.", "se": "section", "th": "Theorem"}


class Citation(NamedTuple):
    """One row of ``citations.csv``: ``file`` cites ``what`` of ``paper``, which reads ``words``."""

    file: str
    what: str
    paper: str
    words: str


def cited(text: str) -> set[str]:
    """Return what a text cites, one entry for each number: "Eqs. 12 to 14" are three.

    Example:
        >>> sorted(cited("as in Eqs. 12 to 13 and 17, section 4.2.1"))
        ['Eq. 12', 'Eq. 13', 'Eq. 17', 'section 4.2.1']
    """
    found = set()
    for kind, numbers in _CITED.findall(re.sub(r"\s+", " ", text)):
        name = _KINDS[kind[:2].lower()]
        found |= {f"{name} {number}" for number in _expanded(numbers)}
    return found


def _expanded(numbers: str) -> Iterator[str]:
    for part in re.split(r", and |, | and ", numbers):
        first, _, last = part.partition(" to ")
        if last and first.isdigit() and last.isdigit():
            yield from map(str, range(int(first), int(last) + 1))
        else:
            yield from (each for each in (first, last) if each)


def places(paper: str, what: str) -> list[str]:
    """Return the parts of a paper's text that a citation can mean; none without such a number."""
    kind, number = what.split(" ")
    lines = paper.splitlines()
    if kind == "section":
        return _sections(lines, number)
    if kind == "Theorem":
        named = re.compile(rf"\bTheorem {re.escape(number)}\b")
        return [
            "\n".join(lines[n : n + WINDOW]) for n, line in enumerate(lines) if named.search(line)
        ]
    numbered = [(n, match) for n, line in enumerate(lines) if (match := _NUMBERED.search(line))]
    found = []
    for place, (n, match) in enumerate(numbered):
        if number in match.groups():  # between the equations before and after
            first = numbered[place - 1][0] + 1 if place else 0
            last = numbered[place + 1][0] if place + 1 < len(numbered) else len(lines)
            found.append("\n".join(lines[max(first, n - WINDOW) : min(last, n + WINDOW)]))
    return found


def _sections(lines: list[str], number: str) -> list[str]:
    """Return the text below a heading such as "4.2.1 Title", or "B. Title" below "III. TITLE"."""
    heading = re.compile(r"^[#*\s]*((?:\d+\.)*\d+|[IVX]+|[A-Z])\.?\*{0,2}\.?\s+\W*[A-Z]")
    found, inside, part = [], False, ""
    for line in lines:
        match = heading.match(line)
        if match and len(line) < 120:
            name = match.group(1)
            part = name if re.fullmatch(r"[IVX]+", name) else part
            full = f"{part}-{name}" if re.fullmatch(r"[A-Z]", name) and name != part else name
            inside = full == number
            if inside:
                found.append("")
        if inside:
            found[-1] += line + "\n"
    return found


def plain(text: str) -> str:
    """Return a text in lower case without spaces and mark-up, for comparison."""
    return re.sub(r"[\s$*\\{}|]+", "", text).lower()


def problems(
    citations: Iterable[Citation], texts: dict[str, str], files: dict[str, str]
) -> list[str]:
    """Return one line for each citation that is not listed, not made, or not at its place.

    Args:
        citations: The rows of the list.
        texts: Text of each paper by name.
        files: Text of each citing file by path.
    """
    citations, found = list(citations), []
    listed = {(row.file, row.what) for row in citations}
    made = {(file, what) for file, text in files.items() for what in cited(text)}
    for file, what in sorted(made - listed):
        found.append(f"{file}: {what} is not in {LIST.name}")
    for file, what in sorted(listed - made):
        found.append(f"{file}: {LIST.name} lists {what}, which the file does not cite")
    for row in citations:
        if row.paper == "-":
            continue
        if row.paper not in texts:
            found.append(f"{row.file}: {row.what}: no text of the paper {row.paper!r}")
            continue
        there = places(texts[row.paper], row.what)
        if not there:
            found.append(f"{row.file}: {row.paper} has no {row.what}")
        elif not any(plain(row.words) in plain(each) for each in there):
            found.append(f"{row.file}: {row.what} of {row.paper} does not read {row.words!r}")
    return found


def read_list(path: Path = LIST) -> list[Citation]:
    """Read the rows of a list of citations."""
    with path.open(encoding="utf-8", newline="") as lines:
        return [Citation(**row) for row in csv.DictReader(lines)]


def citing_files(root: Path = ROOT) -> dict[str, str]:
    """Return the text of every file that may cite, by its path from the root."""
    paths = (path for pattern in CITING for path in sorted(root.glob(pattern)))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def main() -> int:
    """Check the repository; print one line for each problem, and return 1 if there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("papers", nargs="?", type=Path, default=ROOT.parent / "shared" / "papers")
    folder = parser.parse_args().papers
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))}
    if not texts:
        sys.exit(f"{folder}: no texts of papers; give the folder that holds PAPER.txt.")
    citations = read_list()
    found = problems(citations, texts, citing_files())
    for line in found:
        print(line)
    checked = sum(row.paper != "-" for row in citations)
    print(f"{checked} citations checked, {len(citations) - checked} of papers without a text here")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
