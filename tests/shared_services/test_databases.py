"""Names of the databases of a pool's runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from cleanroom.core.redaction import Redactor
from cleanroom.engine.shared_services.databases import Databases
from cleanroom.services.postgres import NAME, RESERVED_NAME


def test_no_run_can_tell_the_name_of_the_next_ones_database():
    """One whose role may make databases would make it first, and the next run would have none."""
    context = cast("Any", SimpleNamespace(redactor=Redactor()))
    names = {Databases(cast("Any", None), context)._new()[0] for _ in range(2)}

    assert len(names) == 2
    for name in names:
        assert NAME.fullmatch(name)
        assert RESERVED_NAME.fullmatch(name)
