"""Attacks on files from inside a cage: each fails, changes nothing,
and is recorded with its process and path.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import constants, syscalls
from support.sandbox_harness import attack, code, written

pytestmark = pytest.mark.sandbox
raw = syscalls._call
CWD = constants.AT_FDCWD


def paths(caught) -> list[tuple[str, str, str]]:
    return [(a["syscall"], a["rule"], a["target"]["path"]) for a in caught.attempts]


@pytest.mark.parametrize(
    ("name", "arguments", "rule", "path"),
    [
        (
            "openat",
            (CWD, b"/etc/a-new", os.O_CREAT | os.O_WRONLY, 0o600),
            "filesystem.write",
            "/etc/a-new",
        ),
        ("openat", (CWD, b"/etc/passwd", os.O_RDWR), "filesystem.write", "/etc/passwd"),
        ("openat", (CWD, b"/etc/passwd", os.O_TRUNC), "filesystem.write", "/etc/passwd"),
        (
            "openat",
            (CWD, b"/root/.ssh/new", os.O_CREAT | os.O_WRONLY, 0o600),
            "filesystem.write",
            "/root/.ssh/new",
        ),
        ("mkdirat", (CWD, b"/usr/new", 0o755), "filesystem.write", "/usr/new"),
        ("mknodat", (CWD, b"/usr/fifo", 0o010644, 0), "filesystem.write", "/usr/fifo"),
        ("symlinkat", (b"/etc", CWD, b"/usr/link"), "filesystem.write", "/usr/link"),
        ("linkat", (CWD, b"/etc/passwd", CWD, b"/usr/link", 0), "filesystem.write", "/usr/link"),
        ("renameat", (CWD, b"mine", CWD, b"/usr/mine"), "filesystem.write", "/usr/mine"),
        ("renameat2", (CWD, b"/etc/passwd", CWD, b"mine", 0), "filesystem.write", "/etc/passwd"),
        ("renameat2", (CWD, b"mine", CWD, b"/etc/passwd", 2), "filesystem.write", "/etc/passwd"),
        ("unlinkat", (CWD, b"/etc/passwd", 0), "filesystem.write", "/etc/passwd"),
        ("unlinkat", (CWD, b"/usr/lib", 0x200), "filesystem.write", "/usr/lib"),
        ("truncate", (b"/etc/passwd", 0), "filesystem.write", "/etc/passwd"),
        ("fchmodat", (CWD, b"/etc/passwd", 0o666), "filesystem.metadata", "/etc/passwd"),
        ("fchmodat2", (CWD, b"/etc/passwd", 0o666, 0), "filesystem.metadata", "/etc/passwd"),
        ("fchownat", (CWD, b"/etc/passwd", 1, 1, 0), "filesystem.metadata", "/etc/passwd"),
        ("utimensat", (CWD, b"/etc/passwd", None, 0), "filesystem.metadata", "/etc/passwd"),
        ("setxattr", (b"/etc/passwd", b"user.a", b"1", 1, 0), "filesystem.metadata", "/etc/passwd"),
        (
            "lsetxattr",
            (b"/etc/passwd", b"user.a", b"1", 1, 0),
            "filesystem.metadata",
            "/etc/passwd",
        ),
        ("removexattr", (b"/etc/passwd", b"user.a"), "filesystem.metadata", "/etc/passwd"),
        (
            "openat",
            (CWD, b"/proc/sys/kernel/core_pattern", os.O_WRONLY),
            "filesystem.write",
            "/proc/sys/kernel/core_pattern",
        ),
    ],
)
def test_a_change_outside_is_refused_and_recorded(
    workspace: str, name: str, arguments: tuple, rule: str, path: str
):
    """FS-01 to FS-10, FS-22: the call fails and one record names rule, call, path and process."""
    before = Path("/etc/passwd").stat()
    (Path(workspace) / "mine").touch()

    caught = attack(lambda _: [code(lambda: raw(name, *arguments)), os.getpid()], workspace)

    record = caught.only()
    assert caught.result[0] in ("EROFS", "ENOENT")
    assert (record["rule"], record["syscall"], record["target"]["path"]) == (rule, name, path)
    assert (record["outcome"], record["count"], record["errno"]) == ("blocked", 1, caught.result[0])
    assert record["process"]["ns_pid"] == caught.result[1]
    assert record["process"]["exe"].rpartition("/")[2].startswith("python")
    assert Path("/etc/passwd").stat().st_ctime_ns == before.st_ctime_ns


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls that only x86-64 has")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("open", (b"/etc/new", os.O_CREAT | os.O_WRONLY, 0o600)),
        ("creat", (b"/etc/new", 0o600)),
        ("mkdir", (b"/etc/new", 0o700)),
        ("unlink", (b"/etc/passwd",)),
        ("rmdir", (b"/usr/lib",)),
        ("rename", (b"/etc/passwd", b"x")),
        ("link", (b"x", b"/etc/new")),
        ("symlink", (b"x", b"/etc/new")),
        ("mknod", (b"/etc/new", 0o100644, 0)),
        ("chmod", (b"/etc/passwd", 0o666)),
        ("chown", (b"/etc/passwd", 1, 1)),
        ("lchown", (b"/etc/passwd", 1, 1)),
        ("utime", (b"/etc/passwd", None)),
        ("utimes", (b"/etc/passwd", None)),
        ("futimesat", (CWD, b"/etc/passwd", None)),
    ],
)
def test_the_old_forms_are_refused_too(workspace: str, name: str, arguments: tuple):
    """Every call that a newer one replaced is judged like it."""
    caught = attack(lambda _: code(lambda: raw(name, *arguments)), workspace)
    assert (caught.result, caught.only()["syscall"]) == ("EROFS", name)


def test_openat2_does_not_exist(workspace: str):
    """FS-02: its flags lie in memory, so it is answered ENOSYS."""
    assert (
        attack(
            lambda _: code(lambda: syscalls.openat2(CWD, "/etc/new", os.O_CREAT | os.O_WRONLY)),
            workspace,
        ).result
        == "ENOSYS"
    )


def test_a_link_of_the_workspace_that_leads_outside_is_seen_for_what_it_is(workspace: str):
    """FS-11: the record shows the resolved path, for a link at the end and for one in the
    middle.
    """
    os.symlink("/etc/passwd", f"{workspace}/file")
    os.symlink("/usr", f"{workspace}/folder")
    caught = attack(
        lambda w: [
            code(lambda: written(f"{w}/file")),
            code(lambda: written(f"{w}/folder/share/x")),
        ],
        workspace,
    )
    assert caught.result == ["EROFS", "EROFS"]
    assert [path for *_, path in paths(caught)] == ["/etc/passwd", "/usr/share/x"]


def test_removing_a_link_that_leads_outside_is_no_attempt(workspace: str):
    """What does not follow links changes the link, which is ours."""
    os.symlink("/etc/passwd", f"{workspace}/file")
    caught = attack(lambda w: code(lambda: os.unlink(f"{w}/file")), workspace)
    assert (caught.result, caught.attempts) == ("ok", [])


def test_dots_descriptors_and_working_directories_lead_where_they_lead(workspace: str):
    """FS-12: '..' from a descriptor, and a relative write after chdir."""

    def act(w: str) -> list[str]:
        here = os.open(w, os.O_RDONLY)
        up = "../" * w.count("/")
        found = [code(lambda: os.open(f"{up}etc/by-dots", os.O_CREAT | os.O_WRONLY, dir_fd=here))]
        os.chdir("/usr/share")
        return [*found, code(lambda: os.open("by-chdir", os.O_CREAT | os.O_WRONLY))]

    caught = attack(act, workspace)
    assert caught.result == ["EROFS", "EROFS"]
    assert [path for *_, path in paths(caught)] == ["/etc/by-dots", "/usr/share/by-chdir"]


@pytest.mark.parametrize("form", ["/proc/self/fd/{}", "/dev/fd/{}", "/proc/thread-self/fd/{}"])
def test_a_descriptor_reopened_for_writing_is_resolved_for_the_caller(workspace: str, form: str):
    """FS-13: the path behind the caller's descriptor counts, not the recorder's."""

    def act(_: str) -> str:
        held = os.open("/etc/passwd", os.O_RDONLY)
        return code(lambda: os.open(form.format(held), os.O_WRONLY))

    caught = attack(act, workspace)
    assert (caught.result, caught.only()["target"]["path"]) == ("EROFS", "/etc/passwd")


def test_the_root_links_of_proc_lead_nowhere_else(workspace: str):
    """FS-14: /proc/self/root is the environment's own root."""
    caught = attack(lambda _: code(lambda: written("/proc/self/root/etc/x")), workspace)
    assert (caught.result, caught.only()["target"]["path"]) == ("EROFS", "/etc/x")


