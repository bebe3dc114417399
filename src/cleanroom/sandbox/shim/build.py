"""Building pid 1 of containers from `init.c` with an installed C compiler, once per source and
machine.

The result is static, so that it starts in any image, and lies in the user's cache under the digest
of its source.
`make shim` does it by hand.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path
from subprocess import TimeoutExpired

from cleanroom.core import host_programs

SOURCE = Path(__file__).with_name("init.c")
# A program of 30 KB with musl, of 700 KB with glibc.
COMPILERS = ("musl-gcc", "gcc", "cc", "clang")
OPTIONS = ("-static", "-Os", "-s", "-Wall", "-Wextra")
COMPILE_SECONDS = 60.0


class NotBuilt(Exception):
    """It could not be built; the message gives the reason."""


def program_in(folder: Path) -> Path:
    """The path at which `build` puts it: another one for each source and machine."""
    return (
        folder / f"init-{platform.machine()}-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    )


def build(folder: Path) -> Path:
    """The program in `folder`, made if it is not there yet.

    Blocks for about 0.2 s when it has to be made.

    Raises:
        NotBuilt: there is no compiler, or it does not make a static program.
    """
    program = program_in(folder)
    if program.exists():
        return program
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    passing = program.with_name(f"{program.name}.{os.getpid()}")
    reason = "none of " + ", ".join(COMPILERS) + " is in the system's folders"
    for compiler in filter(host_programs.find, COMPILERS):
        try:
            words = [*OPTIONS, "-o", str(passing), str(SOURCE)]
            done = host_programs.run(compiler, words, timeout_seconds=COMPILE_SECONDS)
        except TimeoutExpired:
            reason = f"{compiler} took more than {COMPILE_SECONDS:g} s"
            continue
        if done.returncode == 0:
            passing.chmod(0o755)
            # rename(2) is atomic: nobody starts half a program.
            passing.rename(program)
            return program
        reason = f"{compiler}: {done.stderr.strip()[-500:]}"
    raise NotBuilt(reason)


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))  # noqa: T201 -- for `make shim`
