"""11.2: everything that could change or read what is outside.

`outside` is a host folder that anyone may write to, shown inside as a tool's folder is.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import sqlite3
import subprocess
import threading

from support.attacks.suite import (
    READ_ONLY,
    ExpectedRecord,
    Facts,
    Steps,
    attack,
    code,
    each,
    system,
)

AT_CWD = -100
S = "{outside}"


def written(path: str) -> ExpectedRecord:
    return ExpectedRecord("filesystem.write", {"path": path})


def changed(path: str) -> ExpectedRecord:
    return ExpectedRecord("filesystem.metadata", {"path": path})


def call(name: str) -> ExpectedRecord:
    return ExpectedRecord("process.syscalls", {"syscall": name})


def write(path: str, flags: int = os.O_CREAT | os.O_WRONLY) -> None:
    os.close(os.open(path, flags, 0o600))


@attack(
    "FS-01",
    "create files in /etc, /usr, /opt and the home folder outside",
    "B",
    READ_ONLY,
    written("/etc/made"),
    written("/usr/made"),
    written("{home}/made"),
)
def create(facts: Facts) -> Steps:
    return each(
        etc=lambda: write("/etc/made"),
        usr=lambda: write("/usr/made"),
        home=lambda: write(f"{facts['home']}/made"),
    )


@attack(
    "FS-02",
    "creat; openat2 with and without RESOLVE flags",
    "B",
    {"*": READ_ONLY, "openat2": "ENOSYS", "resolve": "ENOSYS"},
    written(f"{S}/creat"),
)
def other_opens(facts: Facts) -> Steps:
    path = f"{facts['outside']}/creat".encode()
    how = (os.O_CREAT | os.O_WRONLY).to_bytes(8, "little") + (0o600).to_bytes(8, "little")
    return each(
        creat=lambda: (
            system(facts, "creat", path, 0o600)
            if "creat" in facts["numbers"]
            else write(path.decode())
        ),
        openat2=lambda: system(facts, "openat2", AT_CWD, path, how + bytes(8), 24),
        resolve=lambda: system(facts, "openat2", AT_CWD, path, how + (4).to_bytes(8, "little"), 24),
    )


@attack(
    "FS-03",
    "mkdir, mknod, mkfifo, symlink, link outside",
    "B",
    READ_ONLY + " EXDEV",
    *(written(f"{S}/{name}") for name in ("folder", "fifo", "symlink", "link")),
)
def make_entries(facts: Facts) -> Steps:
    there = facts["outside"]
    write("mine")
    return each(
        mkdir=lambda: os.mkdir(f"{there}/folder"),
        mkfifo=lambda: os.mkfifo(f"{there}/fifo"),
        symlink=lambda: os.symlink("x", f"{there}/symlink"),
        link=lambda: os.link("mine", f"{there}/link"),
        mknod=lambda: os.mknod(f"{there}/node", 0o20600, os.makedev(1, 3)),
    )


@attack(
    "FS-04",
    "rename out of, into and across the border",
    "B",
    READ_ONLY + " EXDEV",
    written(f"{S}/from-inside"),
    written(f"{S}/file"),
)
def rename(facts: Facts) -> Steps:
    there = facts["outside"]
    write("mine")
    return each(
        out=lambda: os.rename("mine", f"{there}/from-inside"),
        into=lambda: os.rename(f"{there}/file", "taken"),
        exchange=lambda: system(
            facts, "renameat2", AT_CWD, b"mine", AT_CWD, f"{there}/file".encode(), 2
        ),
    )


@attack(
    "FS-05", "unlink and rmdir outside", "B", READ_ONLY, written(f"{S}/file"), written(f"{S}/sub")
)
def remove(facts: Facts) -> Steps:
    return each(
        unlink=lambda: os.unlink(f"{facts['outside']}/file"),
        rmdir=lambda: os.rmdir(f"{facts['outside']}/sub"),
    )


@attack(
    "FS-06",
    "truncate by path, by open and by a read-only descriptor",
    "B",
    READ_ONLY + " EINVAL EBADF",
    written(f"{S}/file"),
)
def truncate(facts: Facts) -> Steps:
    path = f"{facts['outside']}/file"
    reading = os.open(path, os.O_RDONLY)
    return each(
        path=lambda: os.truncate(path, 0),
        open=lambda: write(path, os.O_WRONLY | os.O_TRUNC),
        descriptor=lambda: os.ftruncate(reading, 0),
    )


@attack(
    "FS-07",
    "chmod, fchmodat, fchmodat2 outside",
    "B",
    READ_ONLY + " ENOSYS",
    changed(f"{S}/file"),
    changed(f"{S}/sub"),
)
def modes(facts: Facts) -> Steps:
    there = facts["outside"]
    opened = os.open(f"{there}/sub", os.O_RDONLY)
    return each(
        chmod=lambda: os.chmod(f"{there}/file", 0o777),
        fchmod=lambda: os.fchmod(opened, 0o700),
        fchmodat=lambda: os.chmod("file", 0o777, dir_fd=os.open(there, os.O_RDONLY)),
        fchmodat2=lambda: system(facts, "fchmodat2", AT_CWD, f"{there}/sub".encode(), 0o777, 0),
    )


@attack(
    "FS-08",
    "chown, lchown, fchownat outside",
    "B",
    READ_ONLY,
    changed(f"{S}/file"),
    changed(f"{S}/link-to-file"),
    changed(f"{S}/sub"),
)
def owners(facts: Facts) -> Steps:
    there, me = facts["outside"], os.getuid()
    return each(
        chown=lambda: os.chown(f"{there}/file", me, me),
        lchown=lambda: os.lchown(f"{there}/link-to-file", me, me),
        fchownat=lambda: os.chown("sub", me, me, dir_fd=os.open(there, os.O_RDONLY)),
    )


@attack("FS-09", "utimensat outside", "B", READ_ONLY, changed(f"{S}/file"))
def times(facts: Facts) -> Steps:
    return each(utime=lambda: os.utime(f"{facts['outside']}/file", (1, 1)))


@attack(
    "FS-10",
    "setxattr, lsetxattr, removexattr outside",
    "B",
    READ_ONLY + " ENODATA ENOTSUP",
    changed(f"{S}/file"),
)
def attributes(facts: Facts) -> Steps:
    path = f"{facts['outside']}/file"
    return each(
        set=lambda: os.setxattr(path, "user.a", b"1"),
        lset=lambda: os.setxattr(path, "user.a", b"1", follow_symlinks=False),
        remove=lambda: os.removexattr(path, "user.a"),
    )


@attack(
    "FS-11",
    "write through a link of the workspace that points outside",
    "B",
    READ_ONLY,
    written(f"{S}/file"),
    written(f"{S}/through"),
)
def through_links(facts: Facts) -> Steps:
    os.symlink(f"{facts['outside']}/file", "leads-out")
    os.symlink(facts["outside"], "leads-to-folder")
    return each(end=lambda: write("leads-out"), middle=lambda: write("leads-to-folder/through"))


@attack(
    "FS-12",
    "'..' from a descriptor; chdir and a relative write",
    "B",
    READ_ONLY,
    written(f"{S}/by-dots"),
    written(f"{S}/relative"),
)
def relative(facts: Facts) -> Steps:
    there = os.open(f"{facts['outside']}/sub", os.O_RDONLY)
    back = os.getcwd()
    os.chdir(facts["outside"])
    steps = each(
        dots=lambda: os.close(os.open("../by-dots", os.O_CREAT | os.O_WRONLY, dir_fd=there)),
        relative=lambda: write("relative"),
    )
    os.chdir(back)
    return steps


@attack(
    "FS-13",
    "reopen a read-only descriptor for writing by /proc and /dev/fd",
    "B",
    READ_ONLY,
    written(f"{S}/file"),
)
def reopen(facts: Facts) -> Steps:
    opened = os.open(f"{facts['outside']}/file", os.O_RDONLY)
    return {
        form: code(lambda form=form: write(form, os.O_WRONLY))
        for form in (
            f"/proc/self/fd/{opened}",
            f"/dev/fd/{opened}",
            f"/proc/thread-self/fd/{opened}",
        )
    }


@attack(
    "FS-14",
    "through /proc/self/root, /proc/1/root and /proc/PID/cwd",
    "B",
    READ_ONLY,
    written("/usr/made"),
)
def root_links(facts: Facts) -> Steps:
    return each(
        own=lambda: write("/proc/self/root/usr/made"),
        init=lambda: write("/proc/1/root/usr/made"),
        cwd=lambda: write("/proc/1/cwd/made"),
        engine=lambda: write(f"/proc/{facts['engine']}/root/usr/made"),
    )


@attack(
    "FS-15",
    "a link swapped by a second thread while it is opened",
    "B",
    {"*": "none"},
    written(f"{S}/file"),
)
def swap(facts: Facts) -> Steps:
    """How many of 500 writes through a link that leads in or out went to the outside."""
    write("target")
    for name, to in (("in", "target"), ("out", f"{facts['outside']}/file")):
        os.symlink(to, f"swap-{name}")
    os.symlink("target", "swapped")
    going = True

    def flip() -> None:
        while going:
            for name, to in (("n1", f"{facts['outside']}/file"), ("n2", "target")):
                os.symlink(to, name)
                os.rename(name, "swapped")

    thread = threading.Thread(target=flip)
    thread.start()
    arrived = 0
    for _ in range(500):
        try:
            with open("swapped", "r+b", buffering=0) as file:
                arrived += os.path.realpath(f"/proc/self/fd/{file.fileno()}").startswith(
                    facts["outside"]
                )
        except OSError:
            pass
    going = False
    thread.join()
    return {"written outside": str(arrived) if arrived else "none"}


@attack("FS-16", "write a workspace file whose second hard link is outside", "b", "ok")
def hard_link(facts: Facts) -> Steps:
    return each(write=lambda: open("has-a-second-name", "w").write("changed"))


SECRETS = (".netrc", ".ssh/id_ed25519", ".aws/credentials", ".docker/config.json")


@attack("FS-17", "read secrets of the home folder", "b", "ENOENT EACCES")
def secrets(facts: Facts) -> Steps:
    return {
        name: code(lambda name=name: open(f"{facts['secrets']}/{name}").close()) for name in SECRETS
    }


@attack("FS-18", "read /etc/shadow", "b", "ENOENT EACCES")
def shadow(facts: Facts) -> Steps:
    return each(
        shadow=lambda: open("/etc/shadow").close(),
        keys=lambda: open("/etc/ssh/ssh_host_ed25519_key").close(),
    )


@attack("FS-20", "stat, access and readlink of system paths", "A")
def look(facts: Facts) -> Steps:
    return each(
        stat=lambda: os.stat("/usr/bin/env"),
        access=lambda: os.access("/usr", os.R_OK),
        readlink=lambda: os.path.realpath("/usr/bin/python3") and None,
    )


@attack("FS-21", "the engine's /proc folder", "b", "ENOENT ESRCH EACCES other")
def engine_files(facts: Facts) -> Steps:
    def own(name: str) -> str:
        with open(f"/proc/{facts['engine']}/{name}", "rb") as file:
            return "the engine's" if facts["run"].encode() in file.read(65536) else "other"

    return each(
        environ=lambda: own("environ"),
        cmdline=lambda: own("cmdline"),
        root=lambda: os.listdir(f"/proc/{facts['engine']}/root") and None,
        maps=lambda: own("maps"),
    )


@attack(
    "FS-22",
    "the kernel's switches and control groups",
    "B",
    READ_ONLY,
    written("/proc/sys/kernel/core_pattern"),
    written("/sys/devices/system/cpu/online"),
)
def switches(facts: Facts) -> Steps:
    paths = {
        "core": "/proc/sys/kernel/core_pattern",
        "sysrq": "/proc/sysrq-trigger",
        "group": "/sys/fs/cgroup/pids/pids.max",
        "cpu": "/sys/devices/system/cpu/online",
    }
    return {name: code(lambda path=path: write(path, os.O_WRONLY)) for name, path in paths.items()}


@attack(
    "FS-23",
    "/dev/mem, /dev/kmsg, a device node of one's own",
    "B",
    {"*": "ENOENT EACCES EPERM"},
    call("mknodat of a device"),
)
def devices(facts: Facts) -> Steps:
    return each(
        mem=lambda: write("/dev/mem", os.O_RDONLY),
        kmsg=lambda: write("/dev/kmsg", os.O_RDONLY),
        disk=lambda: write("/dev/sda", os.O_RDONLY),
        mknod=lambda: os.mknod("node", 0o20600, os.makedev(1, 1)),
        open=lambda: write("node", os.O_RDONLY),
    )


@attack("FS-24", "mount, remount and unmount", "B", "EPERM", call("mount"), call("umount2"))
def mounting(facts: Facts) -> Steps:
    there = facts["outside"].encode()
    return each(
        tmpfs=lambda: system(facts, "mount", b"none", b"/tmp", b"tmpfs", 0, None),
        bind=lambda: system(facts, "mount", b"/usr", b"/tmp", None, 4096, None),
        remount=lambda: system(facts, "mount", None, there, None, 32 | 4096, None),
        unmount=lambda: system(facts, "umount2", b"/etc", 2),
    )


NEW_MOUNTS = ("fsopen", "fsconfig", "fsmount", "open_tree", "move_mount", "mount_setattr")


@attack("FS-25", "the newer mount calls", "B", "EPERM", *(call(name) for name in NEW_MOUNTS))
def new_mounts(facts: Facts) -> Steps:
    return {
        name: code(lambda name=name: system(facts, name, -1, b"/", 0, 0, 0)) for name in NEW_MOUNTS
    }


@attack("FS-26", "chroot and pivot_root", "B", "EPERM", call("chroot"), call("pivot_root"))
def roots(facts: Facts) -> Steps:
    return each(
        chroot=lambda: os.chroot("."), pivot=lambda: system(facts, "pivot_root", b".", b".")
    )


@attack(
    "FS-27", "open_by_handle_at", "B", "EPERM", call("open_by_handle_at"), call("name_to_handle_at")
)
def handles(facts: Facts) -> Steps:
    return each(
        open=lambda: system(facts, "open_by_handle_at", AT_CWD, bytes(16), 0),
        name=lambda: system(facts, "name_to_handle_at", AT_CWD, b"/", bytes(16), bytes(8), 0),
    )


@attack("FS-28", "io_uring for files", "b", "ENOSYS")
def uring(facts: Facts) -> Steps:
    return each(register=lambda: system(facts, "io_uring_register", 9, 0, None, 0))


@attack("FS-29", "an inherited folder descriptor", "b", "EBADF")
def inherited(facts: Facts) -> Steps:
    return {
        f"fd{number}": code(
            lambda number=number: os.close(os.open("..", os.O_RDONLY, dir_fd=number))
        )
        for number in range(3, 16)
    }


@attack("FS-30", "a setuid file in the workspace", "A", {"*": "ok", "same user": "yes"})
def setuid_file(facts: Facts) -> Steps:
    with open("/usr/bin/id", "rb") as source, open("my-id", "wb") as copy:
        copy.write(source.read())

    def run() -> str:
        return (
            "yes"
            if subprocess.run(["./my-id", "-u"], capture_output=True, text=True).stdout.strip()
            == str(os.getuid())
            else "no"
        )

    return each(chmod=lambda: os.chmod("my-id", 0o6755), **{"same user": run})


@attack("FS-37", "positive control: ordinary work in the workspace", "A")
def ordinary(facts: Facts) -> Steps:
    def map_it() -> None:
        with open("mapped", "w+b") as file:
            file.write(bytes(4096))
            file.flush()
            with mmap.mmap(file.fileno(), 4096) as view:
                view[:3] = b"abc"

    def database() -> None:
        with sqlite3.connect("data.sqlite") as held:
            held.execute("create table t (a)")
            held.execute("insert into t values (1)")

    def shell(text: str) -> None:
        done = subprocess.run(["sh", "-ec", text], capture_output=True, text=True)
        if done.returncode:
            raise OSError(done.returncode, done.stderr)

    def lock() -> None:
        with open("locked", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.lockf(file, fcntl.LOCK_EX)

    return each(
        tree=lambda: shell(
            "mkdir -p a/b && echo x > a/b/c && cp -a a d && ls -l d && mv d e && rm -rf e && "
            "test ! -e e"
        ),
        archive=lambda: shell(
            "mkdir -p t && echo y > t/f && tar cf t.tar t && rm -r t && tar xf t.tar && cat t/f"
        ),
        git=lambda: shell(
            "command -v git > /dev/null || exit 0; git init -q r && cd r && git -c "
            "user.name=a -c user.email=a@b commit -q --allow-empty -m x"
        ),
        database=database,
        map=map_it,
        lock=lock,
        fifo=lambda: os.mkfifo("pipe"),
        times=lambda: os.utime("pipe"),
        modes=lambda: os.chmod("pipe", 0o600),
    )


@attack("FS-38", "positive control: devices and private memory folders", "A")
def private(facts: Facts) -> Steps:
    def home() -> str | None:
        return (
            write(os.path.expanduser("~/mine"))
            if os.access(os.path.expanduser("~"), os.W_OK)
            else "read-only"
        )

    return each(
        null=lambda: write("/dev/null", os.O_WRONLY),
        random=lambda: open("/dev/urandom", "rb").read(16) and None,
        shm=lambda: write("/dev/shm/mine"),
        tmp=lambda: write("/tmp/mine"),
        home=home,
        pty=lambda: os.openpty() and None,
    )


@attack("FS-39", "bind a unix socket outside", "B", READ_ONLY, written(f"{S}/mine.sock"))
def bind_outside(facts: Facts) -> Steps:
    def bind(path: str) -> None:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path)

    os.symlink(facts["outside"], "way-out")
    return each(
        bind=lambda: bind(f"{facts['outside']}/mine.sock"),
        link=lambda: bind("way-out/by-link.sock"),
        system=lambda: bind("/usr/mine.sock"),
    )


@attack(
    "FS-40",
    "settings of programs that hold credentials",
    "b",
    "ENOENT EACCES",
)
def settings(facts: Facts) -> Steps:
    names = ("gitconfig", "maven/settings.xml", "maven/toolchains.xml", "pki/tls/private")
    return {name: code(lambda name=name: os.stat(f"/etc/{name}") and None) for name in names}


EXCHANGE = 2


def evidence(facts: Facts) -> dict[str, str]:
    """Where the engine's files are: in the workspace, hidden in it, and in a project within it."""
    top = f"{facts['project']}/.ggen"
    os.makedirs("nested/.ggen/cleanroom", exist_ok=True)
    os.makedirs("other", exist_ok=True)
    return {"top": top, "hidden": f"{top}/cleanroom", "nested": f"{facts['project']}/nested/.ggen"}


