"""The default progress: a bar on a terminal, nothing elsewhere, and callbacks as they are."""

import io

import pytest
import torch
from rich.console import Console

import spikeguard as sg
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.system import progress_bar
from spikeguard.system.progress_bar import shown_progress

BEGIN = "\x1b[2K"  # of a line that is drawn again


@pytest.fixture
def terminal(monkeypatch):
    """Standard error as a terminal that keeps what is written to it."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(progress_bar, "standard_error", lambda: console)
    return written


def data(n=6):
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(n) % 4


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))


def test_a_bar_is_shown_on_a_terminal_by_default(terminal, model):
    x, y = data()
    evaluate(model, (x, y), sg.attacks.suite("baseline", eps=0.1))
    assert BEGIN + "attack" in terminal.getvalue()


def test_an_audit_shows_one_bar_and_none_of_the_evaluations_inside(terminal, model):
    x, y = data()
    sg.audit(model, (x, y), threat=sg.Linf(0.1), budget="quick", limit=4)
    assert BEGIN + "audit" in terminal.getvalue()
    assert BEGIN + "attack" not in terminal.getvalue()


def test_nothing_is_shown_elsewhere_or_with_none(terminal, model, capsys, monkeypatch):
    x, y = data()
    evaluate(model, (x, y), sg.attacks.suite("baseline", eps=0.1), progress=None)
    assert terminal.getvalue() == ""
    monkeypatch.undo()  # standard error of the test is not a terminal
    evaluate(model, (x, y), sg.attacks.suite("baseline", eps=0.1))
    assert capsys.readouterr() == ("", "")


def test_a_callback_gets_the_same_calls_and_no_bar(terminal, model):
    calls = []
    x, y = data()
    evaluate(
        model,
        (x, y),
        sg.attacks.suite("baseline", eps=0.1),
        progress=lambda *call: calls.append(call),
    )
    assert terminal.getvalue() == ""
    assert calls and calls[-1][2] == "done"


def test_another_value_is_one_line():
    with (
        pytest.raises(ValueError, match="attack: progress is 'auto', None or a callback"),
        shown_progress("yes", "attack"),
    ):
        pass
