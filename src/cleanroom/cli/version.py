"""What `--version` prints.

Imports nothing but the version, so that it costs no more than the interpreter.
"""

from __future__ import annotations

from cleanroom.core.version import __version__

VERSION_LINE = f"cleanroom-engine {__version__}\n"
