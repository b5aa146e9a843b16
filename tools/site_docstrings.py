"""Docstrings as Markdown: roles and formulas of reStructuredText in the form the site reads."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_MATH = re.compile(r"^( *)\.\. math::(.*)\n((?:\1[ ]+\S.*\n|[ ]*\n)*)", re.MULTILINE)
_ROLE = re.compile(r":(?:func|class|meth|mod|attr):`~?([^`]+)`")


def to_markdown(text: str) -> str:
    """Return a docstring with formulas between ``$$`` and names in code."""

    def formula(found: re.Match[str]) -> str:
        lines = [found[2].strip(), *(line.strip() for line in found[3].splitlines())]
        body = " ".join(line for line in lines if line)
        if "&" in body:
            body = rf"\begin{{aligned}}{body}\end{{aligned}}"
        return textwrap.indent(f"\n$${body}$$\n\n", found[1])

    text = _MATH.sub(formula, text + "\n").rstrip("\n")
    text = re.sub(r"^( *)Source: ", r"\1**Source.** ", text, flags=re.MULTILINE)
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    return _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2]}`", text)


class Docstrings(griffe.Extension):
    """Rewrite each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object of the package."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