@attack(
    "FS-41",
    "rename, exchange, remove or replace the folder where the engine's files are",
    "B",
    {"*": "EBUSY", "written": "ok"},
    *(written(f"{{project}}/{name}") for name in (".ggen", ".ggen/cleanroom", "nested/.ggen")),
)
def move_evidence(facts: Facts) -> Steps:
    steps = {}
    for name, path in evidence(facts).items():
        exchange = (AT_CWD, path.encode(), AT_CWD, b"other", EXCHANGE)
        steps |= {
            f"{name} renamed": lambda path=path: os.rename(path, "other/moved"),
            f"{name} exchanged": lambda words=exchange: system(facts, "renameat2", *words) and None,
            f"{name} replaced": lambda path=path: os.rename("other", path),
        }
    top = f"{facts['project']}/.ggen"
    nested = "nested/.ggen/cleanroom"
    folder = os.open(".", os.O_RDONLY)
    os.symlink(".", "here")
    return each(
        **steps,
        removed=lambda: os.rmdir(top),
        hidden=lambda: os.rmdir(f"{top}/cleanroom"),
        emptied=lambda: os.rmdir(nested),
        descriptor=lambda: os.rename(".ggen", "moved", src_dir_fd=folder, dst_dir_fd=folder),
        link=lambda: os.rename("here/.ggen", "moved"),
        slash=lambda: os.rename(f"{top}/", "moved"),
        proc=lambda: os.rename("/proc/self/cwd/.ggen", "moved"),
        written=lambda: write(f"{top}/of-a-phase"),
    )


