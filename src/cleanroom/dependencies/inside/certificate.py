"""A certificate for a server on the loopback that nobody verifies: of Python's own library alone.

A client that is led to the loopback by a proxy speaks TLS with the name that it wants. It is told
not to verify whom it speaks with: files are checked by their digests, and there is no network.
So key and certificate protect nothing, and are made anew for each server.
"""

from __future__ import annotations

import base64
import hashlib
import secrets

# The curve P-256 of FIPS 186: y^2 = x^3 - 3x + b over the integers modulo _P.
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_Point = tuple[int, int]
_BASE = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
_CURVE_ID = bytes.fromhex("06082a8648ce3d030107")  # prime256v1
_KEY_ID = bytes.fromhex("06072a8648ce3d0201")  # id-ecPublicKey
_SIGNATURE_ID = bytes.fromhex("06082a8648ce3d040302")  # ecdsa-with-SHA256
_COMMON_NAME_ID = bytes.fromhex("0603550403")
_SEQUENCE, _SET, _INTEGER, _BITS, _OCTETS, _TEXT, _TIME = 0x30, 0x31, 2, 3, 4, 12, 24
_FIRST, _SECOND = 0xA0, 0xA1  # explicit tags


def self_signed(name: str) -> str:
    """A private key and its certificate, as one PEM file."""
    private = 1 + secrets.randbelow(_ORDER - 1)
    x, y = _times(private, _BASE)
    public = b"\4" + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    algorithm = _der(_SEQUENCE, _SIGNATURE_ID)
    subject = _der(
        _SEQUENCE, _der(_SET, _der(_SEQUENCE, _COMMON_NAME_ID, _der(_TEXT, name.encode())))
    )
    times = (b"20000101000000Z", b"99991231235959Z")
    signed = _der(
        _SEQUENCE,
        _der(_FIRST, _integer(2)),
        _integer(1 + secrets.randbelow(1 << 64)),
        algorithm,
        subject,
        _der(_SEQUENCE, *(_der(_TIME, time) for time in times)),
        subject,
        _der(_SEQUENCE, _der(_SEQUENCE, _KEY_ID, _CURVE_ID), _bits(public)),
    )
    certificate = _der(_SEQUENCE, signed, algorithm, _bits(_signature(private, signed)))
    key = _der(
        _SEQUENCE,
        _integer(1),
        _der(_OCTETS, private.to_bytes(32, "big")),
        _der(_FIRST, _CURVE_ID),
        _der(_SECOND, _bits(public)),
    )
    return _pem("EC PRIVATE KEY", key) + _pem("CERTIFICATE", certificate)


def _signature(private: int, data: bytes) -> bytes:
    number = int.from_bytes(hashlib.sha256(data).digest(), "big")
    once = 1 + secrets.randbelow(_ORDER - 1)
    r = _times(once, _BASE)[0] % _ORDER
    s = pow(once, -1, _ORDER) * (number + r * private) % _ORDER
    return _der(_SEQUENCE, _integer(r), _integer(s))


def _times(number: int, point: _Point) -> _Point:
    """The point added to itself, by doubling; `number` is at least 1."""
    result: _Point | None = None
    while number:
        if number & 1:
            result = point if result is None else _plus(result, point)
        point = _plus(point, point)
        number >>= 1
    assert result is not None, "number is at least 1"
    return result


def _plus(one: _Point, other: _Point) -> _Point:
    if one == other:
        slope = 3 * (one[0] ** 2 - 1) * pow(2 * one[1], -1, _P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, _P)
    x = (slope * slope - one[0] - other[0]) % _P
    return x, (slope * (one[0] - x) - one[1]) % _P


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _integer(value: int) -> bytes:
    return _der(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _bits(content: bytes) -> bytes:
    return _der(_BITS, b"\0", content)


def _pem(kind: str, content: bytes) -> str:
    text = base64.encodebytes(content).decode()
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n"
