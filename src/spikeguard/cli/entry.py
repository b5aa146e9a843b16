"""The command line: one verb, one function, one exit code; a verb is imported when it runs.

Exit codes: 0 done, 1 another accuracy (``attack --rescore``), an empty row or a failed point, 2
wrong use, 3 to 6 judgements of ``audit --strict`` and ``--min-robust``, 75 a rank of a training was
lost (resume it), 130 interrupted, 143 terminated. A user's mistake is one line on standard error;
``SPIKEGUARD_DEBUG=1`` adds the traceback.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.metadata import version
from itertools import pairwise
from typing import TextIO

from cyclopts import App, CycloptsError

from spikeguard.cli.commands.map import map_
from spikeguard.cli.help_texts import DATA, EXAMPLES, HELP, LAUNCH, MAPS
from spikeguard.cli.json_output import is_json, prose_on_stderr
from spikeguard.cli.rank_output import is_one_of_several, leave, of_first_rank, print_anyway
from spikeguard.config.errors import ConfigError
from spikeguard.system.allocator import keep_freed_memory
from spikeguard.system.errors import is_user_error, raised_in
from spikeguard.system.out_of_memory import is_out_of_memory
from spikeguard.system.warning_lines import show_in_one_line

__all__ = ["app", "main"]

_LESS_MEMORY = (
    "use a smaller network, batch size (train.batch_size, evaluate.batch_size) or number of "
    "processes (--jobs), or free some memory and run it again; finished parts are kept."
)
_MESSAGE = 1000  # characters of an error message


def _epilogue(calls: Sequence[str]) -> str:
    return "\n".join(["Examples:", *(f"  spikeguard {call}" for call in calls)])


app = App(
    name="spikeguard",
    help="Train, attack, audit and report the adversarial robustness of spiking neural networks.",
    help_format="plaintext",
    help_epilogue="Start with 'spikeguard demo'. Every command has its own --help with examples.",
    version=lambda: version("spikeguard"),
    suppress_keyboard_interrupt=False,
)
for _name, _text in HELP.items():
    app.command(
        f"spikeguard.cli.commands.{_name}:{_name if _name != 'list' else 'list_'}",
        name=_name,
        help=_text,
        help_epilogue=_epilogue(EXAMPLES[_name]),
    )
_data = App(name="data", help="Fetch and check data sets.", help_format="plaintext")
for _name, (_text, _call) in DATA.items():
    _data.command(
        f"spikeguard.cli.commands.data:{_name}",
        name=_name,
        help=_text,
        help_epilogue=_epilogue([_call]),
    )
app.command(_data)
_launch = App(
    name="launch",
    help="Run a command on several GPUs or nodes.",
    help_format="plaintext",
)
for _name, (_text, _call) in LAUNCH.items():
    _launch.command(
        f"spikeguard.cli.commands.launch:{_name}",
        name=_name,
        help=_text,
        help_epilogue=_epilogue([_call]),
    )
app.command(_launch)
_map = App(
    name="map",
    help="Map where a network works in a plane of two recipe fields, and what it costs.",
    help_format="plaintext",
    help_epilogue=_epilogue(MAPS),
)
_map.default(map_)
_map.command(
    "spikeguard.cli.commands.map:compare",
    name="compare",
    help="Print the difference of two maps, cell by cell, with intervals.",
    help_epilogue=_epilogue(["map compare runs/map runs/map-tgo"]),
)
app.command(_map)
app.register_install_completion_command(
    help="Install completion of commands and options for bash, zsh or fish, and load it at startup."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Of several ranks that train together, only rank 0 writes output.

    Args:
        arguments: The words after ``spikeguard``; None takes those of this process.
    """
    if arguments is None and is_one_of_several(sys.argv[1:]):
        with of_first_rank():
            code = _main(None)
        leave(code)
    return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    """Run a command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _make_streams_writable()
    if arguments is None and words[:1] != ["bench"]:  # benchmarks run with the default allocator
        keep_freed_memory()
    own = words[: words.index("--")] if "--" in words else words
    prose = prose_on_stderr(process=arguments is None) if is_json(own) else nullcontext()
    try:
        with prose, _one_line_warnings(_command(words)), _terminated_as_interrupted():
            _require_words(words)
            code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        return _report_error(words, error, " ".join(str(error).split()))
    except KeyboardInterrupt as error:
        ended = "terminated" if isinstance(error, _Terminated) else "interrupted"
        code = int(getattr(error, "exit_code", 130))
        print(f"{_command(words)}: {ended}; {_how_to_continue(words)}", file=sys.stderr)
        return code
    except SystemExit as error:  # our own code raises none
        if isinstance(error.__context__, BrokenPipeError):  # rich raised it while printing help
            return _reader_left()
        what = "the code of a network, a data set or a plugin ended the command"
        return _report_error(
            words, error, f"{what} with sys.exit({error.code!r}); nothing more ran"
        )
    except BrokenPipeError:
        return _reader_left()
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{error.filename}: {reason}" if error.filename else reason
        return _report_error(words, error, message)
    except Exception as error:
        if is_out_of_memory(error) and not is_user_error(error):
            said = f"out of memory ({_first_line(error) or 'of Python'})"
            return _report_error(words, error, f"{said}; {_LESS_MEMORY}")
        if is_user_error(error):
            return _report_error(words, error, " ".join(str(error).split()))
        place = raised_in(error, _plugins(words))
        if place is None:
            raise
        return _report_error(words, error, f"{place}: {type(error).__name__}: {_first_line(error)}")
    return code if isinstance(code, int) else 0


def _require_words(words: Sequence[str]) -> None:
    """Reject an empty word, which an unset variable of a shell leaves, and ``--option=``."""
    for place, word in enumerate(words):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            before = word or (words[place - 1] if place else "spikeguard")
            raise ConfigError(
                f"an empty value after {before}; is a variable of the shell unset? Give a value, "
                "or leave the option out."
            )


def _reader_left() -> int:
    """Return the exit code when the reader of the output, such as 'head', closed the pipe."""
    for stream in (sys.stdout, sys.stderr):
        _discard_if_closed(stream)
    return 0


class _Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""

    exit_code = 143


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """End the block on SIGTERM as on Ctrl-C, so that files and locks are released."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second signal ends the process at once
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _one_line_warnings(command: str) -> Iterator[None]:
    """Show SpikeGuard's own warnings as one line inside the block."""
    with warnings.catch_warnings():
        show_in_one_line(command)
        yield


