"""Calls carried out on the caller's behalf, on a network that a cage shares with its host:
what is allowed works, what is not is refused and recorded.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cleanroom.sandbox import channel
from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.network import dns, host_network
from cleanroom.sandbox.seccomp_notify.emulate import HostNetworkAccess
from cleanroom.sandbox.seccomp_notify.forward import Forwards
from cleanroom.sandbox.seccomp_notify.socket_calls import DirectExecutor, UnprivilegedExecutor
from support.sandbox_harness import USER, AttackResult, attack, code

pytestmark = pytest.mark.sandbox

OUTSIDE, METADATA, SLOW = "198.51.100.1", "169.254.169.254", "198.51.100.9"
FAST_OPEN = 0x20000000


def on_a_host(body: Callable[[], Any]) -> Any:
    """What `body` returns in a host of its own: a network with an address outside,
    and the metadata service's, on its loopback device.
    """
    near, far = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer: Any = {"trouble": "died"}
        try:
            user, group = os.geteuid(), os.getegid()
            syscalls.unshare(constants.CLONE_NEWNET | (constants.CLONE_NEWUSER if user else 0))
            if user:
                for name, text in (
                    ("setgroups", "deny"),
                    ("uid_map", f"{user} {user} 1"),
                    ("gid_map", f"{group} {group} 1"),
                ):
                    with open(f"/proc/self/{name}", "w") as file:
                        file.write(text)
            dns.raise_link("lo")
            for number, address in enumerate((OUTSIDE, METADATA), 1):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                    request = struct.pack(
                        "16sHH4s8x",
                        f"lo:{number}".encode(),
                        socket.AF_INET,
                        0,
                        socket.inet_aton(address),
                    )
                    fcntl.ioctl(control, 0x8916, request + bytes(40 - len(request)))
            answer = body()
        except BaseException as error:
            answer = {"trouble": repr(error)}
        finally:
            os.write(far, json.dumps(answer).encode())
            os._exit(0)
    os.close(far)
    with os.fdopen(near, "rb") as file:
        answer = json.loads(file.read())
    os.waitpid(pid, 0)
    assert not (isinstance(answer, dict) and "trouble" in answer), answer
    return answer


class Server:
    """A listener of the host's, and how many came and what they said."""

    def __init__(
        self, address: str, port: int, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET
    ) -> None:
        self.heard: list[bytes] = []
        self._end = socket.socket(family, kind)
        self._end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._end.bind((address, port))
        if kind == socket.SOCK_STREAM:
            self._end.listen(2000)
        self._end.setblocking(False)
        self._kind = kind

    def all(self) -> list[str]:
        """What came so far."""
        while True:
            try:
                if self._kind == socket.SOCK_DGRAM:
                    self.heard.append(self._end.recv(1 << 17))
                    continue
                came, _ = self._end.accept()
            except BlockingIOError:
                return [piece.decode()[:40] for piece in self.heard]
            came.settimeout(1)
            with came:
                try:
                    self.heard.append(came.recv(100))
                except OSError:
                    self.heard.append(b"silent")


def silent(port: int) -> list[socket.socket]:
    """What makes a port of the address outside answer nobody: a listener that is full."""
    ends = [socket.socket() for _ in range(5)]
    ends[0].bind((OUTSIDE, port))
    ends[0].listen(0)
    for end in ends[1:]:
        end.setblocking(False)
        code(lambda end=end: end.connect((OUTSIDE, port)))
    return ends


def low(**more: Any) -> HostNetworkAccess:
    where = host_network.HostNetworkPolicy(internet=True, **more.pop("where", {}))
    executor = UnprivilegedExecutor(USER, USER) if os.geteuid() == 0 else DirectExecutor()
    return HostNetworkAccess(where, more.pop("connect", Forwards({}).connect), executor, **more)


def seen(caught: AttackResult) -> list[tuple[str, str, str, int]]:
    return [
        (
            a["outcome"],
            a["rule"],
            a["target"].get("ip") or a["target"].get("sun_path", ""),
            a["target"].get("port", 0),
        )
        for a in caught.attempts
    ]


@pytest.fixture(params=["duplicated", "tracked"])
def means(request: pytest.FixtureRequest) -> dict[str, bool]:
    """Both ways to a duplicate of the caller's socket."""
    return {"track_sockets": request.param == "tracked"}


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that is not the cage's own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def said_to(address: str, port: int, text: bytes = b"hello", kind: int = socket.SOCK_STREAM) -> str:
    def act() -> None:
        with socket.socket(socket.AF_INET, kind) as end:
            end.settimeout(5)
            end.connect((address, port))
            end.sendall(text)

    return code(act)


