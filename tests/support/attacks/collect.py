"""Carries out every attack in two environments and writes down what came of each:
`python -m support.attacks.collect FOLDER LEVEL`, as whoever calls it.

Decoys are all on this machine: listeners on loopback, on one of the host's own addresses,
on unix paths; files that must stay as they are.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec

from cleanroom.backends.base import EgressRule, EnvironmentSpec, Mount, WorkspaceSpec
from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.core.files import hold
from cleanroom.model.capability import Attempt
from cleanroom.model.errors import EnvironmentFailed
from cleanroom.model.policy import Level, default_policy
from cleanroom.sandbox.filesystem.constants import HOME
from cleanroom.sandbox.journal import Journal
from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS
from cleanroom.sandbox.network import dns
from support.attacks.limits import FILE, MEMORY, OPEN_FILES, PIDS, TMPFS
from support.attacks.suite import Attack, load
from support.paths import TESTS

SECRETS = (".netrc", ".ssh/id_ed25519", ".aws/credentials", ".docker/config.json")


class Decoys:
    """Listeners that must hear nothing, and files that must not change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[str] = []
        self.name = f"attacked-{os.getpid()}"
        self.address = _own_address()
        self.outside = folder / "outside"
        self._listening: list[socket.socket] = []
        self._files()
        self.port = self._listen(socket.AF_INET, ("127.0.0.1", 0))
        if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
            self._listen(socket.AF_INET6, ("::1", self.port))
        if self.address:
            self._listen(socket.AF_INET, (self.address, self.port))
        self._listen(socket.AF_UNIX, "\0" + self.name)
        self._listen(socket.AF_UNIX, str(self.outside / "agent.sock"))
        self.stranger = subprocess.Popen(["sleep", "600"])
        self.before = self.inventory()

    def _files(self) -> None:
        (self.outside / "sub").mkdir(parents=True)
        (self.outside / "file").write_text("as it was\n")
        (self.outside / "link-to-file").symlink_to("file")
        for path, mode in (
            (self.outside, 0o777),
            (self.outside / "sub", 0o777),
            (self.outside / "file", 0o666),
        ):
            path.chmod(mode)
        for name in SECRETS:
            secret = self.folder / "home" / name
            secret.parent.mkdir(parents=True, exist_ok=True)
            secret.write_text("secret")
        project = self.folder / "project"
        (project / ".ggen/cleanroom").mkdir(parents=True)
        for package in ("support", "support/attacks"):
            (project / package).mkdir()
            for module in (TESTS / package).glob("*.py"):
                shutil.copy(module, project / package)
        (self.folder / "second-name").write_text("as it was\n")
        os.link(self.folder / "second-name", project / "has-a-second-name")

    def _listen(self, family: int, address: Any) -> int:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.bind(address)
        listening.listen()
        if family == socket.AF_UNIX and isinstance(address, str) and address[0] != "\0":
            os.chmod(address, 0o777)
        self._listening.append(listening)
        threading.Thread(target=self._hear, args=(listening, str(address)), daemon=True).start()
        return int(listening.getsockname()[1]) if family != socket.AF_UNIX else 0

    def _hear(self, listening: socket.socket, name: str) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.heard.append(name)
            connection.close()

    def inventory(self) -> dict[str, str]:
        """Everything about the planted files that an attack could change."""
        found = {}
        for path in sorted(
            [
                self.outside,
                *self.outside.rglob("*"),
                self.folder / "second-name",
                *(self.folder / "home").rglob("*"),
                Path("/usr"),
                Path("/etc"),
                Path("/opt"),
            ]
        ):
            info = path.lstat()
            content = (
                hashlib.sha256(path.read_bytes()).hexdigest()
                if path.is_file() and not path.is_symlink()
                else ""
            )
            attributes = os.listxattr(path, follow_symlinks=False)
            shown = (
                oct(info.st_mode),
                info.st_uid,
                info.st_gid,
                info.st_nlink,
                content,
                attributes,
            )
            found[str(path)] = repr(
                shown
                if path.parts[1] in ("usr", "etc", "opt")
                else (*shown, info.st_mtime_ns, info.st_ctime_ns)
            )
        return found

    def facts(self) -> dict[str, Any]:
        return {
            "outside": str(self.outside),
            "home": "/root",
            "secrets": str(self.folder / "home"),
            "agent": str(self.outside / "agent.sock"),
            "abstract": self.name,
            "port": self.port,
            "address": self.address or "192.0.2.17",
            "engine": os.getpid(),
            "stranger": self.stranger.pid,
            "run": str(self.folder),
            "hostname": socket.gethostname(),
            "numbers": NUMBERS,
            "project": str(self.folder / "project"),
        }

    def end(self) -> dict[str, Any]:
        """What happened outside."""
        after, alive = self.inventory(), self.stranger.poll() is None
        self.stranger.kill()
        self.stranger.wait()
        for listening in self._listening:
            listening.close()
        changed = sorted(
            path
            for path in after.keys() | self.before.keys()
            if after.get(path) != self.before.get(path)
        )
        return {"heard": self.heard, "changed": changed, "stranger lives": alive}