def _report_error(words: Sequence[str], error: BaseException, message: str) -> int:
    if os.environ.get("SPIKEGUARD_DEBUG"):
        traceback.print_exception(error)
    with suppress(OSError):  # nobody reads standard error
        show = print_anyway if getattr(error, "must_show", False) else _print_error
        show(f"{_command(words)}: {_shown(message)}")
    return int(getattr(error, "exit_code", 2))


def _print_error(line: str) -> None:
    print(line, file=sys.stderr)


def _shown(message: str) -> str:
    """Return a message with control characters escaped, and its middle left out if it is long."""
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    half = _MESSAGE // 2
    return plain if len(plain) <= _MESSAGE else f"{plain[:half]} ... {plain[-half:]}"


def _make_streams_writable() -> None:
    """Write to nowhere where a stream was closed; escape what its encoding cannot write."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - as long as the process
        elif getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_if_closed(stream: TextIO) -> None:
    """Send the rest of a stream to nowhere if its reader is gone."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _plugins(words: Sequence[str]) -> set[str]:
    """Return the top-level packages that a command line allows."""
    given = [after for word, after in pairwise(words) if word == "--plugin"]
    given += [word.partition("=")[2] for word in words if word.startswith("--plugin=")]
    return {name.strip().partition(".")[0] for each in given for name in each.split(",")}


def _command(words: Sequence[str]) -> str:
    verb = words[:1] if words and words[0] in {*HELP, "data", "launch", "map"} else []
    return " ".join(["spikeguard", *verb])


def _how_to_continue(words: Sequence[str]) -> str:
    again = list(words)
    if again[:1] == ["train"] and "--resume" not in again:
        again.append("--resume")
    return f"continue with: {shlex.join(['spikeguard', *again])}"
