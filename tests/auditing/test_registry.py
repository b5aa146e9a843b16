"""The registry of the audit gives each check its code, and each module names its own checks."""

import ast
import inspect
import re
import sys
from pathlib import Path

import pytest

from spikeguard.auditing import Check, CheckOutcome, Finding, does_not_apply, judged, not_run
from spikeguard.auditing.check import title
from spikeguard.auditing.registry import CHECKS

MODULES = sorted({check.measure.__module__ for check in CHECKS.values()})


def codes_in(module):
    """Return the codes that the registry maps to functions of a module."""
    return {code for code, check in CHECKS.items() if check.measure.__module__ == module}


def header_fault(header, codes):
    """Return the fault in the codes that a module docstring names; empty if there is none."""
    ends = re.search(r"\bChecks? ((?:[GS]\d+, )*[GS]\d+)\.\s*\Z", header)
    if ends is None:
        return "the header does not end in 'Check G1.' or 'Checks G1, G2.'"
    named = ends[1].split(", ")
    faults = [f"{code} is not here" for code in named if code not in codes]
    faults += [f"{code} is missing" for code in sorted(codes) if code not in named]
    return "; ".join(faults)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_header_names_exactly_the_checks_of_its_module(module):
    assert not header_fault(sys.modules[module].__doc__, codes_in(module))


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("Is it sound? Checks G1, S1.", ""),
        ("Is it sound?\n\nChecks G1, S1.\n", ""),
        ("Is it sound? Check G1.", "S1 is missing"),
        ("Is it sound? Checks G1, S1, S2.", "S2 is not here"),
        ("Is it sound? Checks G1, S11.", "S11 is not here; S1 is missing"),
        ("G1, S1: is it sound?", "the header does not end in 'Check G1.' or 'Checks G1, G2.'"),
    ],
)
def test_a_wrong_header_is_found(header, fault):
    assert header_fault(header, {"G1", "S1"}) == fault


def test_every_module_of_checks_is_registered():
    """No check is forgotten: each function that returns an outcome by name is in the registry."""
    folder = Path(inspect.getfile(sys.modules[MODULES[0]])).parent
    stems = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert stems == {module.rpartition(".")[2] for module in MODULES}
    for module in map(sys.modules.get, MODULES):
        public = {getattr(module, name) for name in module.__all__}
        takes_context = {f for f in public if [*inspect.signature(f).parameters] == ["context"]}
        assert takes_context == {CHECKS[code].measure for code in codes_in(module.__name__)}


@pytest.mark.parametrize("code", CHECKS)
def test_a_check_knows_its_code_and_its_function_does_not(code):
    check = CHECKS[code]
    assert check.code == code
    literals = {
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(check.measure)))
        if isinstance(node, ast.Constant)
    }
    assert not literals & set(CHECKS)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (not_run("no images", remedy="load some"), "not run"),
        (does_not_apply("no noise"), "does not apply"),
    ],
)
def test_a_check_adds_code_and_title_to_the_outcome(outcome, status):
    def measure(context):
        """Something holds.

        Source: a test.
        """
        return outcome

    found = Check(measure, cost=0, code="X1")(None)
    assert found == Finding("X1", "Something holds", status, outcome.measured, "", "", found.remedy)
    assert found.remedy == outcome.remedy


@pytest.mark.parametrize("failed", [True, False])
def test_only_a_failure_carries_the_fault_and_its_remedy(failed):
    found = judged(
        failed=failed,
        measured="3 of 4",
        threshold="none",
        sound="sound",
        fault="broken",
        remedy="repair it",
        evidence={"count": 3},
    )
    expected = ("fail", "broken", "repair it") if failed else ("pass", "sound", "")
    assert (found.status, found.meaning, found.remedy) == expected
    assert found == CheckOutcome(
        expected[0], "3 of 4", "none", expected[1], expected[2], {"count": 3}
    )


def test_titles_differ():
    titles = [title(check.measure) for check in CHECKS.values()]
    assert len(set(titles)) == len(CHECKS) == 54
