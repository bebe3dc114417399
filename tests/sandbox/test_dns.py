"""The name answerer by its bytes, and what is said of names that nothing follows."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanroom.sandbox.network.dns import DnsServer, NameTable, parse_question
from cleanroom.sandbox.network.egress_patterns import ALLOTTED_MOST, Pattern, covers

A, AAAA, PTR = 1, 28, 12


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


def question(name: str, kind: int = A, number: int = 0x1234) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return (
        struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0)
        + labels
        + b"\0"
        + struct.pack(">HH", kind, 1)
    )


class Bench:
    """An answerer on sockets of its own, with everything that it reports."""

    def __init__(self, known: dict[str, str] | None = None) -> None:
        self.clock = Clock()
        self.records: list[dict[str, Any]] = []
        self.names = NameTable(known or {}, self.clock)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = socket.socket()
        for end in (self.udp, self.tcp):
            end.bind(("127.0.0.1", 0))
            end.setblocking(False)
        self.tcp.listen(8)
        self.answerer = DnsServer(self.udp, self.tcp, self.names, self.records.append)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.answerer.close()


def code_of(answer: bytes) -> int:
    return answer[3] & 15


def answers(answer: bytes) -> int:
    return int.from_bytes(answer[6:8], "big")


PATTERNS = (
    Pattern("*.example.org", 443, "out:*.example.org:443:public"),
    Pattern("*.a.Example.org", 443, "out:*.a.Example.org:443:private"),
    Pattern("*.example.org", 80, "out:*.example.org:80:public"),
)


def test_a_name_below_a_declared_domain_gets_an_address_of_its_own():
    """The same one each time; the most particular domain says where it leads."""
    egress = [("one.example.org", "127.77.0.1", 443)]
    names = NameTable({"one.example.org": "127.77.0.1"}, egress=egress, patterns=PATTERNS)
    first, second = (names.declared_address(f"{name}.example.org") for name in ("x", "x.a"))
    assert first != second
    assert names.declared_address("x.example.org") == first
    assert first.startswith("127.77.128.")
    packed = [socket.inet_aton(address) for address in (first, second, "127.77.0.1")]
    assert names.pattern_target(packed[0], 443) == "out:*.example.org:443:public"
    assert names.pattern_target(packed[1], 443) == "out:*.a.Example.org:443:private"
    assert names.pattern_target(packed[1], 80) == "out:*.example.org:80:public"
    # Its own forward counts before a pattern's.
    assert names.pattern_target(packed[2], 443) == ""
    assert names.pattern_target(packed[2], 80) == "out:*.example.org:80:public"
    assert names.is_undeclared_port(packed[0], 22)
    assert names.declared_host(packed[0]) == "x.example.org"
    for name in ("example.org", "notexample.org", "x.example.org.evil", "-x.example.org", "x y"):
        assert names.declared_address(name) == ""


def test_names_below_a_domain_have_a_bound():
    """One too many is as one that is not declared."""
    names = NameTable({}, patterns=PATTERNS)
    found = {names.declared_address(f"n{number}.example.org") for number in range(ALLOTTED_MOST)}
    assert len(found) == ALLOTTED_MOST
    assert all(address.startswith("127.77.") for address in found)
    assert names.declared_address("more.example.org") == ""
    assert names.declared_address("n7.example.org") in found


@given(st.text(max_size=300), st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,3}", fullmatch=True))
def test_a_covered_name_is_a_host_name_below_the_domain(name: str, domain: str):
    """Whatever bytes a question had: nothing else is looked up outside."""
    for asked in (name, f"{name}.{domain}", f"a.{domain}", domain):
        if covers(f"*.{domain}", asked):
            assert asked.endswith(f".{domain}")
            assert set(asked) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")
            assert not any(label == "" or label[0] == "-" for label in asked.split("."))
    assert covers(f"*.{domain}", f"a.{domain}")


def test_a_declared_name_gets_its_address():
    """Upper case and a final dot make no difference."""
    with Bench({"Postgres.": "127.0.0.1"}) as bench:
        assert bench.answerer.answer(question("POSTGRES"))[-4:] == bytes((127, 0, 0, 1))
        bench.names.flush()
        assert bench.records == []


def test_an_undeclared_name_gets_one_address_of_the_sink_for_one_second():
    """The same name gets the same address, another name another one; TTL is 1."""
    with Bench() as bench:
        first, again, other = (
            bench.answerer.answer(question(name))
            for name in ("a.example", "A.EXAMPLE", "b.example")
        )
        assert first[-4:] == again[-4:] != other[-4:]
        assert first[-4:-2] == bytes((198, 18))
        assert struct.unpack(">I", first[-10:-6]) == (1,)


def test_other_types_are_empty_and_no_error():
    """AAAA and PTR get no record and NOERROR, so that programs go on with what they have."""
    with Bench() as bench:
        for name, kind in (
            ("a.example", AAAA),
            ("1.0.0.127.in-addr.arpa", PTR),
            ("localhost", AAAA),
        ):
            answer = bench.answerer.answer(question(name, kind))
            assert (code_of(answer), answers(answer)) == (0, 0)


def test_a_name_is_reported_when_nothing_follows_in_time():
    """Not before, and once."""
    with Bench() as bench:
        bench.answerer.answer(question("a.example"))
        bench.names.tick()
        assert bench.records == []
        bench.clock.now += 300_000_000
        bench.names.tick()
        bench.names.tick()
        assert [r["target"]["host"] for r in bench.records] == ["a.example"]
        assert bench.names.wait_seconds() is None


def test_a_name_that_is_followed_is_not_reported():
    """Its connection carries the host."""
    with Bench() as bench:
        address = socket.inet_ntoa(bench.answerer.answer(question("a.example"))[-4:])
        assert bench.names.take_name(address) == "a.example"
        bench.names.flush()
        assert bench.records == []


def test_too_many_names_do_not_exist_and_are_counted():
    """Past the limit the answer is NXDOMAIN and the account lossy."""
    with Bench() as bench:
        codes = [
            code_of(bench.answerer.answer(question(f"n{number}.example"))) for number in range(4100)
        ]
        assert codes[:4096] == [0] * 4096
        assert (codes[4096:], bench.names.dropped) == ([3] * 4, 4)


@settings(deadline=None)
@given(packet=st.binary(max_size=600))
def test_no_packet_breaks_it_or_is_answered_at_length(packet: bytes):
    """Whatever comes, the answer is at most 512 bytes and bears the question's number."""
    with Bench() as bench:
        answer = bench.answerer.answer(packet)
        assert len(answer) <= 512
        assert answer[:2] == packet[:2] if len(packet) > 1 else answer == b""


