"""An audit of a network of event frames: every check judges it or says why not, in one line."""

import pytest

import spikeguard as sg
from tests.toys.event_frames import dots, trained

JUDGED = {"G5", "G7", "G27", "G30", "G31", "S4", "S15", "S20"}  # checks that need no more samples


@pytest.mark.slow
def test_an_audit_takes_event_frames():
    options = {"budget": "quick", "limit": 12, "progress": None}
    verdict = sg.audit(trained(), dots(12), threat=sg.Linf(0.2), **options)
    status = {each.code: each.status for each in verdict.findings}
    assert {code for code in JUDGED if status[code] in ("pass", "fail", "open")} == JUDGED
    assert status["G27"] == status["G31"] == "pass"  # valid inputs, honest scores
    for each in verdict.findings:
        assert each.measured and "\n" not in each.measured
        assert "raises" not in each.measured
