"""Progress without a terminal: which lines are written, and their text."""

import itertools

import pytest

from spikeguard.auditing.findings import Finding, conclude
from spikeguard.cli.console import progress, progress_board, table


def ticks(step):
    """A clock that advances by ``step`` seconds at every call."""
    times = itertools.count(0, step)
    return lambda: next(times)


class Hand:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lines(capsys):
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err.splitlines()


def test_the_time_left_is_the_pace_so_far_times_the_rest(capsys):
    """100 of 400 are done at the start, 100 more 30 s later: 200 take another minute."""
    clock = Hand()
    with progress("attack", clock=clock) as update:
        update(100, 400, "noise")
        clock.now = 30.0
        update(200, 400, "pgd10")
        clock.now = 30.0 + 3600.0
        update(300, 400, "pgd10")
        update(400, 400, "done")
    assert lines(capsys) == [
        "attack: noise (100/400)",
        "attack: pgd10 (200/400, 0:01:00 left)",
        "attack: pgd10 (300/400, 0:30:15 left)",
        "attack: done (400/400)",
    ]


def test_later_batches_have_progress_lines_too(capsys):
    """20 batches of 20 images, 4 attacks: every name once, then every further tenth of 2000."""
    names, size = ["noise", "fgsm", "pgd10", "apgd"], 20
    with progress("attack", clock=Hand()) as update:
        for batch in range(20):
            for place, name in enumerate(names):
                update(batch * 5 * size + (place + 1) * size, 2000, name)
        update(2000, 2000, "done")
    told = [line.removeprefix("attack: ").split(",")[0].rstrip(")") for line in lines(capsys)]
    first = [f"{name} ({done}/2000" for name, done in zip(names, (20, 40, 60, 80), strict=True)]
    tenths = [f"apgd ({done}/2000" for done in range(280, 2000, 200)]
    assert told == [*first, *tenths, "done (2000/2000"]


@pytest.mark.parametrize("step", [1e-3, 1.0, 1e4], ids=["fast", "usual", "slow"])
def test_the_number_of_lines_depends_on_the_share_and_not_on_the_speed(step, capsys):
    with progress("attack", clock=ticks(step)) as update:
        for done in range(1001):
            update(done, 1000, "pgd10")
    told = [line.partition("(")[2].split("/")[0] for line in lines(capsys)]
    assert told == [str(done) for done in range(0, 1001, 100)]


def test_every_finished_epoch_has_a_line_and_a_long_one_has_some_inside(capsys):
    """2 epochs of 10 steps: tenths are 2 steps, and the validation has its own line."""
    with progress("train", clock=Hand()) as update:
        for epoch in (1, 2):
            for step in range(1, 11):
                update(10 * (epoch - 1) + step, 20, f"epoch {epoch}/2  loss {step}")
            update(10 * epoch, 20, f"epoch {epoch}/2  validation")
    told = [line.removeprefix("train: ").split("/20")[0] for line in lines(capsys)]
    inside = [f"epoch 1/2  loss {k} ({k}" for k in (1, 3, 5, 7, 9)]
    later = [f"epoch 2/2  loss {k} ({10 + k}" for k in (2, 4, 6, 8, 10)]
    assert told == [*inside, "epoch 1/2  validation (10", *later, "epoch 2/2  validation (20"]


def test_a_hundred_epochs_are_a_hundred_lines_beside_the_first(capsys):
    with progress("train", clock=Hand()) as update:
        for epoch in range(1, 101):
            for step in range(1, 4):
                update(3 * (epoch - 1) + step, 300, f"epoch {epoch}/100  loss {step}")
            update(3 * epoch, 300, f"epoch {epoch}/100  validation")
    first, *rest = lines(capsys)
    assert first.startswith("train: epoch 1/100  loss 1 (1/300")
    assert len(rest) == 100
    assert all("validation" in line for line in rest)


def test_every_task_of_a_board_has_a_pace_of_its_own(capsys):
    clock = Hand()
    with progress_board(clock=clock) as update:
        update("a", 0, 10, "pgd10")
        clock.now = 100.0
        update("b", 0, 10, "pgd10")
        clock.now = 110.0
        update("a", 5, 10, "pgd10")
        update("b", 5, 10, "pgd10")
    assert lines(capsys)[2:] == [
        "a: pgd10 (5/10, 0:01:50 left)",
        "b: pgd10 (5/10, 0:00:10 left)",
    ]


def test_the_next_file_of_a_download_begins_again(capsys):
    clock = Hand()
    with progress("download", clock=clock) as update:
        update(0, 10, "0 % of 9 MB")
        clock.now = 1000.0
        update(10, 10, "100 % of 9 MB")
        update(0, 10, "0 % of 9 MB")
        clock.now = 1001.0
        update(1, 10, "10 % of 9 MB")
    assert lines(capsys) == [
        "download: 0 % of 9 MB (0/10)",
        "download: 100 % of 9 MB (10/10)",
        "download: 0 % of 9 MB (0/10)",
        "download: 10 % of 9 MB (1/10, 0:00:09 left)",
    ]


def test_another_piece_of_work_has_a_pace_of_its_own(capsys):
    """18 settings are tried in 1000 s; then 100 of 500 gradients take 10 s: 40 s are left."""
    clock = Hand()
    with progress("attack", clock=clock) as update:
        update(0, 18, "settings")
        clock.now = 1000.0
        update(18, 18, "settings chosen")
        update(100, 600, "noise")
        clock.now = 1010.0
        update(200, 600, "pgd10")
    assert lines(capsys)[2:] == [
        "attack: noise (100/600)",
        "attack: pgd10 (200/600, 0:00:40 left)",
    ]


def test_an_audit_writes_tenths_and_not_a_line_for_each_check(capsys):
    """54 checks and the bound: the first part, nine further tenths and the end."""
    with progress("audit", clock=Hand()) as update:
        for part in range(54):
            update(part, 55, f"G{part}: a check")
        update(54, 55, "the bound")
        update(55, 55, "done")
    told = [line.partition("(")[2].partition("/")[0] for line in lines(capsys)]
    assert told == [str(part) for part in range(0, 55, 6)] + ["55"]


def test_stages_of_several_units_keep_their_lines(capsys):
    with progress("data", clock=Hand()) as update:
        for part, what in enumerate(("read", "check", "write")):
            update(part, 3, what)
    assert [line.partition(" (")[0] for line in lines(capsys)] == [
        "data: read",
        "data: check",
        "data: write",
    ]


def test_a_table_in_a_file_is_at_most_120_columns_wide_without_trailing_spaces(capsys):
    long = " ".join(["word"] * 60)
    table(("name", "what it is"), [("a", long), ("b", "x" * 300)])
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 120
    assert all(line == line.rstrip() for line in shown)
    assert " ".join(shown).split().count("word") == 60
    assert "".join(shown).count("x") == 300


def test_the_findings_of_an_audit_fit_the_width():
    said = "own surrogate 63.0 %, worst of 5 54.8 %, " * 6
    failed = Finding("S4", "A question " * 8, "fail", said, "at least " * 20, remedy="do " * 60)
    verdict = conclude([failed, Finding("G31", "Short", "pass", "yes", "always")])
    for width in (80, 120, 200):
        lines = verdict.table(width).splitlines()
        assert max(map(len, lines)) <= width
        assert lines[0].split()[:2] == ["check", "result"]
        assert " ".join(verdict.table(width).split()).count("54.8") == 6
        assert verdict.table(width).count("do") >= 60
    assert max(map(len, verdict.table().splitlines())) <= 120
