"""Attacks on the network from inside a cage: nothing leaves,
and each attempt is recorded with its process and target.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import syscalls
from cleanroom.sandbox.seccomp_notify import datagram_sink
from support.sandbox_harness import attack, code

pytestmark = pytest.mark.sandbox
raw = syscalls._call
FASTOPEN = 0x20000000


def connecting(family: int, kind: int, address, protocol: int = 0):
    def act(_: str) -> str:
        with socket.socket(family, kind, protocol) as attempt:
            return code(lambda: attempt.connect(address))

    return act


@pytest.mark.parametrize(
    ("family", "kind", "address", "protocol", "expected"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 443), 0, "ECONNREFUSED"),
        (socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 443), 0, "ECONNREFUSED"),
        (socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:192.0.2.1", 443), 0, "ECONNREFUSED"),
        (socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.4", 443), 262, "ECONNREFUSED"),
        (socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80), 0, "ECONNREFUSED"),
        (socket.AF_INET6, socket.SOCK_STREAM, ("fe80::1", 80, 0, 1), 0, "ECONNREFUSED"),
    ],
)
def test_a_connection_out_is_refused_and_recorded(
    workspace: str, family: int, kind: int, address, protocol: int, expected: str
):
    """NET-01, 02, 03, 10, 15: refused at once, with one record that names ip, port and process."""
    caught = attack(connecting(family, kind, address, protocol), workspace)
    record = caught.only()
    assert caught.result == record["errno"] == expected
    assert (record["rule"], record["target"]["ip"], record["target"]["port"]) == (
        "network.egress",
        address[0],
        address[1],
    )
    assert (
        record["target"]["proto"]
        == {0: "udp" if kind == socket.SOCK_DGRAM else "tcp", 262: "mptcp"}[protocol]
    )
    assert record["process"]["exe"]


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "192.0.2.9"), (socket.AF_INET6, "2001:db8::9")]
)
def test_a_datagram_through_a_connected_socket_is_recorded_with_its_target(
    workspace: str, family: int, host: str
):
    """NET-03: connecting sends nothing; what is sent then goes nowhere, and is named."""

    def act(_: str) -> str:
        with socket.socket(family, socket.SOCK_DGRAM) as silent:
            silent.connect((host, 122))
        with socket.socket(family, socket.SOCK_DGRAM) as sending:
            sending.connect((host, 123))
            sending.send(b"out")
            return sending.getsockname()[0]

    caught = attack(act, workspace)
    record = caught.only()
    assert caught.result in ("127.0.0.1", "::1")
    assert record["target"] == {"ip": host, "port": 123, "proto": "udp"}
    assert (record["rule"], record["certainty"]) == ("network.egress", "packet")
    assert record["process"]["exe"]


def test_a_full_queue_of_the_sink_hides_no_datagram(workspace: str):
    """A socket that finds the sink by itself could fill it, so that others' are dropped."""

    def act(_: str) -> str:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as filling,
        ):
            udp.connect(("192.0.2.9", 123))
            filling.connect(udp.getpeername())
            for _number in range(5000):
                filling.send(b"x")
            udp.send(b"out")
            return udp.getpeername()[0]

    caught = attack(act, workspace)
    stray, *_ = [each for each in caught.attempts if each["target"]["ip"] == caught.result]
    assert (stray["rule"], stray["mechanism"]) == ("network.egress", "datagram_sink")
    assert stray["process"] is None
    assert stray["attribution_gap"]


def test_a_datagram_of_a_forgotten_socket_is_recorded(workspace: str, monkeypatch):
    """Without the host that it was for: the oldest of many connected sockets gives way."""
    monkeypatch.setattr(datagram_sink, "_REMEMBERED_MOST", 1)

    def act(_: str) -> None:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as second,
        ):
            first.connect(("192.0.2.9", 1))
            second.connect(("192.0.2.9", 2))
            first.send(b"out")

    assert attack(act, workspace).only()["target"]["ip"] == "127.0.0.1"


def test_senders_that_are_faster_do_not_hold_the_recorder():
    """It takes what a queue has, and then serves its other descriptors."""
    sink = datagram_sink.DatagramSink()
    try:
        sink._sink(socket.AF_INET)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datagram_sink, "_sender", lambda _: 1)
            assert len(sink.take()) == datagram_sink._TAKEN_MOST
    finally:
        sink.close()


