"""Faults whose tests are in other rooms: area, fault, what happens, exit code or -, and where."""

from __future__ import annotations

KILLS, LIMITS, LIFE = (
    "tests/acceptance/test_acceptance_kill.py",
    "tests/acceptance/test_acceptance_limits.py",
    "tests/backends/test_embedded_life.py",
)
ENGINES = "tests/faults/test_fault_containers.py"
CONTAINED = "tests/faults/test_fault_container_kills.py"
INNER, POWER, LIVE = "tests/faults/test_fault_kills.py", "tests/faults/test_fault_power.py", "tests/lifecycle/test_services_live.py"

ELSEWHERE: tuple[tuple[str, str, str, str, str], ...] = (
    ("a phase", "forks more than it may and goes on", "what is refused is a violation, so it does not pass", "1", LIMITS),
    ("a phase", "fills memory", "it is killed, and the limit is named", "1", LIMITS),
    ("a phase", "writes a file beyond the limit", "not one byte more is written, and the limit is named", "1", LIMITS),
    ("a phase", "floods both streams", "the engine's memory stays flat", "-", LIFE),
    ("a phase", "fills /tmp, memory files, open files, threads", "each stops at its limit", "-", "tests/attacks/attack_limits.py"),
    (
        "a service",
        "dies during the run",
        "it is started again, and reached through the same port",
        "0",
        "tests/acceptance/test_acceptance_restart.py",
    ),
    ("a service", "is alive and silent", "its health probe finds out, and it is started again", "0", LIVE),
    ("a kill -9", "of the engine, at any moment", "the keeper ends and removes everything", "137", KILLS),
    (
        "a kill -9",
        "of engine and keeper",
        "the kernel ends all processes; the next run or `sweep` removes folders and groups",
        "137",
        KILLS,
    ),
    ("a SIGSTOP", "of a warden or of pid 1 of an environment", "the timeout ends the phase: what stands above kills it", "124", INNER),
    ("a kill -9", "of the keeper", "every environment ends with it; the engine removes what it made", "5", INNER),
    ("a kill -9", "of a phase's warden or init", "the environment ends whole, the phase does not pass", "5", INNER),
    ("a kill -9", "of a service's warden, its relay or its main process", "the service is started again", "0", INNER),
    ("a kill -9", "of the process that tries the canaries", "nothing is proven, so nothing is run", "5", LIFE),
    (
        "a kill -9",
        "with a recorded process number that a stranger has now",
        "the stranger is untouched",
        "-",
        "tests/backends/test_embedded_sweep.py",
    ),
    ("a kill -9", "while another engine of the project runs", "neither sweeps the other, in other containers either", "0", KILLS),
    ("a power cut", "after any step of a replaced file", "it is the old one or the new one, whole", "-", POWER),
    ("a power cut", "after any step of the audit log", "it verifies, has what was promised, and is continued", "-", POWER),
    ("a power cut", "after any step of state.json and its copy", "both read, nothing promised is lost", "-", POWER),
    ("a power cut", "in the middle of events or the journal", "what is whole is read", "-", POWER),
    ("the disk", "fails at any one step of audit log or state", "the run ends, the files are whole", "5", POWER),
    (
        "the run",
        "finds a damaged template of a service",
        "one that differs from its list is made anew",
        "0",
        "tests/services/test_template_cache.py",
    ),
    (
        "a container engine",
        "has a container of the name that ours would have",
        "its refusal is told; the stranger's container stays",
        "5",
        ENGINES,
    ),
    ("a kill -9", "of the engine, at any moment, while it uses containers", "the keeper has them removed", "137", CONTAINED),
    (
        "a kill -9",
        "of engine and keeper, while it uses containers",
        "their processes end at once; `sweep` or the next run removes what is left of them",
        "137",
        CONTAINED,
    ),
    (
        "a kill -9",
        "of the keeper, or of the warden of a phase's container",
        "the run ends; the engine has everything removed",
        "5",
        CONTAINED,
    ),
    ("a kill -9", "of the warden of a service's container", "the service is started again in a new container", "0", CONTAINED),
)
