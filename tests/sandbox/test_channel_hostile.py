"""Messages of a peer that is none of ours."""

from __future__ import annotations

import array
import os
import socket

import pytest

from cleanroom.sandbox import channel


@pytest.mark.parametrize("body", [b"\xff", b"{{", b"[1]", b"1", b"null", b"[" * 100_000])
def test_what_is_no_message_is_refused_and_its_descriptors_are_closed(body: bytes):
    """Each left its descriptors open, and some ended the paused run that received them."""
    ours, theirs = channel.pair()
    reading, writing = os.pipe()
    with ours, theirs:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing]))
        theirs.sendmsg([body], [rights])
        os.close(writing)
        with pytest.raises(ValueError, match=r"."):
            channel.receive(ours)

    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""
    os.close(reading)
