"""A real server for each test, from the pytest plugin: `pytest test_counter.py`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = Path(__file__).parent / "count.py"


@pytest.mark.parametrize("time", ["first", "second"])
def test_counting_begins_at_one(cleanroom_redis, time):
    """The server is empty for each test, so the count ends at three every time."""
    counted = subprocess.run(
        [sys.executable, COUNT],
        env={**os.environ, **cleanroom_redis.variables},
        capture_output=True,
        text=True,
    )
    assert counted.stdout.split()[-1] == ":3", counted.stderr


def test_pipeline(cleanroom):
    """The project's own phases pass, isolation proven."""
    result = cleanroom.pipeline("build", "test", project=COUNT.parent)
    assert result.outcome == "passed", result.error
    assert all(canary.result == "passed" for canary in result.canaries)