def test_what_is_outside_is_reached_and_recorded(workspace: str, means: dict[str, bool]):
    """NET-01 at Low: the connection is made on the caller's socket, the record says observed,
    with process and target.
    """

    def host() -> Any:
        server = Server(OUTSIDE, 80)
        caught = attack(lambda _: said_to(OUTSIDE, 80), workspace, shared=low(**means))
        return (
            caught.result,
            seen(caught),
            caught.attempts[0]["process"]["comm"] != "",
            server.all(),
        )

    assert on_a_host(host) == ["ok", [["observed", "network.record", OUTSIDE, 80]], True, ["hello"]]


@pytest.mark.parametrize("address", ["127.0.0.1", METADATA, "0.0.0.0"])
def test_the_hosts_own_and_what_is_link_local_are_refused(
    workspace: str, means: dict[str, bool], address: str
):
    """NET-15, NET-16: the planted listener hears nothing, over TCP,
    UDP and IPv6's clothes for IPv4.
    """

    def inside(_: str) -> list[str]:
        def mapped() -> None:
            with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as end:
                end.connect((f"::ffff:{address}", 80))

        def sent() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"out", (address, 81))

        return [
            said_to(address, 80),
            code(mapped),
            code(sent),
            said_to(address, 81, kind=socket.SOCK_DGRAM),
        ]

    def host() -> Any:
        servers = [Server("0.0.0.0", 80), Server("0.0.0.0", 81, socket.SOCK_DGRAM)]
        caught = attack(inside, workspace, shared=low(**means))
        return (
            caught.result,
            sorted({entry[:2] for entry in seen(caught)}),
            [server.all() for server in servers],
        )

    refused = ["ECONNREFUSED", "ECONNREFUSED", "ENETUNREACH", "ENETUNREACH"]
    assert on_a_host(host) == [refused, [["blocked", "network.local"]], [[], []]]


def test_own_listeners_are_reached_and_nobody_elses(workspace: str, means: dict[str, bool]):
    """A server on 127.0.0.1 that the phase started is its own;
    UDP answers find back to who asked; nothing of it is recorded.
    """

    def inside(_: str) -> list[str]:
        with socket.socket() as listening, socket.socket() as client:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            client.connect(listening.getsockname())
            other, _ = listening.accept()
            other.sendall(b"tcp")
            got = [client.recv(10).decode()]
        with (
            socket.socket(type=socket.SOCK_DGRAM) as server,
            socket.socket(type=socket.SOCK_DGRAM) as asker,
        ):
            server.bind(("127.0.0.1", 0))
            asker.sendto(b"?", server.getsockname())
            _, came_from = server.recvfrom(10)
            server.sendto(b"udp", came_from)
            got.append(asker.recv(10).decode())
        return [*got, said_to("127.0.0.1", 99)]

    def host() -> Any:
        server = Server("127.0.0.1", 99)
        caught = attack(inside, workspace, shared=low(**means))
        return caught.result, seen(caught), server.all()

    assert on_a_host(host) == [
        ["tcp", "udp", "ECONNREFUSED"],
        [["blocked", "network.local", "127.0.0.1", 99]],
        [],
    ]


@pytest.mark.parametrize("rounds", [2000])
def test_an_address_that_is_rewritten_meanwhile_does_not_matter(workspace: str, rounds: int):
    """NET-35: the address that was judged is the one that is used;
    the planted listener of the host's hears nothing in thousands of tries.
    """

    def inside(_: str) -> str:
        own, forbidden = socket.inet_aton(OUTSIDE), socket.inet_aton("127.0.0.1")
        buffer = ctypes.create_string_buffer(
            struct.pack("=H", socket.AF_INET) + struct.pack("!H", 80) + own + bytes(8), 16
        )
        going = True

        def flip() -> None:
            while going:
                ctypes.memmove(ctypes.addressof(buffer) + 4, forbidden, 4)
                ctypes.memmove(ctypes.addressof(buffer) + 4, own, 4)

        thread = threading.Thread(target=flip)
        thread.start()
        libc = ctypes.CDLL(None, use_errno=True)
        for _ in range(rounds):
            with socket.socket() as end:
                end.settimeout(0)
                libc.connect(end.fileno(), buffer, 16)
        going = False
        thread.join()
        return "tried"

    def host() -> Any:
        forbidden = Server("127.0.0.1", 80)
        allowed = Server(OUTSIDE, 80)
        caught = attack(inside, workspace, shared=low())
        return (
            caught.result,
            sorted({entry[:3] for entry in seen(caught)}),
            forbidden.all(),
            len(allowed.all()) > 0,
        )

    result, recorded, heard, reached = on_a_host(host)
    assert (result, heard, reached) == ("tried", [], True)
    assert ["observed", "network.record", OUTSIDE] in recorded