def test_ordinary_work_is_no_attempt(workspace: str):
    """FS-37, FS-38: files, folders, links, times, pipes and devices of one's own work and leave no
    record.
    """

    def act(w: str) -> str:
        os.mkdir(f"{w}/d")
        with open(f"{w}/d/f", "w") as file:
            file.write("x")
            os.utime(file.fileno())
        os.chmod(f"{w}/d/f", 0o600)
        os.link(f"{w}/d/f", f"{w}/d/g")
        os.symlink("f", f"{w}/d/l")
        os.rename(f"{w}/d/g", f"{w}/d/h")
        os.utime(f"{w}/d/l")
        os.mkfifo(f"{w}/d/p")
        for name in ("f", "h", "l", "p"):
            os.unlink(f"{w}/d/{name}")
        os.rmdir(f"{w}/d")
        os.chdir(w)
        for path in ("/dev/null", "/dev/zero", "/tmp/cage-own", "relative", "/dev/shm/cage-own"):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        os.unlink("/tmp/cage-own")
        os.unlink("/dev/shm/cage-own")
        _, write_end = os.pipe()
        os.close(os.open(f"/proc/self/fd/{write_end}", os.O_WRONLY))
        os.close(os.open(f"/dev/fd/{write_end}", os.O_WRONLY))
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
        return "ok"

    caught = attack(act, workspace)
    assert (caught.result, caught.attempts) == ("ok", [])


