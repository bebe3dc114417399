"""Which backends a name stands for, and what is said of one that stands for none."""

from __future__ import annotations

import pytest

from cleanroom.backends import registry
from cleanroom.model.errors import CleanroomError, Exit


@pytest.mark.parametrize(
    ("name", "platform", "code", "status"),
    [
        ("kubernetes", "linux", "CR-BACKEND-001", Exit.REFUSED),
        ("dokcer", "linux", "CR-BACKEND-002", Exit.USAGE),
        ("embedded", "darwin", "CR-BACKEND-003", Exit.REFUSED),
    ],
)
def test_a_backend_that_cannot_be_is_refused_by_name(
    name: str, platform: str, code: str, status: Exit, monkeypatch: pytest.MonkeyPatch
):
    """Not there yet, not there at all, or not on this system."""
    monkeypatch.setattr("sys.platform", platform)
    with pytest.raises(CleanroomError, match=name) as caught:
        registry.candidates(name)
    assert (caught.value.code, caught.value.exit) == (code, status)
