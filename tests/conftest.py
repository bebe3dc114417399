"""For the tests of every room. This folder is on the import path because this file is in it, so `run_story` and `golden_files` can be imported."""

from __future__ import annotations

import asyncio

from hypothesis import settings

# In a plain test looptime asks for the thread's event loop, which on Python 3.11 makes one that nobody closes; its warning then fails whatever test
# the garbage collector runs in. With the loop set to none it is not made.
asyncio.set_event_loop(None)

# No test asserts wall time: on a busy machine an example may take long, and is no wrong one for it.
settings.register_profile("cleanroom", deadline=None)
settings.load_profile("cleanroom")
