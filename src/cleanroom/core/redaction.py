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

from cleanroom.core.encodings.base64_text import base64_forms, base64_open, base64_spans
from cleanroom.core.encodings.escapes import escapes_undone, has_escapes, open_escape, unescaped
from cleanroom.core.encodings.forms import parts, plain_forms
from cleanroom.core.encodings.hex_digits import hex_forms, hex_open, hex_spans
from cleanroom.core.encodings.needles import SHORTEST, Needles, Span
from cleanroom.core.encodings.reading import Reading
from cleanroom.core.encodings.simple_json import among_simple, simple_json

if TYPE_CHECKING:
    from cleanroom.model.events import Envelope

REPLACEMENT = "[redacted]"
_LAYERS = 3  # escapes within escapes: JSON in a string of JSON, in an address
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
        self._plain, self._base64, self._hex = Needles(), Needles(), Needles()
        self._json = Needles()  # the plain ones as they stand in the encoding of an event
        self.add(*values)

    def add(self, *values: str) -> None:
        """Replace these values from now on.

        Values of fewer than 4 characters, and parts of public names, are ignored.
        """
        for value in {value for value in values if self._is_secret(value)} - self._known:
            self._known.add(value)
            for part in parts(_raw(value)):
                if self._is_secret(part.decode("utf-8", "replace")):
                    forms = plain_forms(part)
                    self._plain.add(forms)
                    self._json.add(map(_in_json, forms))
                    self._base64.add(base64_forms(part))
                    self._hex.add(hex_forms(part))

    def text(self, text: str) -> str:
        """`text` without any known value."""
        if not self._known:
            return text
        data = text.encode("utf-8", "surrogatepass")
        spans, _ = self._found(data, final=True)
        return _replaced(data, spans).decode("utf-8", "replace") if spans else text

    def event(self, event: _E) -> _E:
        """`event` (any msgspec struct) without any known value in its strings;
        the same object if it has none.

        Fields with a fixed vocabulary, keys and numbers are not searched: the engine makes them.
        """
        if not self._among(_encoder.encode(event)):
            return event
        cleaned: _E = self._cleaned(event)
        return cleaned

    def envelopes(self, envelopes: list[Envelope]) -> list[Envelope]:
        """The envelopes with their events redacted.

        All are encoded and searched together, and one by one only if a value was found.
        """
        if not self._among(_encoder.encode_lines([envelope.event for envelope in envelopes])):
            return envelopes
        return [
            msgspec.structs.replace(envelope, event=self.event(envelope.event))
            for envelope in envelopes
        ]

    def stream(self) -> StreamRedactor:
        """A redactor for bytes in pieces. Values that are added here later count there too."""
        return StreamRedactor(self)

    def _among(self, encoded: bytes) -> bool:
        """Whether a value may stand in encoded events. A fast search decides for nearly all."""
        if not self._known:
            return False
        if simple_json(encoded):
            if self._json.among(encoded):
                return True
            return among_simple(encoded, self._base64, self._hex)
        for _ in range(_LAYERS + 1):
            if self._in_layer(encoded):
                return True
            if not has_escapes(encoded):
                return False
            encoded = unescaped(encoded)
        return False

    def _in_layer(self, text: bytes) -> bool:
        if self._plain.among(text) or base64_spans(text, self._base64):
            return True
        return bool(hex_spans(text, self._hex))

    def _found(self, text: bytes, *, final: bool) -> tuple[list[Span], int]:
        """The spans of values, in order and merged where they overlap, and the position from which
        the rest could grow into a value; with `final` that is the end.
        """
        spans: list[Span] = []
        opened = len(text)
        layers: list[Reading] = []
        data = text
        for _ in range(_LAYERS + 1):
            found, begun = self._layer(data, final=final)
            whole = len(data) if final else open_escape(data)
            begun = min(begun, whole)
            for layer in reversed(layers):
                found = [layer.source_span(span) for span in found]
                begun = layer.source_start(begun) if begun < len(layer.data) else opened
            spans += found
            opened = min(opened, begun)
            if not has_escapes(data):
                break
            layers.append(escapes_undone(data[:whole]))
            if layers[-1].data == data:
                break
            data = layers[-1].data
        return _merged(spans), opened

    def _layer(self, text: bytes, *, final: bool) -> tuple[list[Span], int]:
        """As `_found`, for values without escapes in them."""
        digits = hex_spans(text, self._hex)
        spans = self._plain.spans(text) + base64_spans(text, self._base64) + digits
        if final:
            return spans, len(text)
        in_base64 = base64_open(text, self._base64)
        in_hex = hex_open(text, self._hex, digits)
        return spans, min(self._plain.open_end(text), in_base64, in_hex)

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
        if not self._redactor._known:
            return data
        return self._show(self._kept + data, final=False)

    def end(self) -> bytes:
        """The bytes that were held back, at the end of the stream."""
        return self._show(self._kept, final=True)

    def _show(self, buffer: bytes, *, final: bool) -> bytes:
        spans, opened = self._redactor._found(buffer, final=final)
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


def _before_escape(buffer: bytes, at: int) -> int:
    """The last position up to `at` outside of a row of backslashes, or in a very long row."""
    before = buffer[max(0, at - _CONTEXT) : at]
    return at - len(before) + len(before.rstrip(b"\\"))


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


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


def _in_json(form: bytes) -> bytes:
    """The form in the encoding of an event."""
    return _encoder.encode(form.decode("utf-8", "replace"))[1:-1]


def _raw(text: str) -> bytes:
    """The bytes that a program prints for a value from the environment."""
    return text.encode("utf-8", "surrogateescape")


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
