"""What is written into the memory of a caller."""

from __future__ import annotations

import ctypes
import os

import pytest

from cleanroom.sandbox.kernel.caller import BadAddress, Caller

pytestmark = pytest.mark.sandbox


def test_memory_is_written_only_while_the_call_is_held():
    """A caller that was killed meanwhile leaves its number to any other process of the host."""
    memory = ctypes.create_string_buffer(b"before")
    address = ctypes.addressof(memory)
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(BadAddress):
            Caller(os.getpid(), proc, lambda: False).write(address, b"others")
        assert memory.value == b"before"
        Caller(os.getpid(), proc, lambda: True).write(address, b"answer")
        assert memory.value == b"answer"
    finally:
        os.close(proc)
