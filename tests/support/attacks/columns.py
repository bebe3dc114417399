"""The columns Low and High: what they have that Medium has not, and the list itself,
with which every letter is compared.
"""

from __future__ import annotations

from typing import Any

from support.attacks.suite import READ_ONLY, REFUSED, ExpectedRecord

LOCAL, RECORD, PUBLISH, LISTEN, EXEC, READS, METADATA = (
    "network.local",
    "network.record",
    "network.publish",
    "network.listen",
    "process.exec",
    "filesystem.reads",
    "filesystem.metadata",
)
REACHED = "ok connected sent ECONNREFUSED ENETUNREACH EHOSTUNREACH"


def column(
    letter: str, expect: str | dict[str, str], *seen: ExpectedRecord, **more: Any
) -> dict[str, Any]:
    return {
        "letter": letter,
        "expect": {"*": expect} if isinstance(expect, str) else expect,
        "seen": seen,
        **more,
    }


def reached(*targets: tuple[str, int]) -> dict[str, Any]:
    """Done, and recorded."""
    return column(
        "O", REACHED, *(ExpectedRecord(RECORD, {"ip": ip, "port": port}) for ip, port in targets)
    )


def no(gap: str) -> dict[str, Any]:
    return {"letter": "-", "gap": gap, "seen": ()}


LOW: dict[str, dict[str, Any]] = {
    "NET-01": reached(("192.0.2.1", 443)),
    "NET-02": reached(("2001:db8::1", 443)),
    "NET-03": reached(*(("192.0.2.9", port) for port in (123, 124, 125, 126))),
    "NET-04": column("O", "203.0.113.5", ExpectedRecord(RECORD, {"port": 53})),
    "NET-05": column(
        "O",
        REACHED,
        ExpectedRecord(RECORD, {"ip": "192.0.2.53", "proto": "udp"}),
        ExpectedRecord(RECORD, {"ip": "192.0.2.53", "proto": "tcp"}),
    ),
    "NET-06": column(
        "B",
        REFUSED,
        ExpectedRecord(LOCAL, {"ip": "127.0.0.11"}),
        ExpectedRecord(LOCAL, {"ip": "127.0.0.53"}),
    ),
    "NET-07": column(
        "O", REACHED, ExpectedRecord(RECORD, {"host": "api.shop.example", "port": 443})
    ),
    "NET-08": reached(("192.0.2.8", 80)),
    "NET-09": reached(("192.0.2.8", 81)),
    "NET-10": column(
        "O", "EPROTONOSUPPORT", ExpectedRecord("network.families", {"proto": "mptcp"})
    ),
    "NET-11": column(
        "B", "EPROTONOSUPPORT", ExpectedRecord("network.families", {"proto": "mptcp"})
    ),
    "NET-12": column("B", "EACCES", ExpectedRecord(PUBLISH, {"ip": "0.0.0.0"})),
    "NET-13": column("B", "EACCES", ExpectedRecord(PUBLISH, {"port": 8080})),
    "NET-15": column(
        "B",
        REFUSED + " EINVAL",
        ExpectedRecord(LOCAL, {"ip": "169.254.169.254", "port": 80}),
        ExpectedRecord(LOCAL, {"ip": "fe80::1", "port": 80}),
    ),
    "NET-16": column(
        "B",
        "ECONNREFUSED",
        ExpectedRecord(LOCAL, {"ip": "127.0.0.1", "port": "{port}"}),
        ExpectedRecord(LOCAL, {"ip": "::1", "port": "{port}"}),
    ),
    "NET-17": column("O", REACHED, ExpectedRecord(RECORD, {"ip": "{address}", "port": "{port}"})),
    "NET-19": column("O", REACHED, ExpectedRecord(RECORD, {"ip": "203.0.113.5", "port": 444})),
    "NET-20": column("B", REFUSED, ExpectedRecord(LOCAL, {"ip": "127.77.0.2", "port": "{port}"})),
    "NET-22": column("b", "EAFNOSUPPORT"),
    "NET-27": column(
        "B",
        "ENOENT EACCES",
        *(
            ExpectedRecord("network.runtimes", {"sun_path": path})
            for path in ("/run/docker.sock", "/run/podman/podman.sock")
        ),
    ),
    "NET-28": column(
        "O", "connected ENOENT EACCES ECONNREFUSED", ExpectedRecord(RECORD, {"sun_path": "{agent}"})
    ),
    "NET-29": column("B", "ECONNREFUSED EPERM", ExpectedRecord(LOCAL, {"sun_path": "@{abstract}"})),
    "NET-33": column(
        "O",
        {"*": REACHED, "pid": "*"},
        ExpectedRecord(RECORD, {"ip": "192.0.2.33", "port": 1}),
        ExpectedRecord(RECORD, {"ip": "192.0.2.33", "port": 2}),
    ),
    "NET-34": reached(("255.255.255.255", 9), ("224.0.0.251", 5353)),
    "NET-35": column("O", REACHED, ExpectedRecord(RECORD, {"ip": "192.0.2.35", "port": 9})),
    "NET-35b": column("O", "tried", ExpectedRecord(RECORD, {"sun_path": "{agent}"})),
    "NET-36": reached(("192.0.2.36", 9)),
    "NET-38": reached(("198.51.100.34", 8090)),
    "FS-16": {"letter": "A"},
    "FS-17": column("A", "ok"),
    "FS-38": {"expect": {"*": "ok", "home": "read-only"}},
    "FS-30": column(
        "B",
        {"chmod": "EPERM", "same user": "*"},
        ExpectedRecord(METADATA, {"path": "{project}/my-id"}),
    ),
    "FS-43": column("B", {"*": "EPERM"}, ExpectedRecord(METADATA, {"path": "{project}/plain"})),
    "FS-40": column("A", "ok ENOENT EACCES"),
    "PROC-02b": column("A", "ok"),
    "PROC-32": {"expect": {"*": "plain", "dockerenv": "ENOENT ok", "hostname": "plain"}},
}

