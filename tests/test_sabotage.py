"""What sabotage changes is there to be changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cleanroom
from support import sabotage


@pytest.mark.parametrize("function", sabotage.functions(), ids=lambda each: each.__name__)
def test_every_name_that_sabotage_changes_is_there(function: Callable[[], None]):
    """A renamed control fails here at once, and not in a canary that goes on passing."""
    source = str(Path(cleanroom.__file__).parents[1])
    text = f"import sys; sys.path.append({source!r}); {sabotage.code(function)}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
