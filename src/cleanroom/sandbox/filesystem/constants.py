"""Names and numbers that are the same in every environment with a view of its own.

Wardens and init need these and nothing else of `mount_plan`.
"""

from __future__ import annotations

# The ordinary user inside.
USER, USER_ID = "cleanroom", 1000
HOME = f"/home/{USER}"
# From level Medium on these are mounted without the right to start programs.
NO_EXEC_FOLDERS = ("/dev/shm",)