def test_every_way_to_send_a_datagram_is_seen(workspace: str):
    """NET-03, 34: sendto, sendmsg and sendmmsg, also to broadcast and multicast addresses."""

    def act(_: str) -> list[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            return [
                code(lambda: udp.sendto(b"x", ("192.0.2.9", 1))),
                code(lambda: udp.sendmsg([b"x"], [], 0, ("192.0.2.9", 2))),
                code(lambda: sent_by_sendmmsg(udp.fileno(), "192.0.2.9", 3)),
                code(lambda: udp.sendto(b"x", ("255.255.255.255", 4))),
                code(lambda: udp.sendto(b"x", ("224.0.0.251", 5353))),
            ]

    caught = attack(act, workspace)
    assert caught.result == ["ENETUNREACH"] * 5
    assert [a["target"]["port"] for a in caught.attempts] == [1, 2, 3, 4, 5353]
    assert [a["syscall"] for a in caught.attempts][:3] == ["sendto", "sendmsg", "sendmmsg"]


def sent_by_sendmmsg(descriptor: int, ip: str, port: int) -> None:
    """Two messages, the second one to `ip`: each header counts, not only the first."""
    body = ctypes.create_string_buffer(b"x")
    vector = struct.pack("=QQ", ctypes.addressof(body), 1)
    vectors = ctypes.create_string_buffer(vector)
    address = ctypes.create_string_buffer(
        struct.pack("=H", 2) + struct.pack(">H", port) + socket.inet_aton(ip) + bytes(8)
    )
    own = ctypes.create_string_buffer(
        struct.pack("=H", 2) + struct.pack(">H", 9) + socket.inet_aton("127.0.0.1") + bytes(8)
    )
    headers = b"".join(
        struct.pack(
            "=QI4xQQQQi4x", ctypes.addressof(name), 16, ctypes.addressof(vectors), 1, 0, 0, 0
        )
        + bytes(8)
        for name in (own, address)
    )
    raw("sendmmsg", descriptor, headers, 2, 0)


@pytest.mark.parametrize("by_message", [False, True])
def test_fast_open_does_not_get_past(workspace: str, by_message: bool):
    """NET-08, 09: data in the first packet is an attempt like a connection."""

    def act(_: str) -> str:
        with socket.socket() as tcp:
            if by_message:
                return code(lambda: tcp.sendmsg([b"x"], [], FASTOPEN, ("192.0.2.1", 443)))
            return code(lambda: tcp.sendto(b"x", FASTOPEN, ("192.0.2.1", 443)))

    caught = attack(act, workspace)
    assert (caught.result, caught.only()["target"]["proto"]) == ("ECONNREFUSED", "tcp")


def test_the_own_loopback_works_unrecorded(workspace: str):
    """Programs may talk to themselves by TCP, UDP, unix and abstract sockets."""

    def act(w: str) -> None:
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_INET6, ("::1", 0)),
            (socket.AF_UNIX, f"{w}/s"),
            (socket.AF_UNIX, "\0own"),
        ):
            with socket.socket(family) as listening, socket.socket(family) as out:
                listening.bind(address)
                listening.listen()
                out.connect(listening.getsockname())
                out.sendmsg([b"x"])
                with listening.accept()[0] as accepted:
                    assert accepted.recv(1) == b"x"

    assert attack(act, workspace).attempts == []


def test_an_undeclared_name_and_its_connection_are_one_record(workspace: str):
    """NET-07: host, ip and port in one record of network.egress, none of network.names."""

    def act(_: str) -> str:
        return code(lambda: socket.create_connection(("api.shop.example", 443)))

    caught = attack(act, workspace)
    records = [a for a in caught.attempts if "resolver" not in a["tags"]]
    assert [(a["rule"], a["target"]["host"], a["target"]["port"]) for a in records] == [
        ("network.egress", "api.shop.example", 443)
    ]
    assert records[0]["target"]["ip"].startswith("198.18.")


def test_a_name_that_nothing_follows_is_a_record_of_its_own_with_its_asker(workspace: str):
    """NET-04: the question is answered by the sink and recorded with the process that asked."""
    caught = attack(lambda _: socket.gethostbyname("random-4711.shop.example"), workspace)
    records = [a for a in caught.attempts if "resolver" not in a["tags"]]
    assert caught.result.startswith("198.18.")
    assert [(a["rule"], a["target"]) for a in records] == [
        ("network.names", {"host": "random-4711.shop.example", "proto": "dns"})
    ]
    assert records[0]["process"]["ns_pid"] > 0


def test_a_declared_name_leads_to_loopback_unrecorded(workspace: str):
    """A service's name resolves, and asking for it is nobody's attempt."""
    caught = attack(
        lambda _: socket.gethostbyname("postgres"), workspace, known={"postgres": "127.0.0.1"}
    )
    assert (caught.result, [a for a in caught.attempts if "resolver" not in a["tags"]]) == (
        "127.0.0.1",
        [],
    )