@attack(
    "FS-42",
    "put a link, a file or a socket where the engine's folder will be",
    "B",
    {"*": "EBUSY", "folder": "ok"},
    written("{project}/young/.ggen"),
)
def plant_evidence(facts: Facts) -> Steps:
    os.makedirs("young", exist_ok=True)
    place = f"{facts['project']}/young/.ggen"
    os.mkdir("to-be-moved")
    write("to-be-linked")

    def bind() -> None:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind("young/.ggen")

    return each(
        symlink=lambda: os.symlink(facts["outside"], place),
        link=lambda: os.link("to-be-linked", place),
        file=lambda: write(place),
        fifo=lambda: os.mkfifo(place),
        socket=bind,
        renamed=lambda: os.rename("to-be-moved", place),
        folder=lambda: os.mkdir(place),
    )


@attack(
    "FS-43",
    "set-user-id and set-group-id bits on files that stay, in every way that there is",
    "A",
    {"*": "ok"},
)
def bits(facts: Facts) -> Steps:
    write("plain")
    descriptor = os.open("plain", os.O_RDWR)
    here = os.open(".", os.O_RDONLY)

    def through_link() -> None:
        os.symlink("plain", "to-plain")
        os.chmod("to-plain", 0o4755)

    return each(
        user=lambda: os.chmod("plain", 0o4755),
        group=lambda: os.chmod("plain", 0o2755),
        descriptor=lambda: os.fchmod(descriptor, 0o6755),
        proc=lambda: os.chmod(f"/proc/self/fd/{descriptor}", 0o4755),
        at=lambda: os.chmod("plain", 0o4755, dir_fd=here),
        at2=lambda: system(facts, "fchmodat2", here, b"plain", 0o4755, 0) and None,
        link=through_link,
    )


