"""The part of the Redis protocol that probes and cleaning need: commands with one-line answers."""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream

ANSWER_BYTES = 65536  # "+OK" and "+PONG" are a few; a peer that sends more speaks another protocol


async def ping(stream: ByteStream, password: str = "") -> bool:
    """Authenticate and ping.

    False for any other answer, such as -LOADING or -WRONGPASS, and for a stream that ends early.
    """
    return await send_commands(stream, password, ("PING",)) == [
        *(["+OK"] if password else []),
        "+PONG",
    ]


async def send_commands(stream: ByteStream, password: str, *commands: tuple[str, ...]) -> list[str]:
    """Authenticate if there is a password, send the commands, and return the answers.

    Each answer is one line; there are fewer where the stream ends early.
    """
    sent = [*([("AUTH", password)] if password else []), *commands]
    await stream.send(b"".join(_command(*words) for words in sent))
    return await _lines(stream, len(sent))


def _command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(
        b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded
    )


async def _lines(stream: ByteStream, count: int) -> list[str]:
    received = b""
    while received.count(b"\r\n") < count and len(received) < ANSWER_BYTES:
        try:
            received += await stream.receive()
        except anyio.EndOfStream:
            break
    return [line.decode(errors="replace") for line in received.split(b"\r\n")[:count]]
