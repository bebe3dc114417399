"""Rows of the list that are not one program in one environment:
where they are proven instead, or why not here.
"""

from __future__ import annotations

LATER = "the containers' and the cluster's backends come later"
LIFECYCLE = "tests/backends/test_embedded_lifecycle.py"
HIGH = "tests/sandbox/test_notify_high_attacks.py"

ELSEWHERE: dict[str, tuple[str, str]] = {
    "NET-14": (
        "connect from outside to a listener of the workload",
        "tests/backends/test_embedded_doorways.py",
    ),
    "NET-18": (
        "reach another run's service on the same port",
        "tests/backends/test_embedded_doorways.py",
    ),
    "NET-21": ("egress in the plan at High or Locked", "tests/project/test_refusals.py"),
    "NET-37": ("a cluster's API server, tokens and names", LATER),
    "FS-19": ("read a planted file outside the read allow-list", HIGH),
    "FS-31": (
        "a failing phase rewrites and deletes files",
        "tests/backends/test_embedded_workspaces.py",
    ),
    "FS-32": ("a passing phase does the same", "tests/backends/test_embedded_workspaces.py"),
    "FS-33": (
        "hostile outputs: links, devices, sockets, FIFOs",
        "tests/backends/test_embedded_workspaces.py",
    ),
    "FS-34": ("sparse giants and undecodable names", "tests/sandbox/test_layers.py"),
    "FS-35": (
        "a background writer during collection",
        "tests/backends/test_embedded_workspaces.py",
    ),
    "FS-36": ("hostile XML and JSON results", "no result file of a workload is parsed yet"),
    "PROC-05": ("a script whose interpreter is not listed", HIGH),
    "PROC-07": (
        "a program with file capabilities",
        "needs root to make; the bounding set is empty (PROC-18) and mounts are nosuid (PROC-06)",
    ),
    "PROC-27": ("the warden killed from outside", LIFECYCLE),
    "PROC-29": ("forged output", "tests/cli/test_cli_plain.py"),
    "RES-03": ("anonymous memory past the limit", "tests/acceptance/test_acceptance_limits.py"),
    "RES-05": (
        "memory past the limit in one command of several",
        "RES-04: every command is one of several there",
    ),
    "RES-11": (
        "a million empty files",
        "private folders are mounted with 200,000 inodes; the workspace's disk is sampled",
    ),
    "RES-13": (
        "busy loops on all cores",
        f"a claim about time; the quota is in {LIFECYCLE}",
    ),
    "RES-14": ("sleep past the wall limit", "tests/acceptance/test_acceptance_limits.py"),
    "RES-15": ("ignore SIGTERM", LIFECYCLE),
    "RES-16": ("flood both streams", LIFECYCLE),
    "RES-17": (
        "one long line, NUL bytes, invalid text",
        LIFECYCLE,
    ),
    "RES-18": (
        "a background process keeps stdout open",
        LIFECYCLE,
    ),
    "RES-20": ("swap", "the group's limit covers memory and swap where the host has swap"),
    "RES-22": (
        "a fork bomb beside another environment",
        LIFECYCLE,
    ),
    "RES-23": ("a decompression bomb in a package", "packages come later"),
    "RES-24": ("ephemeral storage of a cluster", LATER),
    "RES-25": (
        "counters after the group is gone",
        "the warden reads them before it reports a command's end",
    ),
    "CLN-01": ("a background process at normal exit", LIFECYCLE),
    "CLN-02": ("setsid, double fork, no death signal", LIFECYCLE),
    "CLN-03": ("kill -9 of the warden", LIFECYCLE),
    "CLN-04": (
        "kill -9 of the engine at random moments",
        "tests/acceptance/test_acceptance_kill.py",
    ),
    "CLN-05": ("kill -9 between create and its answer", "tests/acceptance/test_acceptance_kill.py"),
    "CLN-06": ("kill -9 of engine and keeper", "tests/acceptance/test_acceptance_kill.py"),
    "CLN-07": ("Ctrl-C", "tests/engine"),
    "CLN-08": ("SIGTERM mid-start", "tests/acceptance/test_acceptance_kill.py"),
    "CLN-09": ("cancel at every await of a scenario", "scenarios come later"),
    "CLN-10": ("a removal that does nothing", "tests/backends/test_memory_conformance.py"),
    "CLN-11": ("processes of a container runtime", LATER),
    "CLN-12": ("a foreign container of the same name", LATER),
    "CLN-13": ("another living run's folders", "tests/backends/test_embedded_sweep.py"),
    "CLN-14": (
        "a recorded process number that a stranger has now",
        "tests/backends/test_embedded_sweep.py",
    ),
    "CLN-15": ("layers with folders of mode 000", "tests/backends/test_embedded_workspaces.py"),
    "CLN-16": ("forty runs one after another", "no address pool is used"),
    "CLN-17": ("a cancelled command", "tests/backends/test_embedded_conformance.py"),
    "CLN-18": ("disk full during clean-up", "tests/faults/test_faults.py"),
    "CLN-19": ("a daemon that restarts", "tests/faults/test_faults.py"),
    "CLN-20": ("objects of a cluster", LATER),
    "CLN-21": ("host-wide settings", LIFECYCLE),
    "CLN-22": ("two runs at once", "tests/backends/test_embedded_doorways.py"),
    "CLN-23": (
        "a data folder removed under a live service",
        LIFECYCLE,
    ),
    "CLN-24": ("roll-back and comparison", "tests/backends/test_embedded_workspaces.py"),
}

NUMBERS = {"NET": 38, "FS": 46, "PROC": 36, "RES": 25, "CLN": 24}
