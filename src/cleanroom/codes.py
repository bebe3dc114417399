"""Every error code with its explanation: what `cleanroom-engine explain CODE` prints, offline.

A code never changes its meaning. A test holds that each one raised in the source is here, and that each one here is raised or belongs to a rule.
"""

from __future__ import annotations

from typing import NamedTuple

from cleanroom.code_examples import EXAMPLES
from cleanroom.code_texts import ERRORS
from cleanroom.code_texts_containers import ERRORS as OF_CONTAINERS


class Code(NamedTuple):
    """What a code means: one line, then the cause and what helps, and what that looks like."""

    title: str
    explanation: str
    example: str  # commands after `$ `, or lines of make.toml


# A rule of the policy -> the code under which its violations are explained.
RULE_CODES: dict[str, str] = {
    "filesystem.write": "CR-FS-001",
    "filesystem.metadata": "CR-FS-002",
    "filesystem.secrets": "CR-FS-003",
    "filesystem.workspace": "CR-FS-004",
    "filesystem.reads": "CR-FS-005",
    "network.egress": "CR-NET-003",
    "network.names": "CR-NET-004",
    "network.families": "CR-NET-005",
    "network.sockets": "CR-NET-006",
    "network.listen": "CR-NET-007",
    "network.local": "CR-NET-008",
    "network.publish": "CR-NET-009",
    "network.runtimes": "CR-NET-010",
    "network.record": "CR-NET-011",
    "process.tree": "CR-PROC-001",
    "process.visibility": "CR-PROC-002",
    "process.privileges": "CR-PROC-003",
    "process.syscalls": "CR-PROC-004",
    "process.exec": "CR-PROC-005",
    "resource.memory": "CR-RES-001",
    "resource.pids": "CR-RES-002",
    "resource.time": "CR-RES-003",
    "resource.disk": "CR-RES-004",
}

