"""Files of megabytes that take no longer to read than their size says."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cleanroom.dependencies import golang, python_projects, requirements

SIZE = 400_000
READERS: dict[str, Callable[[], object]] = {
    "go.work of empty lines": lambda: golang.uses(b"\n" * SIZE),
    "go.work of open blocks": lambda: golang.uses(b"use(\n" * (SIZE // 5)),
    "go.mod of empty lines": lambda: golang._REQUIRES.search("\n" * SIZE),
    "requirement": lambda: requirements.parse("r", {"r": b"a" + b" " * SIZE + b"b"}),
    "extras": lambda: requirements.parse("r", {"r": b"a" + b" " * SIZE + b"["}),
    "pinned": lambda: requirements.Entry("a" + " " * SIZE + "b", ("sha256:0",)).pinned,
    "project": lambda: python_projects._is_requirement("a" + " " * SIZE + "b"),
    "option": lambda: requirements.parse("r", {"r": b"--" + b"a" * SIZE + b"\x01"}),
}


@pytest.mark.parametrize("reader", READERS)
def test_time_grows_with_size_alone(reader: str):
    """Quadratic readers took minutes for these."""
    began = time.process_time()
    READERS[reader]()
    assert time.process_time() - began < 10