@attack(
    "FS-44",
    "make a file that has a set-user-id or set-group-id bit from the start",
    "B",
    {"*": "EPERM", "none": "none"},
    *(changed(f"{{project}}/{name}") for name in ("by-open", "by-creat", "by-mknod")),
)
def made_with_bits(facts: Facts) -> Steps:
    os.umask(0)

    def unnamed() -> None:
        held = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o4755)
        os.link(f"/proc/self/fd/{held}", "by-tmpfile", follow_symlinks=True)

    def creat() -> None:
        if "creat" in facts["numbers"]:
            system(facts, "creat", b"by-creat", 0o2755)
        else:
            os.close(os.open("by-creat", os.O_CREAT | os.O_WRONLY, 0o2755))

    steps = each(
        open=lambda: os.close(os.open("by-open", os.O_CREAT | os.O_WRONLY, 0o4755)),
        creat=creat,
        mknod=lambda: os.mknod("by-mknod", 0o106755),
        tmpfile=unnamed,
    )
    made = [name for name in os.listdir(".") if name.startswith("by-")]
    return steps | {"none": " ".join(made) or "none"}


@attack(
    "FS-45",
    "a folder's set-group-id bit, and what is made in it",
    "A",
    {"*": "ok", "mode": "set"},
)
def group_folder(facts: Facts) -> Steps:
    os.mkdir("shared")
    steps = each(
        set=lambda: os.chmod("shared", 0o2775),
        inner=lambda: os.mkdir("shared/inner", 0o2755),
    )
    return steps | {"mode": "set" if os.stat("shared/inner").st_mode & 0o2000 else "lost"}


@attack(
    "FS-46",
    "privileges of a program's own, as an attribute",
    "B",
    "EPERM",
    changed("{project}/capable"),
)
def capability(facts: Facts) -> Steps:
    write("capable")
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    return each(path=lambda: os.setxattr("capable", "security.capability", value))
