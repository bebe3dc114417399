"""The search for known secrets in a text, in every form in which programs print them.

Loaded when there is a first secret: `redaction` decides what is one, and replaces what is found.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cleanroom.core.encodings.base64_text import base64_forms, base64_open, base64_spans
from cleanroom.core.encodings.escapes import escapes_undone, has_escapes, open_escape, unescaped
from cleanroom.core.encodings.forms import parts, plain_forms
from cleanroom.core.encodings.hex_digits import hex_forms, hex_open, hex_spans
from cleanroom.core.encodings.needles import Needles, Span
from cleanroom.core.encodings.reading import Reading
from cleanroom.core.encodings.simple_json import among_simple, simple_json

_LAYERS = 3  # escapes within escapes: JSON in a string of JSON, in an address

_encoder = msgspec.json.Encoder()


class SecretSearch:
    """Searches for values that were added."""

    def __init__(self) -> None:
        self._plain, self._base64, self._hex = Needles(), Needles(), Needles()
        self._json = Needles()  # the plain ones as they stand in the encoding of an event

    def add(self, value: str, is_secret: Callable[[str], bool]) -> None:
        """Search for this value too, and for those of its parts that are secrets of their own."""
        for part in parts(_raw(value)):
            if is_secret(part.decode("utf-8", "replace")):
                forms = plain_forms(part)
                self._plain.add(forms)
                self._json.add(map(_in_json, forms))
                self._base64.add(base64_forms(part))
                self._hex.add(hex_forms(part))

    def among(self, encoded: bytes) -> bool:
        """Whether a value may stand in encoded events. A fast search decides for nearly all."""
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

    def found(self, text: bytes, *, final: bool) -> tuple[list[Span], int]:
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

    def _in_layer(self, text: bytes) -> bool:
        if self._plain.among(text) or base64_spans(text, self._base64):
            return True
        return bool(hex_spans(text, self._hex))

    def _layer(self, text: bytes, *, final: bool) -> tuple[list[Span], int]:
        """As `found`, for values without escapes in them."""
        digits = hex_spans(text, self._hex)
        spans = self._plain.spans(text) + base64_spans(text, self._base64) + digits
        if final:
            return spans, len(text)
        in_base64 = base64_open(text, self._base64)
        in_hex = hex_open(text, self._hex, digits)
        return spans, min(self._plain.open_end(text), in_base64, in_hex)


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _in_json(form: bytes) -> bytes:
    """The form in the encoding of an event."""
    return _encoder.encode(form.decode("utf-8", "replace"))[1:-1]


def _raw(text: str) -> bytes:
    """The bytes that a program prints for a value from the environment."""
    return text.encode("utf-8", "surrogateescape")
