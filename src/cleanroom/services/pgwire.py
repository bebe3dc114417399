"""The part of PostgreSQL's protocol that probes and fixtures need: SCRAM-SHA-256, and statements
with few rows.

A probe takes about 5 ms over the server's socket; starting psql for it took 8 to 33 ms.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence
from hashlib import pbkdf2_hmac, sha256
from typing import NamedTuple

import anyio
from anyio.abc import ByteStream

PROTOCOL = 196608  # 3.0
MECHANISM = b"SCRAM-SHA-256"
# Answers to our statements are a few bytes; a peer that sends more speaks another protocol.
MESSAGE_BYTES = 65536


class Answers(NamedTuple):
    """What came of statements: rows of text of all that gave some, in order."""

    rows: list[tuple[str, ...]]
    error: str  # the server's words, or why there is no answer; empty where all succeeded


async def run_statements(
    stream: ByteStream, *, user: str, database: str, password: str, statements: Sequence[str]
) -> bool:
    """Log in and run the statements in turn. True if all succeeded.

    False for any error, another way to log in, and a stream that ends early.
    """
    answers = await ask(
        stream, user=user, database=database, password=password, statements=statements
    )
    return not answers.error


async def ask(
    stream: ByteStream, *, user: str, database: str, password: str, statements: Sequence[str]
) -> Answers:
    """Log in and run the statements in turn, up to the first error. A NULL is empty text."""
    login = _Login(password.encode())
    left = list(statements)
    rows: list[tuple[str, ...]] = []
    names = "".join(
        f"{name}\0{value}\0" for name, value in (("user", user), ("database", database))
    )
    await stream.send(_message(b"", struct.pack(">i", PROTOCOL) + names.encode() + b"\0"))
    async for kind, body in _messages(stream):
        if kind == b"E":
            return Answers(rows, _error_text(body))
        if kind == b"R":
            answer = login.answer(int.from_bytes(body[:4], "big"), body[4:])
            if answer is None:
                break
            if answer:
                await stream.send(_message(b"p", answer))
        elif kind == b"D":
            rows.append(_row(body))
        elif kind == b"Z":
            if not left:
                await stream.send(_message(b"X", b""))
                return Answers(rows, "" if login.done else "it let in anybody, without a password")
            await stream.send(_message(b"Q", left.pop(0).encode() + b"\0"))
    return Answers(rows, "the connection ended" if login.done else "no way to log in")


def _error_text(body: bytes) -> str:
    """The fields of an error that a person reads: message, detail, hint."""
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return "; ".join(fields[kind] for kind in (b"M", b"D", b"H") if kind in fields) or "an error"


def _row(body: bytes) -> tuple[str, ...]:
    columns, at = [], 2
    for _ in range(int.from_bytes(body[:2], "big")):
        size = int.from_bytes(body[at : at + 4], "big", signed=True)
        at += 4
        columns.append(body[at : at + max(size, 0)].decode(errors="replace"))
        at += max(size, 0)
    return tuple(columns)


class _Login:
    """One exchange of SCRAM (RFC 5802), in which the server proves that it knows the password
    too.
    """

    def __init__(self, password: bytes) -> None:
        self.done = False
        self._password = password
        self._first = b"n=,r=" + b64encode(secrets.token_bytes(18))
        self._proof_of_server = b""

    def answer(self, step: int, body: bytes) -> bytes | None:
        """The reply to an authentication message: b"" for none, None to give up."""
        if step == 10 and MECHANISM in body.split(b"\0"):
            begin = b"n,," + self._first
            return MECHANISM + b"\0" + struct.pack(">i", len(begin)) + begin
        if step == 11:
            return self._final(body)
        if (
            step == 12
            and self._proof_of_server
            and hmac.compare_digest(body, b"v=" + self._proof_of_server)
        ):
            self.done = True
            return b""
        return b"" if step == 0 and self.done else None

    def _final(self, server_first: bytes) -> bytes | None:
        fields = dict(part.split(b"=", 1) for part in server_first.split(b",") if b"=" in part)
        try:
            nonce, salt, rounds = (
                fields[b"r"],
                b64decode(fields[b"s"], validate=True),
                int(fields[b"i"]),
            )
        except (KeyError, ValueError):
            return None
        if not nonce.startswith(self._first.removeprefix(b"n=,r=")) or not 0 < rounds < 1_000_000:
            return None
        salted = pbkdf2_hmac("sha256", self._password, salt, rounds)
        client_key = _hmac(salted, b"Client Key")
        final = b"c=biws,r=" + nonce
        auth_message = b",".join((self._first, server_first, final))
        signature = _hmac(sha256(client_key).digest(), auth_message)
        self._proof_of_server = b64encode(_hmac(_hmac(salted, b"Server Key"), auth_message))
        return (
            final
            + b",p="
            + b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True)))
        )


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


async def _messages(stream: ByteStream) -> AsyncIterator[tuple[bytes, bytes]]:
    """Kind and body of each message, until the stream ends or is none of PostgreSQL's."""
    received = b""
    while True:
        while len(received) >= 5:
            size = int.from_bytes(received[1:5], "big")
            if not 4 <= size <= MESSAGE_BYTES:
                return
            if len(received) <= size:
                break
            message, received = received[: size + 1], received[size + 1 :]
            yield message[:1], message[5:]
        try:
            received += await stream.receive()
        except anyio.EndOfStream:
            return
