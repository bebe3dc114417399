"""Secrets, known by their values, taken out of everything before it is hashed, shown or sent.

A value is found as it is and as programs like to print it: escaped for JSON, quoted for a URL, and in base64 at any of its three alignments.
What is not found: a value that was compressed, encrypted, hashed, reversed, or cut into pieces by whoever printed it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, quote_plus, unquote

import msgspec

if TYPE_CHECKING:
    from cleanroom.events import Envelope

REPLACEMENT = "[redacted]"
SHORTEST = 4  # a shorter value would take ordinary words and numbers out of every text

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|PRIVATE_KEY|CREDENTIAL|_KEY$|_PASS$|^KEY$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:([^\s@]+)@", re.IGNORECASE)
_HEADERS = re.compile(r"OTEL_EXPORTER_OTLP_(?:\w+_)?HEADERS")  # `key=value,key=value`: how a collector's users identify themselves
_SECRET_HEADER = re.compile(r"AUTH|COOKIE|PASS|TEAM|_?KEY", re.IGNORECASE)
_LONG_HEADER = 16  # characters from which the value of any header counts: shorter ones are names of tenants and data sets
_SETTING = re.compile(r"true|false|none|null|yes|no|\d{1,7}", re.IGNORECASE)  # what stands in TOKEN_LIMIT, not in TOKEN

_E = TypeVar("_E")
_encoder = msgspec.json.Encoder()


def is_secret(name: str, value: str) -> bool:
    """Whether a variable of the caller's is one by its name, or carries a password in an address."""
    return bool(_SECRET_NAME.search(name) or _HEADERS.fullmatch(name) or _URL_PASSWORD.search(value))


class Redactor:
    """Knows values and takes them out. `public` are names that are said openly (phases, services): what is part of one is no secret."""

    def __init__(self, values: Iterable[str] = (), *, public: Iterable[str] = ()) -> None:
        self._public = (REPLACEMENT, *public)
        self._texts: set[str] = set()
        self._bytes: tuple[bytes, ...] = ()
        self._text_pattern: re.Pattern[str] | None = None
        self._bytes_pattern: re.Pattern[bytes] | None = None
        self._encoded: tuple[bytes, ...] = ()  # as they stand in the encoding of an event
        self.add(*values)

    def add(self, *values: str) -> None:
        """Take these out from now on. Values of fewer than 4 characters, and parts of public names, are ignored."""
        fresh = {form for value in values if self._is_secret(value) for form in _forms(value)} - self._texts
        if not fresh:
            return
        self._texts |= fresh
        longest_first = sorted(self._texts, key=lambda text: (-len(text), text))
        self._bytes = tuple(sorted((_raw(text) for text in longest_first), key=len, reverse=True))
        self._text_pattern = re.compile("|".join(map(re.escape, map(_readable, longest_first))))
        self._bytes_pattern = re.compile(b"|".join(map(re.escape, self._bytes)))
        self._encoded = tuple({_encoder.encode(_readable(text))[1:-1] for text in longest_first})

    def text(self, text: str) -> str:
        """`text` without any known value."""
        return self._text_pattern.sub(REPLACEMENT, text) if self._text_pattern else text

    def event(self, event: _E) -> _E:
        """`event` (any msgspec struct) without any known value in its strings; the same object where there is none.

        Fields with a fixed vocabulary, keys and numbers stay: they are the engine's own words.
        """
        if not self._among(_encoder.encode(event)):
            return event
        cleaned: _E = self._cleaned(event)
        return cleaned

    def envelopes(self, envelopes: list[Envelope]) -> list[Envelope]:
        """The same for the event of each: they are encoded and searched together, and one by one only where there is something."""
        if not self._encoded or not self._among(_encoder.encode_lines([envelope.event for envelope in envelopes])):
            return envelopes
        return [msgspec.structs.replace(envelope, event=self.event(envelope.event)) for envelope in envelopes]

    def stream(self) -> StreamRedactor:
        """The same for bytes that come in pieces. What is added here later counts there too."""
        return StreamRedactor(self)

    def _among(self, encoded: bytes) -> bool:
        """Whether a value stands there. Several times faster than one expression of all: a search for one word can skip."""
        return any(value in encoded for value in self._encoded)

    def _is_secret(self, value: str) -> bool:
        return len(value) >= SHORTEST and not value.isspace() and not any(value in name for name in self._public)

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (tuple, list)):
            return type(value)(self._cleaned(item) for item in value)
        if isinstance(value, dict):
            return {key: self._cleaned(item) for key, item in value.items()}
        if isinstance(value, msgspec.Struct):
            free = {name: self._cleaned(getattr(value, name)) for name in _free_fields(type(value))}
            return msgspec.structs.replace(value, **free)
        return value