def test_what_fails_anyway_is_no_attempt(workspace: str):
    """Making what is there, removing what is not, and probing for it change nothing outside;
    the kernel's own errno comes back.
    """

    def act(_: str) -> list[str]:
        return [
            code(lambda: os.mkdir("/usr")),
            code(lambda: os.unlink("/etc/not-there")),
            code(lambda: os.open("/etc/not-there", os.O_WRONLY)),
            code(lambda: raw("mkdirat", 9999, b"x", 0)),
            code(lambda: raw("mkdirat", CWD, None, 0)),
        ]

    caught = attack(act, workspace)
    assert caught.attempts == []
    assert (caught.result[0], caught.result[2:4]) == ("EEXIST", ["ENOENT", "EBADF"])


def test_a_bad_pointer_is_answered_as_the_kernel_would(workspace: str):
    """A path that cannot be read is EFAULT and no attempt."""
    caught = attack(lambda _: code(lambda: raw("mkdirat", CWD, 8, 0o700)), workspace)
    assert (caught.result, caught.attempts) == ("EFAULT", [])


def test_byte_code_under_a_read_only_tool_is_tagged(workspace: str):
    """A refused __pycache__ beside a mounted tool can be told from other writes, and only there."""

    def act(_: str) -> list[str]:
        tried = ("/usr/share/__pycache__/a.pyc.1234", "/usr/share/__pycache__/b.pyc", "/etc/a.pyc")
        return [
            code(lambda: os.mkdir("/usr/share/__pycache__")),
            *(code(lambda: written(path)) for path in tried),  # noqa: B023
        ]

    caught = attack(act, workspace, read_only=("/usr",))
    first = [(a["target"]["path"], a["tags"]) for a in caught.attempts][:2]
    assert first == [("/usr/share/__pycache__", ["pycache"]), ("/etc/a.pyc", [])]
    assert sum(a["count"] for a in caught.attempts) == 4


