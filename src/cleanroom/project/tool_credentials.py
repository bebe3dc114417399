"""Files with credentials that lie in the installations of the caller's programs.

Package managers keep a configuration beside themselves too: `npm config set --global` writes
`etc/npmrc` of the Node that is used, pip reads `pip.conf` of its environment.
Where such a file names a credential, phases that are shown the installation see it empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cleanroom.core.files import is_file
from cleanroom.core.paths import is_within

_NAMES = ("etc/npmrc", "pip.conf", ".condarc", "etc/conda/.condarc")
# Where the installations lie in the folder of a manager that has several versions.
_VERSIONS = (
    "",
    "versions/*",  # pyenv, nodenv
    "versions/node/*",  # nvm
    "installs/*/*",  # asdf, mise
    "node-versions/*/installation",  # fnm
    "tools/image/node/*",  # volta
    "venvs/*",  # pipx
    "*",  # uv's interpreters and tools
    "envs/*",  # conda
)
_CREDENTIAL = re.compile(r"(?i)_auth|_password|token|password|://[^/\s]*@|/t/[\w-]+")
_BYTES_MAX = 65536


def credential_files(tools: Iterable[str]) -> tuple[str, ...]:
    """The files in these folders that name a credential, links resolved."""
    shown = tuple(tools)
    found = {
        os.path.realpath(path)
        for tool in shown
        for path in _candidates(Path(tool))
        if _names_credential(path)
    }
    return tuple(sorted(path for path in found if any(is_within(path, tool) for tool in shown)))


def _candidates(tool: Path) -> Iterator[Path]:
    for versions in _VERSIONS:
        for installation in tool.glob(versions) if versions else (tool,):
            yield from (installation / name for name in _NAMES)


def _names_credential(path: Path) -> bool:
    """Whether there is one, or nobody can tell."""
    if not is_file(path):
        return False
    try:
        with path.open("rb") as file:
            text = file.read(_BYTES_MAX + 1)
    except OSError:
        return True
    return len(text) > _BYTES_MAX or bool(_CREDENTIAL.search(text.decode(errors="replace")))