@settings(deadline=None)
@given(
    labels=st.lists(st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True), min_size=1, max_size=8),
    kind=st.integers(1, 65535),
)
def test_parsing_a_question_is_the_inverse_of_writing_it(labels: list[str], kind: int):
    """Name and type come back, and the end is the packet's."""
    packet = question(".".join(labels), kind)
    assert parse_question(packet) == (".".join(labels), kind, len(packet))


def test_malformed_questions_are_format_errors():
    """A cut name, no question, two questions, a pointer."""
    whole = question("a.example")
    with Bench() as bench:
        for packet in (
            whole[:-3],
            whole[:4] + b"\0\0" + whole[6:],
            whole[:4] + b"\0\2" + whole[6:],
            whole[:12] + b"\xc0\x0c" + whole[-4:],
        ):
            assert code_of(bench.answerer.answer(packet)) == 1


def test_questions_over_tcp_are_answered_in_pieces_and_in_rows():
    """A connection may ask twice, and send its bytes one by one."""
    with (
        Bench({"db": "127.0.0.1"}) as bench,
        socket.create_connection(bench.tcp.getsockname()) as client,
    ):
        framed = b"".join(
            struct.pack(">H", len(packet)) + packet
            for packet in (question("db"), question("x.example"))
        )
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed:
            client.send(bytes((byte,)))
            bench.answerer.ready()
        received = b""
        while len(received) < 2 * 2 + len(question("db")) + len(question("x.example")) + 32:
            readable, _, _ = select.select([client, *bench.answerer.filenos()], [], [], 5)
            assert readable
            if client in readable:
                received += client.recv(4096)
            else:
                bench.answerer.ready()
        assert b"\x7f\0\0\1" in received


@pytest.mark.timeout(20)
def test_an_asker_that_is_faster_does_not_hold_the_warden(monkeypatch: pytest.MonkeyPatch):
    """It answers a part, and then serves its other descriptors: an order to kill is among them."""
    with Bench() as bench, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(bench.udp.getsockname())
        asker.send(b"??")
        answered: list[bytes] = []

        def answer(packet: bytes, _port: int = 0) -> bytes:
            answered.append(packet)
            if len(answered) < 1000:
                asker.send(b"??")
            return b""

        monkeypatch.setattr(bench.answerer, "answer", answer)
        bench.answerer.ready()
        first = len(answered)
        while len(answered) < 1000:
            bench.answerer.ready()
    assert first == 128
