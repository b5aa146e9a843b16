"""Types of options that several commands have; the module imports nothing that takes time."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

__all__ = ["Plugin", "Repeated"]

Plugin = Annotated[
    list[str] | None, Parameter(name="--plugin", negative="", consume_multiple=False)
]
Repeated = Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)]