def test_a_device_node_is_never_made(workspace: str):
    """FS-23: not even inside the workspace."""
    caught = attack(
        lambda w: code(lambda: os.mknod(f"{w}/disk", 0o060600, os.makedev(8, 0))), workspace
    )
    assert (caught.result, caught.only()["rule"]) == ("EPERM", "process.syscalls")


def test_another_process_s_memory_is_not_opened_for_writing(workspace: str):
    """PROC-09: /proc/PID/mem of another process is refused; one's own is not."""

    def act(_: str) -> list[str]:
        return [
            code(lambda: os.open("/proc/1/mem", os.O_RDWR)) if os.getpid() != 1 else "self",
            code(lambda: os.close(os.open("/proc/self/mem", os.O_RDWR))),
        ]

    assert attack(act, workspace).result[1] == "ok"


def test_undecodable_names_are_recorded(workspace: str):
    """A name that is no text is shown with its bytes escaped."""
    caught = attack(lambda _: code(lambda: os.mkdir(b"/etc/\xff\xfe")), workspace)
    assert caught.only()["target"]["path"] == "/etc/\\xff\\xfe"


def test_a_thousand_refusals_are_a_few_records(workspace: str):
    """PROC-30: the same refusal in a loop is folded, and the counts add up."""

    def act(_: str) -> int:
        return sum(code(lambda: written("/etc/again")) == "EROFS" for _ in range(1000))

    caught = attack(act, workspace)
    assert caught.result == sum(a["count"] for a in caught.attempts) == 1000
    assert len(caught.attempts) <= 20
    assert caught.completeness == "exact"


def test_too_many_different_attempts_are_dropped_and_said_so(workspace: str):
    """Beyond a thousand distinct records the rest is counted, and the account is lossy."""

    def act(_: str) -> None:
        for number in range(1010):
            code(lambda: os.mkdir(f"/etc/{number}"))  # noqa: B023

    caught = attack(act, workspace)
    assert (
        len({str(attempt["target"]) for attempt in caught.attempts}),
        caught.dropped,
        caught.completeness,
    ) == (1001, 10, "lossy")
    rest = [attempt for attempt in caught.attempts if attempt["tags"] == ["dropped"]]
    assert sum(attempt["count"] for attempt in rest) == 10
    assert {(attempt["rule"], attempt["process"]) for attempt in rest} == {
        ("filesystem.write", None)
    }


def test_a_grandchild_is_named(workspace: str):
    """PROC-31, NET-33: after fork and setsid the record names who did it."""

    def act(_: str) -> int:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                syscalls.set_process_name("grandchild")
                code(lambda: written("/etc/x"))
                os._exit(0)
            os.wait()
            os._exit(0)
        os.wait()
        return 0

    process = attack(act, workspace).only()["process"]
    assert process["comm"] == "grandchild"
    assert process["ns_pid"] > 2


def test_setxattrat_is_refused_where_the_kernel_has_it(workspace: str):
    """A form newer than the filter's first kernels is judged too."""
    if syscalls.kernel_version() < (6, 13):
        pytest.skip("came with Linux 6.13")
    caught = attack(
        lambda _: code(
            lambda: raw(
                "setxattrat", CWD, b"/etc/passwd", 0, b"user.a", struct.pack("=QII", 0, 0, 0), 16
            )
        ),
        workspace,
    )
    assert caught.only()["rule"] == "filesystem.metadata"
