"""The conformance attacks as data: what each tries, and what must come of it at Medium.

This module, the column table and the modules of the list are imported by the tests and run inside
the environments too, under whatever python3 is there: standard library only.
Inside, `python3 -m support.attacks.suite ID` carries out one attack and prints what each of its
steps came to as one line of JSON.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Facts = Mapping[str, Any]  # what was planted outside, and this machine's system call numbers
Steps = dict[str, str]  # what each step came to: "ok", an errno's name, or a word of its own

READ_ONLY = "EROFS EACCES EPERM ENOENT"
REFUSED = "ECONNREFUSED ENETUNREACH EHOSTUNREACH EACCES EPERM"
MODULES = ("network", "files", "process", "limits")


class ExpectedRecord(NamedTuple):
    """A record that must appear: its rule, and the fields of its target.

    Texts may name facts, such as {outside}.
    """

    rule: str
    target: dict[str, Any]


class Attack(NamedTuple):
    """One row of the list."""

    id: str
    title: str
    # at Medium, and at other levels but for what `columns` says.
    # A works, O works and is recorded, B is refused and recorded, b is refused, L a limit acts
    letter: str
    program: Callable[[Facts], Steps]
    # step -> acceptable results, separated by blanks; "*" is every step that has no line of its own
    expect: dict[str, str]
    seen: tuple[ExpectedRecord, ...] = ()
    # why a record that B asks for cannot be had today; the test of it is then expected to fail
    gap: str = ""
    small: bool = False  # needs the environment with small limits
    may_die: bool = False  # the limit may choose the program itself

    def at(self, level: str) -> Attack:
        """The attack as the column of a level has it; a letter "-" is one that does not apply
        there, and `gap` says why.
        """
        return self._replace(
            **importlib.import_module("support.attacks.columns").COLUMNS[level].get(self.id, {})
        )


ATTACKS: dict[str, Attack] = {}


def attack(
    identity: str,
    title: str,
    medium: str,
    expect: str | dict[str, str] = "ok",
    *seen: ExpectedRecord,
    **fields: Any,
) -> Callable[[Any], Any]:
    """Register the decorated program as the attack `identity`."""

    def register(program: Callable[[Facts], Steps]) -> Callable[[Facts], Steps]:
        assert identity not in ATTACKS, identity
        ATTACKS[identity] = Attack(
            identity,
            title,
            medium,
            program,
            {"*": expect} if isinstance(expect, str) else expect,
            seen,
            **fields,
        )
        return program

    return register


def load() -> dict[str, Attack]:
    """All attacks, in the order of the list."""
    for name in MODULES:
        importlib.import_module(f"support.attacks.{name}")
    return ATTACKS


def code(action: Callable[[], Any]) -> str:
    """What an action came to: the word it returns, ok, or the errno's name."""
    try:
        result = action()
    except TimeoutError as error:
        return errno.errorcode.get(error.errno or 0, "hang")
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return result if isinstance(result, str) else "ok"


def each(**actions: Callable[[], Any]) -> Steps:
    """Every action in turn."""
    return {name: code(action) for name, action in actions.items()}


_libc = ctypes.CDLL(None, use_errno=True)


def system(facts: Facts, name: str, *arguments: int | bytes | None) -> int:
    """A system call by its number, past every library.

    Raises:
        OSError: as the kernel says; ENOSYS where this machine has no such call.
    """
    if name not in facts["numbers"]:
        raise OSError(errno.ENOSYS, name)
    return raw(facts["numbers"][name], *arguments)


def raw(number: int, *arguments: int | bytes | None) -> int:
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return int(result)


def in_child(action: Callable[[], Any]) -> str:
    """What an action comes to in a forked child; killed-N if a signal ends it."""
    near, far = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(far, code(action).encode())
        os._exit(0)
    os.close(far)
    said = os.read(near, 4096).decode()
    os.close(near)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said if status == 0 else f"killed-{-status}"


def main() -> None:
    suite = importlib.import_module(
        "support.attacks.suite"
    )  # not this copy, which is called __main__
    with open("facts.json") as file:
        facts = json.load(file)
    print(json.dumps(suite.load()[sys.argv[1]].program(facts)), flush=True)


if __name__ == "__main__":
    main()
