"""The probe that a keeper makes in a child of its own."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import os, socket
from cleanroom.sandbox.processes import keeper
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ours.close()
made = keeper.Keeper(theirs)
made._probe({scratch!r})
(child,) = made._probes
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_probe_whose_owner_has_ended_says_nothing(tmp_path):
    """A command that is refused at once leaves its keeper to look for nobody."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(scratch=str(tmp_path))],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )

    assert (done.stdout, done.stderr) == ("0\n", "")