def test_datagrams_go_in_all_forms(workspace: str, means: dict[str, bool]):
    """NET-03 at Low: sendto, sendmsg in several pieces and sendmmsg arrive whole;
    what is too large for a datagram is EMSGSIZE.
    """

    def inside(_: str) -> list[Any]:
        with socket.socket(type=socket.SOCK_DGRAM) as end:
            sent = [
                end.sendto(b"one", (OUTSIDE, 53)),
                end.sendmsg([b"t", b"w", b"o"], [], 0, (OUTSIDE, 53)),
            ]
            sent.append(many(end, [b"three", b"four"]))
            return [*sent, code(lambda: end.sendto(bytes(70_000), (OUTSIDE, 53)))]

    def many(end: socket.socket, pieces: list[bytes]) -> list[int]:
        address = ctypes.create_string_buffer(
            struct.pack("=H", 2) + struct.pack(">H", 53) + socket.inet_aton(OUTSIDE) + bytes(8)
        )
        bodies = [ctypes.create_string_buffer(piece) for piece in pieces]
        vectors = [
            ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(b), len(p)))
            for b, p in zip(bodies, pieces, strict=True)
        ]
        head = b"".join(
            struct.pack(
                "=QI4xQQQQi4xI4x", ctypes.addressof(address), 16, ctypes.addressof(v), 1, 0, 0, 0, 0
            )
            for v in vectors
        )
        headers = ctypes.create_string_buffer(head, len(head))
        count = ctypes.CDLL(None).sendmmsg(end.fileno(), headers, len(pieces), 0)
        return [
            count,
            *(struct.unpack_from("=I", headers, 64 * n + 56)[0] for n in range(len(pieces))),
        ]

    def host() -> Any:
        server = Server(OUTSIDE, 53, socket.SOCK_DGRAM)
        caught = attack(inside, workspace, shared=low(**means))
        return caught.result, server.all()

    assert on_a_host(host) == [[3, 3, [2, 5, 4], "EMSGSIZE"], ["one", "two", "three", "four"]]


def test_a_stream_may_be_opened_by_its_first_bytes(workspace: str, means: dict[str, bool]):
    """NET-08, NET-09 at Low: TCP Fast Open connects and sends;
    towards the host's loopback it does neither.
    """

    def inside(_: str) -> list[str]:
        with socket.socket() as end, socket.socket() as other:
            end.sendmsg([b"fast"], [], FAST_OPEN, (OUTSIDE, 80))
            return ["sent", code(lambda: other.sendto(b"fast", FAST_OPEN, ("127.0.0.1", 81)))]

    def host() -> Any:
        servers = [Server(OUTSIDE, 80), Server("127.0.0.1", 81)]
        caught = attack(inside, workspace, shared=low(**means))
        return caught.result, [server.all() for server in servers]

    assert on_a_host(host) == [["sent", "ECONNREFUSED"], [["fast"], []]]


def test_nobody_outside_can_come(workspace: str, means: dict[str, bool]):
    """NET-12, NET-13 at Low: listening on all addresses, or on a port the kernel would choose
    there, is refused and recorded; below 1024 it is EACCES.
    """

    def inside(_: str) -> list[str]:
        def bound(address: str, port: int) -> None:
            with socket.socket() as end:
                end.bind((address, port))
                end.listen()

        def unbound() -> None:
            with socket.socket() as end:
                end.listen()

        ways = [
            lambda: bound("0.0.0.0", 8080),
            lambda: bound("0.0.0.0", 0),
            unbound,
            lambda: bound("127.0.0.1", 80),
            lambda: bound("127.0.0.1", 8080),
        ]
        return [code(way) for way in ways]

    def host() -> Any:
        caught = attack(inside, workspace, shared=low(**means))
        return caught.result, [entry[:2] for entry in seen(caught)]

    expected = [
        ["EACCES", "EACCES", "EACCES", "EACCES", "ok"],
        [["blocked", "network.publish"]] * 2,
    ]
    result, recorded = on_a_host(host)
    assert result == expected[0]
    assert recorded[0] == ["blocked", "network.publish"]
    assert {tuple(entry) for entry in recorded} == {("blocked", "network.publish")}