HIGH: dict[str, dict[str, Any]] = {
    "NET-04": {"letter": "B"},
    "NET-05": {"letter": "B"},
    "NET-06": {"letter": "B"},
    "NET-11": column("B", "EACCES EPROTONOSUPPORT", ExpectedRecord(LISTEN, {"port": 8081})),
    "NET-12": column("B", "EACCES", ExpectedRecord(LISTEN, {"ip": "0.0.0.0"})),
    "NET-13": column("B", "EACCES", ExpectedRecord(LISTEN, {"port": 8080})),
    "NET-20": no("`egress` is an error of the configuration there (NET-21)"),
    "FS-17": column("B", "ENOENT", ExpectedRecord(READS, {"path": "{secrets}/.netrc"})),
    "FS-18": column("B", {"*": "ENOENT"}, ExpectedRecord(READS, {"path": "/etc/shadow"})),
    "FS-30": column(
        "B",
        {"chmod": "ok", "same user": "EACCES"},
        ExpectedRecord(EXEC, {"path": "{project}/my-id"}),
    ),
    "PROC-01": column("B", "EACCES", ExpectedRecord(EXEC, {"path": "{project}/mine"})),
    "PROC-02": column("B", "EACCES", ExpectedRecord(EXEC, {"path": "/tmp/mine"})),
    "PROC-03": column("B", "*", ExpectedRecord(EXEC, {"path": "{project}/loaded"})),
    "PROC-04": column("B", "ENOSYS EACCES", ExpectedRecord(EXEC, {"syscall": "memfd_create"})),
}

COLUMNS: dict[str, dict[str, dict[str, Any]]] = {"Low": LOW, "Medium": {}, "High": HIGH}
assert READ_ONLY

