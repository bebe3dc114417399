"""Redaction: known secrets are replaced in everything before it is hashed, shown or sent.

A secret is found as it is and as programs print it (`encodings`), a long one piece by piece.
`docs/limits.md` lists the forms that are not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import msgspec

from cleanroom.core.encodings.needles import SHORTEST, Span

if TYPE_CHECKING:
    from cleanroom.core.secret_search import SecretSearch
    from cleanroom.model.events import Envelope

REPLACEMENT = "[redacted]"
_CONTEXT = 128  # bytes before a line break that decide whether it is one inside of an encoding

_SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|PRIVATE_KEY|CREDENTIAL|_KEY$|_PASS$|^KEY$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:([^\s@]+)@", re.IGNORECASE)
# `key=value,key=value`: credentials of a collector's users
_HEADERS = re.compile(r"OTEL_EXPORTER_OTLP_(?:\w+_)?HEADERS")
_SECRET_HEADER = re.compile(r"AUTH|COOKIE|PASS|TEAM|_?KEY", re.IGNORECASE)
# Characters from which on the value of any header is a secret; shorter ones are names of tenants
# and of data sets.
_LONG_HEADER = 16
# Values of variables such as TOKEN_LIMIT, and not of TOKEN.
_SETTING = re.compile(r"true|false|none|null|yes|no|\d{1,7}", re.IGNORECASE)

_E = TypeVar("_E")
_encoder = msgspec.json.Encoder()


def is_secret(name: str, value: str) -> bool:
    """Whether a variable of the caller's is a secret by its name, or has a password in a URL."""
    return bool(
        _SECRET_NAME.search(name) or _HEADERS.fullmatch(name) or _URL_PASSWORD.search(value)
    )


class Redactor:
    """Replaces known values by REPLACEMENT.

    `public` are names that are shown (phases, services): a value that is part of one is no secret.
    """

    def __init__(self, values: Iterable[str] = (), *, public: Iterable[str] = ()) -> None:
        self._public = (REPLACEMENT, *public)
        self._known: set[str] = set()
        self._search: SecretSearch | None = None  # None: no value is known
        self.add(*values)

    def add(self, *values: str) -> None:
        """Replace these values from now on.

        Values of fewer than 4 characters, and parts of public names, are ignored.
        """
        fresh = {value for value in values if self._is_secret(value)} - self._known
        if fresh:
            self._search = self._search or _new_search()
            for value in fresh:
                self._known.add(value)
                self._search.add(value, self._is_secret)

    def text(self, text: str) -> str:
        """`text` without any known value."""
        if self._search is None:
            return text
        data = text.encode("utf-8", "surrogatepass")
        spans, _ = self._search.found(data, final=True)
        return _replaced(data, spans).decode("utf-8", "replace") if spans else text

    def event(self, event: _E) -> _E:
        """`event` (any msgspec struct) without any known value in its strings;
        the same object if it has none.

        Fields with a fixed vocabulary, keys and numbers are not searched: the engine makes them.
        """
        if self._search is None or not self._search.among(_encoder.encode(event)):
            return event
        cleaned: _E = self._cleaned(event)
        return cleaned

    def envelopes(self, envelopes: list[Envelope]) -> list[Envelope]:
        """The envelopes with their events redacted.

        All are encoded and searched together, and one by one only if a value was found.
        """
        if self._search is None:
            return envelopes
        if not self._search.among(_encoder.encode_lines([one.event for one in envelopes])):
            return envelopes
        return [
            msgspec.structs.replace(envelope, event=self.event(envelope.event))
            for envelope in envelopes
        ]

    def stream(self) -> StreamRedactor:
        """A redactor for bytes in pieces. Values that are added here later count there too."""
        return StreamRedactor(self)

    def _is_secret(self, value: str) -> bool:
        return (
            len(value) >= SHORTEST
            and not value.isspace()
            and not any(value in name for name in self._public)
        )

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
    """Replaces known values in a stream, however it is cut into pieces.

    Output that cannot be the beginning of a value is never held back.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        # Bytes that are held back, after some that were shown: those decide whether a line break
        # belongs to an encoding.
        self._kept = b""
        self._shown = 0  # how many bytes of `_kept` were shown

    def feed(self, data: bytes) -> bytes:
        """The bytes that can be shown now.

        Fewer than the longest value as printed are held back.
        """
        search = self._redactor._search
        return self._show(search, self._kept + data, final=False) if search else data

    def end(self) -> bytes:
        """The bytes that were held back, at the end of the stream."""
        search = self._redactor._search
        return self._show(search, self._kept, final=True) if search else b""

    def _show(self, search: SecretSearch, buffer: bytes, *, final: bool) -> bytes:
        spans, opened = search.found(buffer, final=final)
        shown, pieces = self._shown, []
        for start, end in spans:
            if start >= opened:
                break
            if end <= shown:
                continue
            if start >= shown:  # else the span continues one that was replaced
                pieces += [buffer[shown:start], REPLACEMENT.encode()]
            shown = end
        pieces.append(buffer[shown:opened])
        shown = max(shown, opened)
        keep = _before_escape(buffer, max(0, opened - _CONTEXT, buffer.rfind(b"\n", 0, opened)))
        self._kept, self._shown = buffer[keep:], shown - keep
        return b"".join(pieces)


def _new_search() -> SecretSearch:
    """A search without a value yet. Its expressions take 3 ms to load, and many runs have none."""
    from cleanroom.core.secret_search import SecretSearch

    return SecretSearch()


def _before_escape(buffer: bytes, at: int) -> int:
    """The last position up to `at` outside of a row of backslashes, or in a very long row."""
    before = buffer[max(0, at - _CONTEXT) : at]
    return at - len(before) + len(before.rstrip(b"\\"))


def _replaced(text: bytes, spans: list[Span]) -> bytes:
    done, pieces = 0, []
    for start, end in spans:
        pieces += [text[done:start], REPLACEMENT.encode()]
        done = end
    return b"".join((*pieces, text[done:]))


def secret_values(environ: Mapping[str, str]) -> list[str]:
    """The values of variables and of headers for collectors whose names look secret, and the
    passwords in URLs. Switches and small numbers are no secrets.
    """
    found = {value for name, value in environ.items() if _SECRET_NAME.search(name)}
    for name, value in environ.items():
        if _HEADERS.fullmatch(name):
            found |= _in_headers(value)
    for value in environ.values():
        for password in _URL_PASSWORD.findall(value):
            found |= {password, unquote(password)}
    return sorted(
        value for value in found if len(value) >= SHORTEST and not _SETTING.fullmatch(value)
    )


def _in_headers(text: str) -> set[str]:
    """The credentials in headers: their values, and of a value with a scheme (`Bearer ...`) also
    the part after the scheme.
    """
    found: set[str] = set()
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        value = unquote(value.strip())
        if (
            _SECRET_NAME.search(name.strip())
            or _SECRET_HEADER.search(name)
            or len(value) >= _LONG_HEADER
        ):
            found |= {value, value.rpartition(" ")[2]}
    return found


@cache
def _free_fields(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """The fields that are not from a fixed vocabulary."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return tuple(
        field.name
        for field in info.fields
        if not isinstance(field.type, (msgspec.inspect.LiteralType, msgspec.inspect.EnumType))
    )