def test_a_call_that_waits_keeps_nobody_else_waiting(workspace: str, means: dict[str, bool]):
    """A blocking connect to who does not answer waits as the caller asked,
    while another thread's calls are answered at once.
    """

    def inside(_: str) -> list[Any]:
        said: list[str] = []

        def wait() -> None:
            with socket.socket() as end:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 1, 0))
                said.append(code(lambda: end.connect((OUTSIDE, 7))))

        thread = threading.Thread(target=wait)
        began = time.monotonic()
        thread.start()
        quick = [said_to(OUTSIDE, 80) for _ in range(20)]
        between = time.monotonic() - began
        alive = thread.is_alive()
        thread.join()
        return [sorted(set(quick)), alive, between < time.monotonic() - began, said]

    def host() -> Any:
        held = [Server(OUTSIDE, 80), *silent(7)]
        answer = attack(inside, workspace, shared=low(**means)).result
        assert held
        return answer

    assert on_a_host(host) == [["ok"], True, True, ["EINPROGRESS"]]


def test_who_waits_is_called_away_by_a_signal(workspace: str):
    """A signal ends a connect that waits, as the kernel would end it: EINTR."""

    def inside(_: str) -> list[Any]:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.siginterrupt(signal.SIGALRM, True)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        libc = ctypes.CDLL(None, use_errno=True)
        address = (
            struct.pack("=H", socket.AF_INET)
            + struct.pack("!H", 7)
            + socket.inet_aton(OUTSIDE)
            + bytes(8)
        )
        with socket.socket() as end:
            result = libc.connect(end.fileno(), address, 16)
            return [result, errno.errorcode[ctypes.get_errno()]]

    def host() -> Any:
        held = silent(7)
        answer = attack(inside, workspace, shared=low()).result
        assert held
        return answer

    assert on_a_host(host) == [-1, "EINTR"]


def test_a_declared_service_is_behind_its_address_without_a_port_of_the_hosts(
    workspace: str, means: dict[str, bool]
):
    """The caller's own socket is connected, over IPv4 and IPv6's clothes for it,
    and its other end is what the relay gets; nobody listens on the port.
    """

    def inside(_: str) -> list[str]:
        got = []
        for family, address in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "::ffff:127.0.0.1"),
        ):
            with socket.socket(family) as end:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.settimeout(5)
                end.connect((address, 5432))
                got.append(end.recv(100).decode())
        return got

    def host() -> Any:
        mine, relays = channel.pair()

        def relay() -> None:
            while (arrived := channel.receive(relays)) is not None:
                with socket.socket(fileno=arrived[1][0]) as other:
                    other.sendall(b"welcome")

        threading.Thread(target=relay, daemon=True).start()
        where = {"forwards": {(socket.inet_aton("127.0.0.1"), 5432): "db"}}
        caught = attack(
            inside,
            workspace,
            shared=low(where=where, connect=Forwards({"db": mine}).connect, **means),
        )
        return caught.result, seen(caught), said_to("127.0.0.1", 5432)

    assert on_a_host(host) == [["welcome", "welcome"], [], "ECONNREFUSED"]


def test_unix_sockets_of_runtimes_are_refused_and_others_recorded(workspace: str, elsewhere: Path):
    """NET-27, NET-28, NET-29 at Low: also under another name;
    who is reached sees the environment's user.
    """
    control, agent = str(elsewhere / "docker.sock"), str(elsewhere / "agent")

    def inside(_: str) -> list[Any]:
        def unix(path: str) -> str:
            def act() -> None:
                with socket.socket(socket.AF_UNIX) as end:
                    end.settimeout(2)
                    end.connect(path)
                    end.sendmsg([b"hello"])

            return code(act)

        os.symlink(control, "here")
        with socket.socket(socket.AF_UNIX) as own, socket.socket(socket.AF_UNIX) as hidden:
            own.bind("own")
            own.listen()
            hidden.bind("\0mine")
            hidden.listen()
            return [unix(path) for path in (control, "here", agent, "\0planted", "own", "\0mine")]

    def host() -> Any:
        listening = []
        for path in (control, agent, "\0planted"):
            end = socket.socket(socket.AF_UNIX)
            end.bind(path)
            end.listen()
            end.setblocking(False)
            listening.append(end)
            if path[0] != "\0":
                os.chmod(path, 0o777)
        caught = attack(inside, workspace, shared=low(controls=(control,)))
        came = []
        for end in listening:
            try:
                other, _ = end.accept()
                user = struct.unpack(
                    "=iii", other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                )[1]
                came.append([other.recv(10).decode(), user in (USER, os.geteuid()) and (user != 0)])
            except BlockingIOError:
                came.append([])
        return caught.result, [entry[:3] for entry in seen(caught)], came

    result, recorded, came = on_a_host(host)
    assert result == ["EACCES", "EACCES", "ok", "ECONNREFUSED", "ok", "ok"]
    assert recorded == [
        ["blocked", "network.runtimes", control],
        ["blocked", "network.runtimes", "here"],
        ["observed", "network.record", agent],
        ["blocked", "network.local", "@planted"],
    ]
    assert came == [[], ["hello", True], []]