# The list: Low, Medium, High.
LIST = """
NET-01 OBB NET-02 OBB NET-03 OBB NET-04 OOB NET-05 OOB NET-06 OOB NET-07 OBB NET-08 OBB
NET-09 OBB NET-10 OBB NET-11 AAB NET-12 AAB NET-13 AAB NET-15 BBB
NET-16 Bbb NET-17 OBB NET-19 OBB NET-20 BBB NET-22 bBB NET-23 BBB NET-24 BBB NET-25 BBB
NET-26 BBB NET-27 BBB NET-28 OBB NET-29 BBB NET-30 bbb NET-31 bbb
NET-32 BBB NET-33 OBB NET-34 OBB NET-35 OBB NET-36 OBB NET-38 OBB
FS-01 BBB FS-02 BBB FS-03 BBB FS-04 BBB FS-05 BBB FS-06 BBB FS-07 BBB FS-08 BBB
FS-09 BBB FS-10 BBB FS-11 BBB FS-12 BBB FS-13 BBB FS-14 BBB FS-15 BBB
FS-16 Abb FS-17 ABB FS-18 bbB FS-20 AAb FS-21 bbb FS-22 BBB FS-23 BBB FS-24 BBB
FS-25 BBB FS-26 BBB FS-27 BBB FS-28 bbb FS-29 bbb FS-30 AAb FS-37 AAA FS-38 AAA
FS-39 BBB FS-40 Abb FS-41 BBB FS-42 BBB FS-43 AAA FS-44 BBB FS-45 AAA FS-46 BBB
PROC-01 AAB PROC-02 AAB PROC-02b ABB PROC-03 AAB PROC-04 AAB PROC-06 bbb PROC-08 BBB PROC-09 BBB
PROC-10 bbb PROC-11 bbb PROC-12 BBB PROC-13 BBB PROC-14 BBB
PROC-15 BBB PROC-16 BBB PROC-17 BBB PROC-18 bbb PROC-19 bbb PROC-20 BBB PROC-21 bbb PROC-22 bbb
PROC-23 BBB PROC-24 bbb PROC-25 AAA PROC-26 BBB PROC-28 bbb
PROC-30 BBB PROC-31 BBB PROC-32 AAA
PROC-33 BBB PROC-34 BBB PROC-35 bbb PROC-36 bbb
RES-01 LLL RES-02 LLL RES-04 LLL RES-06 LLL RES-07 LLL RES-08 AAA RES-09 LLL RES-10 LLL
RES-12 LLL RES-19 bbb RES-21 AAA
"""

# Cells that cannot be what the list says, each with its reason;
# `docs/dev/decisions.md` has them too.
OTHERWISE = {
    (
        "NET-06",
        "Low",
    ): "a name server that is not configured is nothing but the host's loopback, which Low refuses",
    ("NET-11", "Low"): "the list asks for B wherever the network is not the environment's own",
    ("NET-12", "Low"): "the list asks for B wherever the network is not the environment's own",
    ("NET-13", "Low"): "the list asks for B wherever the network is not the environment's own",
    (
        "FS-17",
        "Medium",
    ): (
        "opens for reading are held from High on, since a held call for each of them is High's "
        "price; the file is not there"
    ),
    (
        "FS-20",
        "High",
    ): (
        "the paths that are looked at are on the list; looking for what is not fails by its "
        "absence (tests/sandbox/test_notify_high_attacks.py)"
    ),
    ("FS-30", "Low"): "the workspace is the host's own there, and the file would be its owner's",
    ("FS-43", "Low"): "as FS-30",
    (
        "FS-30",
        "High",
    ): (
        "nothing that was written is started there, which is an attempt (PROC-01); changing its "
        "mode is the owner's right"
    ),
}


def listed() -> dict[str, str]:
    """Row -> its letters at Low, Medium and High."""
    words = LIST.split()
    return dict(zip(words[::2], words[1::2], strict=True))