_RULES: dict[str, tuple[str, str]] = {
    "CR-FS-001": (
        "something outside the workspace was about to be written",
        "A process of the phase tried to create, change or remove a path outside its workspace, its private home and /tmp. The write was refused "
        "and the report names the process and the path. Write into the project or into $TMPDIR instead; where a tool insists on a place of its own, "
        "point it to one inside with its setting or variable (such as XDG_CACHE_HOME). An attempt that is known and harmless can be tolerated with "
        '`cleanroom.expected = [{ target = "...", reason = "..." }]`: it stays blocked and reported.',
    ),
    "CR-FS-002": (
        "owner, mode, times or attributes outside the workspace were about to be changed",
        "A process tried chmod, chown, utime or an extended attribute on a path outside its workspace; the call was refused. Usually an installer "
        "that sets permissions on shared folders: give it a prefix inside the project. `cleanroom.expected` tolerates a known attempt.",
    ),
    "CR-FS-003": (
        "a home folder or credential was within reach",
        "From Medium on the caller's home folder and credential files do not exist inside. This code says that one was found there, or was tried. "
        'Hand over what a phase needs by name with `cleanroom.pass = ["NAME"]` or as a file in the project, never by mounting a home folder.',
    ),
    "CR-FS-004": (
        "the workspace could not be kept copy-on-write",
        "From Medium on a phase sees the project through a copy-on-write layer, so that a failed phase leaves the project as it was. The machine or "
        "backend could not provide one, or something tried to get around it. `cleanroom-engine doctor` says which primitive is missing and what helps.",
    ),
    "CR-FS-005": (
        "a path that is not listed was about to be read",
        "At High and Locked only the system's folders, the workspace and the folders in `cleanroom.tools` are readable. Add the folder that the "
        "phase truly needs to `cleanroom.tools`, or run the phase at Medium.",
    ),
    "CR-NET-003": (
        "a connection that the policy does not allow was refused",
        "A process of the phase tried to reach an address that is not declared, or a declared host at another port, or one whose name leads to a private or "
        "special address, which the violation then says; nothing left the machine. The violation in the run's summary, "
        "in `--output json` and in the report names the process with its command line and the target; `cleanroom-engine events show` has each "
        'attempt in order. If the phase has to reach it, declare it for that phase: `cleanroom.egress = ["host:443"]` (Medium and below; the phase is '
        "then reported as not hermetic). If it is a service, name it in `cleanroom.containers`. If the attempt is known and harmless, such as a version "
        'check, tolerate it with `cleanroom.expected = [{ target = "host:443", reason = "..." }]`: it stays blocked and reported. Dependencies should '
        "be installed before the phase, not during it.",
    ),
    "CR-NET-004": (
        "a name that was not declared was looked up",
        "A process asked for the address of a host that is neither a declared service nor in `cleanroom.egress`. The answer led nowhere. At Low and "
        "Medium a question without a connection after it is a notice, above it is a violation. Declare the host in `cleanroom.egress` or "
        "`cleanroom.expected`, or switch the look-up off in the tool (telemetry and update checks are the usual cause).",
    ),
    "CR-NET-005": (
        "an unusual kind of socket was refused",
        "Raw, packet, vsock and other uncommon socket families could go around the network's isolation, so they are refused at every level. Tools such as "
        "ping and tcpdump need them: test reachability with a protocol answer of the service instead.",
    ),
    "CR-NET-006": (
        "a unix socket of the host was about to be used",
        "From Medium on no socket of the host (a container engine's, an agent's, a message bus's) is reachable from inside. Declare what the phase needs "
        "as a service in `cleanroom.containers`, or run that one phase with `cleanroom.enabled = false`, which every report says.",
    ),
    "CR-NET-007": (
        "a port that is not declared was about to be listened on",
        "At High and Locked a phase may listen only on the ports in `cleanroom.listen`. Add the port there, or use an address that the test chooses among "
        "the declared ones.",
    ),
    "CR-NET-008": (
        "an address of the host itself, or a link-local one, was about to be reached",
        "At Low a phase uses the host's network, but neither its loopback, where other programs of this machine wait, nor link-local addresses, where clouds hand out "
        "credentials. What the phase itself listens on is reached; declare what else it needs as a service in `cleanroom.containers`.",
    ),
    "CR-NET-009": (
        "a port was about to be opened to other machines",
        "At Low a phase uses the host's network, so it may listen on 127.0.0.1 and ::1 only: on all addresses, others could come. Bind to 127.0.0.1, or use Medium, where "
        "the network is the phase's own.",
    ),
    "CR-NET-010": (
        "a socket that starts programs outside was about to be used",
        "Whoever reaches the socket of a container engine, a service manager, a session bus, an agent, a terminal or an editor can start programs outside, or act "
        "as the user, so no level lets a phase do that; nor does any key. Run that one phase with `cleanroom.enabled = false`, which every report says.",
    ),
    "CR-NET-011": (
        "a connection was made, and recorded",
        "At Low the network may be used; each target is recorded with the process that reached it, so that you see what the phase depends on before it runs at Medium.",
    ),
    "CR-PROC-001": (
        "a process outlived its environment",
        "Everything a phase starts dies with its environment; this says that something was still there when the phase had ended, or that its end "
        "could not be held. Stop background processes at the end of the command, or make them services.",
    ),
    "CR-PROC-002": (
        "a process outside was about to be seen, signalled or traced",
        "From Medium on a phase sees only its own processes. It tried to look at, signal or trace another one. Scripts that kill by name or by a stored "
        "process id are the usual cause: keep to the children of the command.",
    ),
    "CR-PROC-003": (
        "more privileges were asked for than a phase has",
        "Phases run without capabilities, without a way to gain privileges and never as user 0. sudo, setuid programs and mounts therefore fail. Do what "
        "needs root outside the phase, or in a phase with `cleanroom.enabled = false`, which every report says.",
    ),
    "CR-PROC-004": (
        "a dangerous system call was refused",
        "A process used a system call that a phase has no need of, such as mount, ptrace on strangers, kernel modules or the clock. The violation names "
        "the call and the program. Look for a setting of that program that avoids it; `cleanroom.expected` tolerates a known attempt.",
    ),
    "CR-PROC-005": (
        "a program that is not listed was about to be started",
        "At High and Locked only the system's programs and those in `cleanroom.tools` may be started. Add the program's folder to `cleanroom.tools`, or "
        "run the phase at Medium.",
    ),
    "CR-RES-001": (
        "the memory limit was reached",
        "The processes of one environment used more memory than `cleanroom.limits.memory` allows; the report shows the readings that led to it and the "
        "processes were ended. Raise the limit with a `reason`, or run fewer workers at once: inside, tools may count the machine's cores.",
    ),
    "CR-RES-002": (
        "the limit of processes was reached",
        "One environment had as many processes and threads as `cleanroom.limits.pids` allows, so that further ones could not start. Look for a fork loop "
        "first; raise the limit with a `reason` if the number is honest.",
    ),
    "CR-RES-003": (
        "the time limit was reached",
        "The phase ran longer than `cleanroom.timeout` (or its level's wall time) and was ended with its whole process tree; the command's exit status is "
        "124. The end of its output is in the failure excerpt. Raise the timeout, or find out what it waits for: services and hosts that are not declared "
        "never answer.",
    ),
    "CR-RES-004": (
        "the limit of written bytes was reached",
        "The workspace layer or a temporary folder of one environment is full (`cleanroom.limits.disk`). Clean up what the phase leaves behind, or raise "
        "the limit with a `reason`.",
    ),
}