class StreamRedactor:
    """Takes known values out of a stream, however it is cut. Output that cannot be the beginning of a value is never held back."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be shown now; the rest, less than the longest value, waits for the next piece."""
        pattern = self._redactor._bytes_pattern
        if pattern is None:
            return data
        buffer = self._held + data
        done, hold, shown = 0, self._open_end(buffer, 0), []
        for match in pattern.finditer(buffer):
            if match.start() >= hold:
                break
            shown += [buffer[done : match.start()], REPLACEMENT.encode()]
            done = match.end()
            if done > hold:
                hold = self._open_end(buffer, done)
        self._held = buffer[hold:]
        shown.append(buffer[done:hold])
        return b"".join(shown)

    def end(self) -> bytes:
        """What was held back: the stream is over."""
        pattern, held, self._held = self._redactor._bytes_pattern, self._held, b""
        return pattern.sub(REPLACEMENT.encode(), held) if pattern else held

    def _open_end(self, buffer: bytes, start: int) -> int:
        """The first place from which the rest of `buffer` could still grow into a value."""
        first = len(buffer)
        for needle in self._redactor._bytes:
            at = buffer.find(needle[:1], max(start, len(buffer) - len(needle) + 1))
            while 0 <= at < first:
                if needle.startswith(buffer[at : at + 8]) and needle.startswith(buffer[at:]):
                    first = at
                at = buffer.find(needle[:1], at + 1)
        return first


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """The values of variables and of headers for collectors whose names look secret, and the passwords in any URL; switches and small numbers are neither."""
    found = {value for name, value in environ.items() if _SECRET_NAME.search(name)}
    for name, value in environ.items():
        if _HEADERS.fullmatch(name):
            found |= _in_headers(value)
    for value in environ.values():
        for password in _URL_PASSWORD.findall(value):
            found |= {password, unquote(password)}
    return sorted(value for value in found if len(value) >= SHORTEST and not _SETTING.fullmatch(value))


def _in_headers(text: str) -> set[str]:
    """What identifies its sender: a header's value, and of one with a scheme (`Bearer ...`) what follows it."""
    found: set[str] = set()
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        value = unquote(value.strip())
        if _SECRET_NAME.search(name.strip()) or _SECRET_HEADER.search(name) or len(value) >= _LONG_HEADER:
            found |= {value, value.rpartition(" ")[2]}
    return found


def _forms(value: str) -> set[str]:
    """Every way in which `value` is looked for."""
    raw = _raw(value)
    forms = {value, value.strip(), quote(raw, safe=""), quote(raw), quote_plus(raw)}
    forms |= {re.sub("%..", lambda found: found[0].lower(), form) for form in forms}
    for offset in range(3):
        # Only the characters that the value alone decides: its neighbours leak into the first and the last.
        skipped, whole = (0, 2, 3)[offset], (offset + len(raw)) * 8 // 6
        forms |= {encode(b"\0" * offset + raw)[skipped:whole].decode() for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    forms |= {json.dumps(form, ensure_ascii=only)[1:-1] for form in tuple(forms) for only in (True, False)}
    return {form for form in forms if len(form) >= SHORTEST}


def _raw(text: str) -> bytes:
    """The bytes that a program prints for a value from the environment."""
    return text.encode("utf-8", "surrogateescape")


def _readable(text: str) -> str:
    """How a value reads in an event, where undecodable bytes are replaced."""
    return _raw(text).decode("utf-8", "replace")


@cache
def _free_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields that are not from a fixed vocabulary."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(field.name for field in info.fields if not isinstance(field.type, (msgspec.inspect.LiteralType, msgspec.inspect.EnumType)))
