"""Phases that misbehave."""

from __future__ import annotations

import os
import pty
import termios

from support.command_harness import Project
from support.faults.suite import CommandResult, fault, has_groups, run

PHASE = "a phase"


@fault(
    PHASE,
    "forks without end",
    (
        "each fork past the limit is refused; the phase ends at its timeout, and everything with "
        "it. Without a control group a sample ends it"
    ),
    code=124,
    says="resource.pids",
    groups=True,
    code_by_samples=1,
)
def forks(project: Project) -> CommandResult:
    program = "import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(0.01)"
    timeout = '"1s"' if has_groups() else '"20s"'  # long enough for a sample on any machine
    project.write(
        {"test": f"/usr/bin/python3 -c '{program}'"},
        limits='{ pids = 32, grace = "100ms" }',
        timeout=timeout,
    )
    return run(project)


@fault(
    PHASE,
    "fills /dev/shm",
    "the write that does not fit fails inside; the phase fails by itself",
    code=1,
    says="No space left on device",
)
def shared_memory(project: Project) -> CommandResult:
    project.write(
        {"test": "dd if=/dev/zero of=/dev/shm/full bs=1M count=40"}, limits='{ tmpfs = "8MiB" }'
    )
    return run(project)


@fault(
    PHASE,
    "fills the disk with many files",
    "a sample finds its layer too large, and the phase is ended",
    code=1,
    says="resource.disk",
)
def disk(project: Project) -> CommandResult:
    text = "i=0; while true; do head -c 1000000 /dev/zero > file-$i; i=$((i+1)); sleep 0.01; done"
    project.write({"test": text}, limits='{ disk = "8MiB" }', timeout='"20s"')
    return run(project)


@fault(
    PHASE,
    "fills the inodes",
    "an empty file counts as a block of the layer, which a sample finds too large",
    code=1,
    says="resource.disk",
)
def inodes(project: Project) -> CommandResult:
    program = (
        'import os, time\nfor n in range(10**6):\n open(f"{n}", "w").close()\n'
        " n % 500 or time.sleep(0.05)"
    )
    project.write(
        {"test": f"/usr/bin/python3 -c '{program}'"}, limits='{ disk = "4MiB" }', timeout='"20s"'
    )
    return run(project)


@fault(
    PHASE,
    "writes 50 MB without a newline",
    "all of it is in the phase's log, the first MiB in the events; the engine does not grow",
    code=0,
    says="PASSED",
)
def flood(project: Project) -> CommandResult:
    project.write({"test": "head -c 50000000 /dev/zero | tr '\\\\0' x"})
    told = run(project, "run", "test", "--quiet")
    (log,) = (project.root / ".ggen/cleanroom/runs").glob("*/logs/test.log")
    assert log.stat().st_size == 50_000_000
    return told


@fault(
    PHASE,
    "ignores SIGTERM",
    "at its timeout it is asked to end, and killed after the grace",
    code=124,
    says="still running after 0.3 s",
)
def ignores(project: Project) -> CommandResult:
    project.write(
        {"test": "trap '' TERM; sleep 100; sleep 100"},
        limits='{ grace = "100ms" }',
        timeout='"300ms"',
    )
    return run(project)


@fault(
    PHASE,
    "stops itself",
    "a stopped process is not a finished one: its timeout ends it",
    code=124,
    says="still running after 0.3 s",
)
def stops(project: Project) -> CommandResult:
    project.write({"test": "kill -STOP $$"}, limits='{ grace = "100ms" }', timeout='"300ms"')
    return run(project)


@fault(
    PHASE,
    "leaves a child in a session of its own",
    "the child is named, and ended with the phase",
    code=0,
    says="left processes running",
)
def leaves(project: Project) -> CommandResult:
    project.write({"test": "setsid sleep 100 > /dev/null 2>&1 & sleep 0.1"})
    return run(project)


@fault(
    PHASE,
    "closes its output and goes on",
    "its end is its end, not that of its output",
    code=1,
    says="exit status 3",
)
def closes(project: Project) -> CommandResult:
    project.write({"test": "exec >&- 2>&-; sleep 0.1; exit 3"})
    return run(project)


@fault(
    PHASE,
    "kills everything that it can",
    "it finds its own processes, and nothing else",
    code=1,
    says="exit status 7",
)
def kills(project: Project) -> CommandResult:
    project.write({"test": "sleep 100 & kill -9 -1; wait $!; test $? = 137 && exit 7"})
    return run(project)


@fault(
    PHASE,
    "changes the terminal",
    "it has none, and its control characters are shown instead of sent",
    code=0,
    says="\\x1bc",
)
def terminal(project: Project) -> CommandResult:
    project.write(
        {
            "test": (
                "stty -F /dev/tty -echo 2> /dev/null && exit 9; stty -echo < /dev/stdout 2> "
                "/dev/null; printf '\\033c\\033]0;title\\007\\n'"
            )
        }
    )
    near, far = pty.openpty()
    before = termios.tcgetattr(far)
    child = project.started(
        "run", "test", "--backend", "embedded", stdin=far, stdout=far, stderr=far
    )
    text = b""
    while child.poll() is None:
        text += _waiting(near)
    text += _waiting(near)
    assert termios.tcgetattr(far) == before
    assert b"\x1bc" not in text
    assert b"\x1b]0;" not in text
    os.close(near)
    os.close(far)
    return CommandResult(child.returncode, text.decode(errors="replace"))


def _waiting(descriptor: int) -> bytes:
    import select

    return os.read(descriptor, 65536) if select.select([descriptor], [], [], 0.05)[0] else b""


@fault(
    PHASE,
    "makes 100,000 files",
    "all of them are brought back",
    code=0,
    says="brought back 100000 files",
    slow=True,
)
def many_files(project: Project) -> CommandResult:
    program = (
        'import os\nfor n in range(1000):\n os.makedirs(f"build/{n}")\n'
        ' for m in range(100): open(f"build/{n}/{m}", "w").close()'
    )
    project.write({"test": f"/usr/bin/python3 -c '{program}'"}, timeout='"9m"')
    told = run(project, timeout_seconds=600)
    assert sum(len(files) for _, _, files in os.walk(project.root / "build")) == 100_000
    return told