def _own_address() -> str:
    """An address of this host that is not its loopback; looking for the way to one sends
    nothing.
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


class AttackRunner:
    """One environment and the attempts it tells of."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._attempts: list[Attempt] = []

    async def listen(self) -> None:
        async for attempt in self._environment.attempts():
            self._attempts.append(attempt)

    async def carry_out(self, attack: Attack) -> dict[str, Any]:
        said: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        argv = ["/usr/bin/python3", "-S", "-B", "-m", "support.attacks.suite", attack.id]
        try:
            done = await self._environment.exec(
                argv, on_output=lambda stream, piece: said[stream].extend(piece), timeout_seconds=30
            )
        except EnvironmentFailed as error:
            return {
                "exit_code": -1,
                "timed_out": False,
                "stderr": str(error),
                "attempts": [],
                "steps": {},
            }
        await anyio.wait_all_tasks_blocked()
        attempts, self._attempts[:] = (
            [msgspec.to_builtins(attempt) for attempt in self._attempts],
            [],
        )
        return {
            "exit_code": done.exit_code,
            "timed_out": done.timed_out,
            "stderr": said["stderr"].decode(errors="replace")[-2000:],
            "attempts": attempts,
            "steps": json.loads(said["stdout"]) if done.exit_code == 0 and said["stdout"] else {},
        }


def enter_private_network() -> None:
    """Enter a network in which the addresses of the attacks are this machine's own,
    and its name servers answer: what Low lets out goes nowhere else.
    """
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(constants.CLONE_NEWNET | (constants.CLONE_NEWUSER if user else 0))
    if user:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text)
    dns.raise_link("lo")
    servers = [
        line.split()[1]
        for line in Path("/etc/resolv.conf").read_text().splitlines()
        if line.startswith("nameserver") and ":" not in line
    ]
    whole = [("192.0.2.1", 24), ("198.51.100.1", 24), ("203.0.113.1", 24), ("169.254.169.254", 32)]
    for number, (address, length) in enumerate(
        [*whole, *((server, 32) for server in servers if not server.startswith("127."))], 1
    ):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, value in (
                (0x8916, socket.inet_aton(address)),
                (0x891C, (0xFFFFFFFF << (32 - length) & 0xFFFFFFFF).to_bytes(4, "big")),
            ):
                fcntl.ioctl(
                    control,
                    request,
                    struct.pack("16sHH4s16x", f"lo:{number}".encode(), socket.AF_INET, 0, value),
                )
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(
            control,
            0x8916,
            socket.inet_pton(socket.AF_INET6, "2001:db8::1") + struct.pack("=II", 128, 1),
        )
    for server in servers:
        end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        end.bind((server, 53))
        threading.Thread(target=_answer, args=(end,), daemon=True).start()


def _answer(end: socket.socket) -> None:
    """Every name has one address."""
    while True:
        question, asker = end.recvfrom(512)
        parsed = dns.parse_question(question)
        if parsed is None:
            continue
        data = (
            b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton("203.0.113.5")
            if parsed[1] == 1
            else b""
        )
        end.sendto(
            question[:2]
            + b"\x84\x80\0\1"
            + (b"\0\1" if data else b"\0\0")
            + bytes(4)
            + question[12 : parsed[2]]
            + data,
            asker,
        )


async def collect(folder: Path, level: Level = Level.MEDIUM) -> dict[str, Any]:
    if level == Level.LOW:
        enter_private_network()
    planted = Decoys(folder)
    project = folder / "project"
    (project / "facts.json").write_text(json.dumps(planted.facts()))
    found: dict[str, Any] = {
        "address": planted.address,
        "facts": {key: value for key, value in planted.facts().items() if key != "numbers"},
        "results": {},
    }
    attacks = [attack.at(level.value) for attack in load().values()]
    attacks = [attack for attack in attacks if attack.letter != "-"]
    async with (
        EmbeddedBackend(
            f"a{os.getpid()}",
            folder / "scratch",
            partial(Journal.at, hold(folder), "journal.jsonl"),
        ) as backend,
        AsyncExitStack() as stack,
    ):
        report = await backend.probe(level)
        found["memory"] = "memory" in report.mechanisms.get(
            "resource.memory", ""
        ) or "control groups" in report.mechanisms.get("resource.memory", "")
        workspace = WorkspaceSpec(root=str(project), scratch=str(folder / "scratch/workspace"))
        await stack.enter_async_context(backend.workspace(workspace))
        policy = default_policy(level)
        limits = msgspec.structs.replace(
            policy.limits,
            pids=PIDS,
            memory_bytes=MEMORY,
            tmpfs_bytes=TMPFS,
            disk_bytes=FILE,
            open_files=OPEN_FILES,
        )
        for small in (False, True):
            spec = EnvironmentSpec(
                id="small" if small else "wide",
                run_id=f"a{os.getpid()}",
                role="phase",
                workspace=workspace,
                working_directory=str(project),
                policy=msgspec.structs.replace(policy, limits=limits) if small else policy,
                variables={
                    "PATH": "/usr/local/bin:/usr/bin:/bin",
                    "HOME": str(folder / "home") if level == Level.LOW else HOME,
                    "LC_ALL": "C.UTF-8",
                },
                mounts=(Mount(source=str(planted.outside), target=str(planted.outside)),),
                egress=(
                    EgressRule(host="declared.example", port=443),
                    EgressRule(host="localhost", port=planted.port),
                )
                if policy.allows_egress
                else (),
            )
            async with backend.environment(spec) as environment, anyio.create_task_group() as tasks:
                collector = AttackRunner(environment)
                tasks.start_soon(collector.listen)
                for attack in attacks:
                    if attack.small is small:
                        found["results"][attack.id] = await collector.carry_out(attack)
                left = [thing.detail for thing in await environment.left_over()]
                found["left over"] = found.get("left over", []) + left
                tasks.cancel_scope.cancel()
    created, removed, left_things = await backend.ledger()
    return found | {
        "outside": planted.end(),
        "ledger": [created, removed, [str(thing) for thing in left_things]],
    }


def main() -> None:
    folder = Path(sys.argv[1])
    found = asyncio.run(collect(folder, Level(sys.argv[2])))
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