_COMMAND: dict[str, tuple[str, str]] = {
    # --- the command
    "CR-CLI-001": (
        "the command line does not say anything that exists",
        "A command, option, value or argument is not known or is missing. The hint names the nearest that exists; `cleanroom-engine COMMAND --help` lists "
        "all with examples. Commands of later versions are not known either: `cleanroom-engine --version` says which one this is.",
    ),
    "CR-CLI-002": (
        "the result could not be written to standard output",
        "Standard output was closed, full, or its reader went away, so what the command had to say is lost; the exit status is 5 because a 0 would claim "
        "that somebody was told. A run's reports are still in .ggen/cleanroom/reports.",
    ),
    "CR-CLI-003": (
        "an input is nested too deeply or too large",
        "Reading the project's files ran out of stack or memory. No sensible make.toml does that; look for generated or hostile content in the files of the "
        "project. Nothing was run and nothing was written.",
    ),
    "CR-CLI-004": (
        "there is no such code",
        "`cleanroom-engine explain CODE` knows the codes that this version can report. Without a code it lists all of them with their titles, one per line.",
    ),
    "CR-CLI-005": (
        "there is nothing recorded yet",
        "The command reads what earlier runs left under .ggen/cleanroom, and there is none in this project (or not the run that was named). Nothing was "
        "verified, so the exit status is 4. Run a pipeline first, or name the project with --root.",
    ),
    "CR-ENGINE-000": (
        "the engine failed in a way that it did not foresee",
        "This is a fault of the engine, not of your project. Run the command again with --debug for the traceback and report both. What was running has been "
        "unwound; `cleanroom-engine sweep` removes leftovers, should there be any.",
    ),
    # --- the doctor
    "CR-DOCTOR-001": (
        "the embedded backend could not be asked",
        "The probe starts a throw-away environment to see what this machine can hold, and that failed before it could tell. The message has the system's own "
        "words. Check that the temporary folder is writable and that the machine is not out of processes or memory, then run `cleanroom-engine doctor` again.",
    ),
    "CR-DOCTOR-002": (
        "a dimension of isolation is not fully enforced here",
        "The probe found that network, filesystem, process or resource isolation holds only in part, or not at all; the line names the mechanism and what the "
        "kernel answered. A run whose policy requires more is refused with exit 3. User namespaces, overlay mounts and Landlock are what is usually missing.",
    ),
    "CR-DOCTOR-003": (
        "a policy level cannot be held here",
        "The rules named in the line are required by that level and cannot be held on this machine or by this version, so that a run at this level is refused. "
        "The hint says what would help. The other levels are not touched by it.",
    ),
    "CR-DOCTOR-004": (
        "environments need Linux",
        "The embedded backend is built from the Linux kernel's namespaces, Landlock and seccomp. On other systems the package imports and `plan`, `doctor`, "
        "`audit`, `events` and `report` work, while `pipeline` is refused with exit 3. Use a Linux machine, a virtual machine or CI for runs.",
    ),
    "CR-DOCTOR-005": (
        "this Python has known holes in tarfile",
        "The extraction filters of tarfile could be walked around in Python before 3.11.13, 3.12.11 and 3.13.4 (CVE-2025-4517 and its kin). The engine does not "
        "rely on those filters, but the project's own tools may. Update the interpreter.",
    ),
    "CR-DOCTOR-006": (
        "an unrelated distribution overwrites this package",
        "A distribution named `cleanroom` from 2019 installs a Python package of the same name, so files of one replace files of the other. Uninstall it and "
        "install cleanroom-engine again.",
    ),
    "CR-DOCTOR-007": (
        "Landlock is not there",
        "Landlock is a second line behind the mounts that keeps writes inside the workspace. The kernel is older than 5.13, or was started without landlock in "
        "its lsm= list. The rules that depend on it are named by the policy lines of `cleanroom-engine doctor`.",
    ),
    "CR-DOCTOR-008": (
        "control groups are not writable",
        "Without a writable control group, memory and process limits are held by rlimits and by samples, which can be a moment late; every report says which. "
        "Run as root, or under a user service with delegation (`systemd-run --user --scope -p Delegate=yes cleanroom-engine ...`).",
    ),
    "CR-DOCTOR-009": (
        "little free space for the cache",
        "Templates of services, workspace layers and logs of a run lie in the user's cache folder, and less than 2 GiB are free there. Free some space, or set "
        "CLEANROOM_CACHE to a folder on a larger disk.",
    ),
    "CR-DOCTOR-010": (
        "runs have left folders in the cache",
        "The scratch folder of a run is removed at its end, so one that is there belongs to a run that lives or was killed. `cleanroom-engine sweep` tells them "
        "apart and removes what belongs to no living run.",
    ),
}

CODES: dict[str, Code] = {
    code: Code(*texts, EXAMPLES.get(code, ""))
    for texts_by_code in (_RULES, _COMMAND, ERRORS, OF_CONTAINERS)
    for code, texts in sorted(texts_by_code.items())
}
