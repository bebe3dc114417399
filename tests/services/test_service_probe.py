"""One question, one answer; "not yet" is never an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from cleanroom.model.errors import EnvironmentFailed
from cleanroom.services.base import Probe
from cleanroom.services.probe import is_ready


class Scripted(ByteStream):
    """A peer that gives these pieces and then closes; None never answers."""

    def __init__(self, *pieces: bytes | None) -> None:
        self.pieces, self.sent = list(pieces), b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.pieces:
            raise anyio.EndOfStream
        piece = self.pieces.pop(0)
        if piece is None:
            await anyio.sleep_forever()
        assert piece is not None
        return piece

    async def send(self, item: bytes) -> None:
        self.sent += item

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


class Room:
    """An environment whose one service is a scripted peer."""

    def __init__(self, peer: Scripted | Exception | None = None, exit_code: int = 0) -> None:
        self.peer, self.exit_code = peer, exit_code

    async def exec(
        self,
        argv: Sequence[str],
        *,
        on_output: Callable[[Any, bytes], None],
        timeout_seconds: float | None = None,
    ) -> SimpleNamespace:
        if isinstance(self.peer, Exception):
            raise self.peer
        return SimpleNamespace(exit_code=self.exit_code)

    async def dial(self, to: str) -> ByteStream:
        if isinstance(self.peer, Exception):
            raise self.peer
        assert self.peer is not None
        return self.peer


RESP = Probe(kind="resp", to="unix:/x", password="p")
SQL = Probe(
    kind="sql",
    to="unix:/x",
    user="postgres",
    database="app",
    password="p",
    statements=("SELECT 1",),
)
HTTP = Probe(kind="http", to="tcp:80", path="/health")


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"+OK\r\n+PONG\r\n",), True),
        ((b"+O", b"K\r\n+PO", b"NG\r", b"\n"), True),
        ((b"-WRONGPASS no\r\n-NOAUTH no\r\n",), False),
        ((b"+OK\r\n-LOADING wait\r\n",), False),
        ((b"+OK\r\n",), False),
        ((), False),
        ((b"\xff" * 100_000,), False),
    ],
)
async def test_only_a_pong_after_an_accepted_password_is_ready(
    pieces: tuple[bytes, ...], expected: bool
):
    """The resp probe is true for +OK and +PONG, however they are cut, and for nothing else."""
    assert await is_ready(RESP, Room(Scripted(*pieces))) is expected


async def test_a_password_of_any_letters_is_sent_by_its_length_in_bytes():
    """RESP counts bytes, so a password outside ASCII arrives whole."""
    peer = Scripted(b"+OK\r\n+PONG\r\n")
    await is_ready(Probe(kind="resp", to="unix:/x", password="pä ss"), Room(peer))
    assert peer.sent == b"*2\r\n$4\r\nAUTH\r\n$6\r\np\xc3\xa4 ss\r\n*1\r\n$4\r\nPING\r\n"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ((b"HTTP/1.1 200 OK\r\n\r\n",), True),
        ((b"HTTP/1.0 30", b"2 Found\r\n"), True),
        ((b"HTTP/1.1 503 Later\r\n",), False),
        ((b"SSH-2.0-x\r\n",), False),
        ((b"x" * 5000,), False),
        ((), False),
    ],
)
async def test_an_http_status_below_400_is_ready(pieces: tuple[bytes, ...], expected: bool):
    """The http probe reads the status line and nothing more."""
    assert await is_ready(HTTP, Room(Scripted(*pieces))) is expected


@pytest.mark.parametrize(
    "pieces",
    [
        (b"E\0\0\0\x05\0",),
        (b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I",),  # it lets anybody in
        (b"R\0\0\0\x08\0\0\0\x03",),  # it asks for the password itself
        (b"R\0\0\0\x18\0\0\0\x0aSCRAM-SHA-256\0\0R\0\0\0\x0c\0\0\0\x0ci=1",),
        (b"R\0\0\0\x18\0\0\0\x0aSCRAM-SHA-256\0\0R\0\0\0\x20\0\0\0\x0br=somebody-else,s=aa==,i=1",),
        (b"R\xff\xff\xff\xff",),
        (b"HTTP/1.1 200 OK\r\n\r\n",),
        (b"R",),
        (),
    ],
)
async def test_only_a_server_that_knows_the_password_is_a_ready_database(pieces: tuple[bytes, ...]):
    """The sql probe is false for errors, other protocols, and a server that does not prove that it
    knows the password.

    (True is tested on a real one.)
    """
    assert await is_ready(SQL, Room(Scripted(*pieces))) is False


@pytest.mark.parametrize("probe", [RESP, HTTP, SQL, Probe(kind="tcp", to="tcp:1")])
async def test_a_refused_connection_is_not_yet(probe: Probe):
    """Nobody listening is an answer, not an error."""
    assert await is_ready(probe, Room(ConnectionRefusedError())) is False


@pytest.mark.looptime
@pytest.mark.parametrize("probe", [RESP, HTTP, SQL])
async def test_a_server_that_accepts_and_says_nothing_is_not_ready(probe: Probe):
    """An open port is no answer; the question ends by itself."""
    assert await is_ready(probe, Room(Scripted(None))) is False


async def test_a_connection_is_all_a_tcp_probe_asks():
    """tcp is ready once somebody accepts."""
    assert await is_ready(Probe(kind="tcp", to="tcp:1"), Room(Scripted())) is True


@pytest.mark.parametrize(("exit_code", "expected"), [(0, True), (1, False), (137, False)])
async def test_exit_zero_is_ready(exit_code: int, expected: bool):
    """The exec probe is true for exit status 0 alone."""
    assert await is_ready(Probe(kind="exec", argv=("true",)), Room(exit_code=exit_code)) is expected


async def test_an_environment_that_ended_is_no_not_yet():
    """A dead service is told from a slow one: what the environment raises passes through."""
    with pytest.raises(EnvironmentFailed):
        await is_ready(Probe(kind="exec", argv=("true",)), Room(EnvironmentFailed("CR-X", "ended")))


@pytest.mark.parametrize(
    ("output", "expected"),
    [(b"", False), (b"\xff\nserver ready\n", True), (b"not server ready", False)],
)
async def test_a_log_probe_searches_all_output(output: bytes, expected: bool):
    """The pattern is searched line by line, whatever bytes are around it."""
    assert await is_ready(Probe(kind="log", pattern="^server ready$"), Room(), output) is expected