def test_descriptors_go_with_a_message_where_they_can_be_copied(workspace: str):
    """SCM_RIGHTS arrives with the very files; a message that says who sends it is refused."""

    def inside(_: str) -> list[Any]:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        near, far = os.pipe()
        socket.send_fds(left, [b"x"], [far])
        _, descriptors, _, _ = socket.recv_fds(right, 10, 2)
        os.write(descriptors[0], b"through")
        who = struct.pack("=iii", os.getpid(), os.geteuid(), os.getegid())
        forged = code(
            lambda: left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, who)])
        )
        return [os.read(near, 100).decode(), forged]

    assert on_a_host(lambda: attack(inside, workspace, shared=low()).result) == ["through", "EPERM"]


def test_where_nothing_outside_may_be_reached_it_is_refused(workspace: str, means: dict[str, bool]):
    """The same means hold Medium where there is no network namespace:
    only own sockets and doors are left; a unix socket of the host's is not there.
    """

    def inside(_: str) -> list[str]:
        def unix() -> None:
            with socket.socket(socket.AF_UNIX) as end:
                end.connect("\0planted")

        def datagram() -> None:
            with socket.socket(type=socket.SOCK_DGRAM) as end:
                end.sendto(b"out", (OUTSIDE, 81))

        return [said_to(OUTSIDE, 80), said_to("127.0.0.1", 80), code(datagram), code(unix)]

    def host() -> Any:
        servers = [Server("0.0.0.0", 80), Server(OUTSIDE, 81, socket.SOCK_DGRAM)]
        with socket.socket(socket.AF_UNIX) as planted:
            planted.bind("\0planted")
            planted.listen()
            caught = attack(
                inside,
                workspace,
                shared=low()._replace(policy=host_network.HostNetworkPolicy(), **means),
            )
        return (
            caught.result,
            [entry[:2] for entry in seen(caught)],
            [server.all() for server in servers],
        )

    refused = ["ECONNREFUSED", "ECONNREFUSED", "ENETUNREACH", "ECONNREFUSED"]
    assert on_a_host(host) == [
        refused,
        [["blocked", "network.egress"]] * 3 + [["blocked", "network.sockets"]],
        [[], []],
    ]


def test_large_streams_arrive_whole_through_sendmsg(workspace: str):
    """More than is copied at once goes in parts that the caller is told of;
    a slow reader makes the caller wait and not the recorder.
    """

    def inside(_: str) -> list[int]:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        data = os.urandom(1 << 16) * 48
        got = bytearray()

        def read() -> None:
            while len(got) < len(data):
                time.sleep(0.001)
                got.extend(right.recv(1 << 16))

        reader = threading.Thread(target=read)
        reader.start()
        at = 0
        while at < len(data):
            at += left.sendmsg([data[at:]])
        reader.join()
        return [len(got), int(bytes(got) == data)]

    assert on_a_host(lambda: attack(inside, workspace, shared=low()).result) == [48 << 16, 1]


def test_sockets_below_a_folder_of_sessions_are_refused_whoever_listens(
    workspace: str, elsewhere: Path
):
    """A user's bus, also where nobody listens or a link leads to it;
    one beside that folder is reached.
    """
    run, beside = elsewhere / "run", str(elsewhere / "beside")
    (run / "systemd").mkdir(parents=True)
    bus, private = str(run / "bus"), str(run / "systemd/private")

    def inside(_: str) -> list[str]:
        def unix(path: str) -> str:
            with socket.socket(socket.AF_UNIX) as end:
                end.settimeout(2)
                return code(lambda: end.connect(path))

        os.symlink(run, "here")
        return [unix(path) for path in (bus, private, "here/bus", f"{run}/absent", beside)]

    def host() -> Any:
        listening = []
        for path in (bus, private, beside):
            end = socket.socket(socket.AF_UNIX)
            end.bind(path)
            end.listen()
            os.chmod(path, 0o777)
            listening.append(end)
        caught = attack(inside, workspace, shared=low(controls=(f"{run}/",)))
        return caught.result, [entry[:2] for entry in seen(caught)]

    result, recorded = on_a_host(host)
    assert result == ["EACCES", "EACCES", "EACCES", "ENOENT", "ok"]
    assert recorded == [["blocked", "network.runtimes"]] * 4 + [["observed", "network.record"]]
