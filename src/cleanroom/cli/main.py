"""The console script: the quick answers, the guard around standard streams, and the exit status.

Imports nothing but `sys` and `os`, so that `--version` costs no more than the interpreter.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from cleanroom.cli.version import VERSION_LINE


def main() -> NoReturn:
    """Run the command named by `sys.argv` and exit with its status."""
    stdout_open = _hold_standard_streams()
    arguments = sys.argv[1:]
    if arguments == ["--version"] and stdout_open:
        _leave(_end(0, VERSION_LINE))
    from cleanroom.cli.app import execute

    _leave(_end(execute(arguments, stdout_open=stdout_open)))


def _leave(status: int) -> NoReturn:
    """End at once: everything is written and every task has ended,
    and taking 400 modules apart would cost 40 ms more.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def _hold_standard_streams() -> bool:
    """Whether standard output is open.

    A closed one of the three gets the null device, so that no file of ours takes its number.
    """
    stdout_open = sys.stdout is not None
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    return stdout_open


def _end(status: int, text: str = "") -> int:
    """Write `text` and whatever standard output has buffered.

    Returns `status`, or 5 where that fails.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        # The interpreter flushes once more when it ends, and would complain about it:
        # give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return status or _report_lost_output(error)
    return status


def _report_lost_output(error: OSError | ValueError) -> int:
    from cleanroom.cli.app import report
    from cleanroom.cli.output import OutputLost

    return report(OutputLost.because(error))
