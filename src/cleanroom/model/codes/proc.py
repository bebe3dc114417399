"""CR-PROC: rules about processes."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-PROC-001",
        title="a process outlived its environment",
        text="""
            Everything a phase starts dies with its environment; this says that something was still
            there when the phase had ended, or that its end could not be held.
            Stop background processes at the end of the command, or make them services.
        """,
        example="""
            [lifecycle.test]
            command = "server & pid=$!; pytest -q; status=$?; kill $pid; wait; exit $status"
        """,
    ),
    Code(
        "CR-PROC-002",
        title="a process outside was about to be seen, signalled or traced",
        text="""
            From Medium on a phase sees only its own processes.
            It tried to look at, signal or trace another one.
            Scripts that kill by name or by a stored process id are the usual cause: keep to the
            children of the command.
        """,
        example=r"""
            [lifecycle.test]
            cleanroom.expected = [{ target = "/proc/1/environ", \
                reason = "a library looks for the container it runs in" }]
        """,
    ),
    Code(
        "CR-PROC-003",
        title="more privileges were asked for than a phase has",
        text="""
            Phases run without capabilities, without a way to gain privileges and never as user 0.
            sudo, setuid programs and mounts therefore fail.
            Do what needs root outside the phase, or in a phase with `cleanroom.enabled = false`,
            which every report says.
        """,
        example="""
            [lifecycle.test]
            command = "make install PREFIX=$PWD/build"
        """,
    ),
    Code(
        "CR-PROC-004",
        title="a dangerous system call was refused",
        text="""
            A process used a system call that a phase has no need of, such as mount, kernel modules
            or the clock, and from level High on ptrace.
            The violation names the call and the program.
            Look for a setting of that program that avoids it; `cleanroom.expected` tolerates a
            known attempt.
        """,
        example=r"""
            [lifecycle.test]
            cleanroom.expected = [{ target = "ptrace", \
                reason = "a crash reporter that is not needed here" }]
        """,
    ),
    Code(
        "CR-PROC-005",
        title="a program that is not listed was about to be started",
        text="""
            At High and Locked only the system's programs and those in `cleanroom.tools` may be
            started.
            Add the program's folder to `cleanroom.tools`, or run the phase at Medium.
        """,
        example="""
            [lifecycle.test]
            cleanroom.tools = ["/usr/local"]
        """,
    ),
)
