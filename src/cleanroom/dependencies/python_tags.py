"""Which wheels fit an interpreter: compatibility tags of PEP 425 and its successors. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from packaging import tags

# Asks an interpreter for what decides: run as `python -c PROGRAM`; its last line is the answer.
PROGRAM = """
import json, platform, struct, sys, sysconfig
name, version = platform.libc_ver()
print(json.dumps({
    "implementation": sys.implementation.name, "major": sys.version_info[0],
    "minor": sys.version_info[1], "machine": platform.machine(),
    "bits": struct.calcsize("P") * 8, "libc": name or "musl", "libc_version": version,
    "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
}))
"""


class Interpreter(msgspec.Struct, frozen=True):
    """A Python that packages are installed for."""

    implementation: str
    major: int
    minor: int
    machine: str
    bits: int = 64
    libc: str = "glibc"
    libc_version: str = "2.17"
    free_threaded: bool = False

    @property
    def version(self) -> str:
        """As "3.11"."""
        return f"{self.major}.{self.minor}"


class _Libc(NamedTuple):
    major: int
    minor: int


def read_interpreter(output: bytes) -> Interpreter:
    """What `PROGRAM` printed last.

    Raises:
        msgspec.MsgspecError: it is no answer.
    """
    lines = output.strip().splitlines() or [b""]
    return msgspec.json.decode(lines[-1], type=Interpreter)


def supported(interpreter: Interpreter) -> list[tags.Tag]:
    """The tags that fit, the best first."""
    # Loading it takes longer than most runs need to find their dependencies.
    from packaging import tags

    python, platforms = (interpreter.major, interpreter.minor), list(_platforms(interpreter))
    if interpreter.implementation == "cpython":
        abi = f"cp{python[0]}{python[1]}{'t' if interpreter.free_threaded else ''}"
        named = list(tags.cpython_tags(python, abis=[abi], platforms=platforms))
        short = f"cp{python[0]}{python[1]}"
    else:
        named, short = [], None
    return [*named, *tags.compatible_tags(python, short, platforms)]


def best_wheel(names: Iterable[str], interpreter: Interpreter) -> str | None:
    """The file name of the wheel that an installer would take; None if none fits."""
    from packaging import utils

    rank = {tag: number for number, tag in enumerate(supported(interpreter))}
    best: tuple[int, str] | None = None
    for name in names:
        try:
            *_, found = utils.parse_wheel_filename(name)
        except utils.InvalidWheelFilename:
            continue
        places = [rank[tag] for tag in found if tag in rank]
        if places and (best is None or (min(places), name) < best):
            best = (min(places), name)
    return best[1] if best else None


def _platforms(interpreter: Interpreter) -> Iterator[str]:
    """The platform tags of this machine and C library, the newest first."""
    machine = interpreter.machine
    if machine == "x86_64" and interpreter.bits == 32:
        machine = "i686"
    libc = _libc(interpreter.libc_version)
    if interpreter.libc == "glibc":
        oldest = 5 if machine in ("x86_64", "i686") else 17
        aliases = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        for minor in range(libc.minor, oldest - 1, -1):
            yield f"manylinux_{libc.major}_{minor}_{machine}"
            if minor in aliases:
                yield f"{aliases[minor]}_{machine}"
    else:
        for minor in range(libc.minor, -1, -1):
            yield f"musllinux_{libc.major}_{minor}_{machine}"
    yield f"linux_{machine}"


def _libc(version: str) -> _Libc:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    valid = major.isdecimal() and minor.isdecimal()
    # musl's version is in no place that Python reads; 1.2 is of 2019.
    return _Libc(int(major), int(minor)) if valid else _Libc(1, 2)


def applies(marker: str, interpreter: Interpreter) -> bool:
    """Whether an environment marker (PEP 508) holds for this interpreter; one that nobody can read
    does, and so does one that asks for extras or groups.
    """
    if not marker:
        return True
    from packaging import markers

    names = {"cpython": "CPython", "pypy": "PyPy"}
    environment = {
        "python_version": interpreter.version,
        "python_full_version": f"{interpreter.version}.0",
        "implementation_name": interpreter.implementation,
        "implementation_version": f"{interpreter.version}.0",
        "platform_python_implementation": names.get(interpreter.implementation, ""),
        "platform_machine": interpreter.machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    if any(word in marker for word in ("extra", "dependency_groups", "python_full_version")):
        return True
    try:
        return markers.Marker(marker).evaluate({**environment})
    except (markers.InvalidMarker, markers.UndefinedEnvironmentName, ValueError, KeyError):
        return True
