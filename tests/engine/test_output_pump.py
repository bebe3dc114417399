"""Output on its way to log and bus."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.bus import Bus
from cleanroom.core.clock import LoopClock
from cleanroom.core.redaction import Redactor
from cleanroom.engine.supervision.output import PIECE_BYTES, OutputPump
from cleanroom.model.events import Output, Subject


class Log:
    def __init__(self) -> None:
        self.data = b""

    def write(self, name: str, data: bytes) -> None:
        self.data += data

    def path(self, name: str) -> Path:
        return Path(name)


async def pumped(pieces: list[bytes], *secrets: str) -> tuple[list[Output], bytes]:
    bus, log = Bus("r", LoopClock()), Log()
    inbox = bus.subscribe("test", limit=10_000)
    pump = OutputPump(
        bus,
        log,
        Redactor(secrets),
        subject=Subject("phase", "p"),
        log="p",
        at=bus.current_context(),
    )
    for piece in pieces:
        pump.feed("stdout", piece)
    pump.end()
    bus.close()
    return [envelope.event for envelope in await inbox.batch()], log.data


@pytest.mark.looptime
async def test_offsets_count_bytes_and_pieces_join_to_the_whole():
    """Joined in order, the pieces are the output; offsets say where each begins."""
    data = ("ä" * 50_000).encode()
    told, logged = await pumped([data])
    assert logged == data
    assert "".join(event.text for event in told) == "ä" * 50_000
    assert told[0].offset == 0
    assert all(len(event.text.encode()) <= PIECE_BYTES + 4 for event in told)


@pytest.mark.looptime
async def test_a_character_split_over_pieces_is_whole():
    """A multi-byte character in two writes is not replaced; a byte that is none is."""
    told, _ = await pumped(["ä".encode()[:1], "ä".encode()[1:], b"\xff"])
    assert "".join(event.text for event in told) == "ä\ufffd"


@pytest.mark.looptime
async def test_a_secret_split_over_writes_is_in_neither_place():
    """Redaction sees the stream and not the pieces."""
    told, logged = await pumped([b"password: hun", b"ter2secret", b"\n"], "hunter2secret")
    assert b"hunter2" not in logged
    assert "".join(event.text for event in told) == "password: [redacted]\n"


@pytest.mark.looptime
async def test_a_write_after_the_end_is_dropped():
    """What a process that outlived its command says late does not raise."""
    bus = Bus("r", LoopClock())
    pump = OutputPump(
        bus, Log(), Redactor(), subject=Subject("phase", "p"), log="p", at=bus.current_context()
    )
    pump.end()
    pump.feed("stdout", b"late")


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_byte_is_lost_or_doubled_in_the_log(pieces):
    """The log is the output, byte for byte, however it was cut."""
    import asyncio

    told, logged = asyncio.run(pumped(pieces))
    assert logged == b"".join(pieces)
    assert "".join(event.text for event in told) == b"".join(pieces).decode(errors="replace")
