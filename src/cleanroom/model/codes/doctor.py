"""CR-DOCTOR: what this machine lacks."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-DOCTOR-001",
        title="the embedded backend could not be asked",
        text="""
            The probe starts a throw-away environment to see what this machine can hold, and that
            failed before it could tell.
            The message has the system's own words.
            Check that the temporary folder is writable and that the machine is not out of processes
            or memory, then run `cleanroom-engine doctor` again.
        """,
        example='$ df -h "${TMPDIR:-/tmp}" && cleanroom-engine doctor',
    ),
    Code(
        "CR-DOCTOR-002",
        title="a dimension of isolation is not fully enforced here",
        text="""
            The probe found that network, filesystem, process or resource isolation holds only in
            part, or not at all; the line names the mechanism and what the kernel answered.
            A run whose policy requires more is refused with exit 3.
            User namespaces, overlay mounts and Landlock are what is usually missing.
        """,
        example="$ unshare --user --map-root-user true && echo user namespaces are there",
    ),
    Code(
        "CR-DOCTOR-003",
        title="a policy level cannot be held here",
        text="""
            The rules named in the line are required by that level and cannot be held on this
            machine or by this version, so that a run at this level is refused.
            The hint says what would help.
            The other levels are not touched by it.
        """,
        example="$ cleanroom-engine pipeline test --policy Medium",
    ),
    Code(
        "CR-DOCTOR-004",
        title="environments need Linux",
        text="""
            The embedded backend is built from the Linux kernel's namespaces, Landlock and seccomp.
            On other systems the package imports and `plan`, `doctor`, `audit`, `events` and
            `report` work, while `pipeline` is refused with exit 3.
            Use a Linux machine, a virtual machine or CI for runs.
        """,
        example="$ cleanroom-engine plan  # works everywhere; run pipelines on Linux",
    ),
    Code(
        "CR-DOCTOR-005",
        title="this Python has known holes in tarfile",
        text="""
            The extraction filters of tarfile could be walked around in Python before 3.11.13,
            3.12.11 and 3.13.4 (CVE-2025-4517 and its kin).
            The engine does not rely on those filters, but the project's own tools may.
            Update the interpreter.
        """,
        example="$ pyenv install 3.13 && python3 --version",
    ),
    Code(
        "CR-DOCTOR-006",
        title="an unrelated distribution overwrites this package",
        text="""
            A distribution named `cleanroom` from 2019 installs a Python package of the same name,
            so files of one replace files of the other.
            Uninstall it, and install the engine again from its repository.
        """,
        example="$ pip uninstall cleanroom && pip install --force-reinstall .",
    ),
    Code(
        "CR-DOCTOR-007",
        title="Landlock is not there",
        text="""
            Landlock is a second line behind the mounts that keeps writes inside the workspace.
            The kernel is older than 5.13, or was started without landlock in its lsm= list.
            The rules that depend on it are named by the policy lines of `cleanroom-engine doctor`.
        """,
        example="$ cat /sys/kernel/security/lsm",
    ),
    Code(
        "CR-DOCTOR-008",
        title="control groups are not writable",
        text="""
            Without a writable control group, memory and process limits are held by rlimits and by
            samples, which can be a moment late; every report says which.
            Run as root, or under a user service with delegation (`systemd-run --user --scope -p
            Delegate=yes cleanroom-engine ...`).
        """,
        example="$ systemd-run --user --scope -p Delegate=yes cleanroom-engine pipeline test",
    ),
    Code(
        "CR-DOCTOR-009",
        title="little free space for the cache",
        text="""
            Templates of services, workspace layers and logs of a run lie in the user's cache
            folder, and less than 2 GiB are free there.
            Free some space, or set CLEANROOM_CACHE to a folder on a larger disk.
        """,
        example='$ CLEANROOM_CACHE="$HOME/cleanroom-cache" cleanroom-engine pipeline test',
    ),
    Code(
        "CR-DOCTOR-010",
        title="runs have left folders in the cache",
        text="""
            The scratch folder of a run is removed at its end, so one that is there and belongs to
            no living run is of one that was killed.
            `cleanroom-engine sweep` removes it, with whatever else that run has left.
        """,
        example="$ cleanroom-engine sweep",
    ),
)
