"""For the tests of every room."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from cleanroom.sandbox.selftest import probe
from support import open_folders
from support.folder_permissions import allow_traversal

# Projects of strangers have tests of their own.
collect_ignore = ["fixtures"]

# In a plain test looptime asks for the thread's event loop,
# which on Python 3.11 makes one that nobody closes; its warning then fails whatever test
# the garbage collector runs in. With the loop set to none it is not made.
asyncio.set_event_loop(None)

# Who starts the tests may ignore signals, as a shell without job control does for what it starts in
# the background.
# Tests send them, and all that they start
# would ignore them too.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL
        )

# No test asserts wall time: on a busy machine an example may take long, and is no wrong one for it.
settings.register_profile("cleanroom", deadline=None)
settings.load_profile("cleanroom")


@pytest.fixture(autouse=True)
def _folders_are_closed() -> Iterator[None]:
    """No test leaves its folders open to the next one: some look at which numbers of descriptors
    are free.
    """
    yield
    open_folders.close_all()


@pytest.fixture
def open_tmp_path(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tmp_path`, which any user of the machine may enter."""
    allow_traversal(tmp_path, tmp_path_factory.getbasetemp())
    return tmp_path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where no namespaces can be made, what is marked as needing them is skipped;
    `lower` tests are for such machines too.
    """
    needing = [item for item in items if item.get_closest_marker("sandbox")]
    if not needing or sys.platform != "linux":
        return
    found = probe.report(os.path.join(tempfile.gettempdir(), f"cleanroom-probe-{os.getpid()}"))
    if found["mode"] == "bare":
        reason = f"needs namespaces, and this machine holds tier {found['tier']} without them"
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def own_folder() -> Iterator[Path]:
    """A folder of our own that nobody else may write, on the whole way to it."""
    home = Path.home().resolve()
    if any(folder.stat().st_mode & stat.S_IWOTH for folder in (home, *home.parents)):
        pytest.skip("the home lies below a folder that all may write")
    with tempfile.TemporaryDirectory(dir=home) as folder:
        yield Path(folder)