def test_a_question_to_a_foreign_resolver_shows_the_name(workspace: str):
    """NET-05: refused, and recorded as a question rather than as a connection."""
    question = b"\1\2\1\0\0\1\0\0\0\0\0\0\4evil\7example\0\0\1\0\1"

    def act(_: str) -> list[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            return [
                code(lambda: udp.sendto(question, ("192.0.2.53", 53))),
                code(lambda: tcp.connect(("192.0.2.53", 53))),
            ]

    caught = attack(act, workspace)
    assert caught.result == ["ENETUNREACH", "ECONNREFUSED"]
    assert [(a["rule"], a["target"].get("host")) for a in caught.attempts] == [
        ("network.names", "evil.example"),
        ("network.names", None),
    ]


def test_unusual_sockets_are_refused_and_named(workspace: str):
    """NET-22 to NET-25: raw, packet, vsock, alg, icmp, sctp;
    no kernel module gets loaded for them.
    """
    kinds = [
        (2, 3, 1),
        (2, 2, 1),
        (10, 2, 58),
        (17, 3, 0),
        (40, 1, 0),
        (38, 5, 0),
        (2, 1, 132),
        (2, 6, 33),
        (30, 1, 0),
        (21, 5, 0),
        (29, 3, 1),
    ]
    caught = attack(lambda _: [code(lambda: socket.socket(*kind)) for kind in kinds], workspace)  # noqa: B023
    assert caught.result == ["EAFNOSUPPORT"] * len(kinds)
    assert set(caught.rules()) == {"network.families"}
    assert {"AF_VSOCK", "AF_PACKET", "AF_ALG", "sctp", "icmp", "dccp"} <= {
        a["target"]["proto"] for a in caught.attempts
    }


def test_changing_routes_is_refused_and_asking_for_them_is_not(workspace: str):
    """NET-26: RTM_NEW messages fail with EPERM and are recorded; RTM_GET works."""

    def act(_: str) -> list[str]:
        with socket.socket(16, socket.SOCK_RAW, 0) as route:
            message = lambda kind: struct.pack("=IHHII", 32, kind, 5, 1, 0) + bytes(16)  # noqa: E731
            return [
                code(lambda: route.sendto(message(24), (0, 0))),
                code(lambda: route.sendto(message(18), (0, 0))),
            ]

    caught = attack(act, workspace)
    assert caught.result == ["EPERM", "ok"]
    assert caught.only()["target"]["syscall"] == "netlink message 24"


def _may_be_there(path: str) -> bool:
    try:
        os.lstat(path)
    except PermissionError:
        return True
    except FileNotFoundError:
        return False
    return True


@pytest.mark.parametrize(
    "path",
    ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock", "/root/agent.sock"],
)
def test_a_unix_socket_outside_is_refused_and_shown(workspace: str, path: str):
    """NET-27, 28: whether it is there or hidden, the path that was tried is in the record.

    One that not even the host has is told from the others.
    """
    caught = attack(connecting(socket.AF_UNIX, socket.SOCK_STREAM, path), workspace)
    record = caught.only()
    assert caught.result in ("ENOENT", "EACCES")
    assert (record["rule"], record["target"]["sun_path"], record["tags"]) == (
        "network.sockets",
        path,
        [] if _may_be_there(path) else ["probe"],
    )


def test_sockets_that_resolvers_and_loggers_try_are_tagged(workspace: str):
    """nscd and the log are tried by every program and meant by none."""

    def act(w: str) -> None:
        for path in ("/var/run/nscd/socket", "/dev/log"):
            connecting(socket.AF_UNIX, socket.SOCK_STREAM, path)(w)

    assert [a["tags"] for a in attack(act, workspace).attempts] == [["resolver"], ["probe"]]


def test_a_service_s_own_socket_folder_is_reached(tmp_path: Path, workspace: str):
    """A declared service's unix socket is no attempt."""
    folder = tmp_path / "service"
    folder.mkdir()
    folder.chmod(0o755)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{folder}/s")
    listening.listen()
    (folder / "s").chmod(0o777)
    caught = attack(
        connecting(socket.AF_UNIX, socket.SOCK_STREAM, f"{folder}/s"),
        workspace,
        services=(str(folder),),
    )
    listening.close()
    assert caught.attempts == []


def test_a_second_thread_is_held_too(workspace: str):
    """NET-33: a thread's attempt names its process."""

    def act(w: str) -> int:
        thread = threading.Thread(
            target=connecting(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 443)), args=(w,)
        )
        thread.start()
        thread.join()
        return os.getpid()

    caught = attack(act, workspace)
    assert caught.only()["process"]["ns_pid"] == caught.result


def test_a_thousand_connections_are_a_few_records(workspace: str):
    """NET-36: folded with a count; nothing is lost."""

    def act(w: str) -> None:
        for _ in range(1000):
            connecting(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 443))(w)

    caught = attack(act, workspace)
    assert sum(a["count"] for a in caught.attempts) == 1000
    assert len(caught.attempts) <= 20


def test_the_kernel_refuses_by_itself_what_a_canary_tries(workspace: str):
    """While proving, a held call goes on to the kernel: the empty namespace says no,
    and the attempt is recorded as a canary's.
    """
    caught = attack(
        connecting(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 443)), workspace, proving=True
    )
    assert (caught.result, caught.only()["tags"]) == ("ENETUNREACH", ["canary"])
