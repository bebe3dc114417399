"""Where git may follow a redirect, with a login and behind a proxy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cleanroom.dependencies.git_sources import GitSource, fetching, resolving
from cleanroom.dependencies.session import ToolRun

URL = "https://git.example/a.git"
LOGIN = {"Authorization": "Basic bWU6c2VjcmV0"}
OPTION = "-c http.followRedirects=false "


def asked(folder: Path, tool: ToolRun, **variables: str) -> list[str]:
    """The words of each git that the tool starts."""
    program = folder / "git"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\necho commit\n')
    program.chmod(0o755)
    (folder / "repository").mkdir()
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", **variables}
    subprocess.run(tool.argv, cwd=folder, env=environment, check=True)
    return (folder / "asked").read_text().splitlines()


@pytest.mark.parametrize(
    "tool", [resolving(URL, "HEAD", LOGIN), fetching(GitSource(URL, "0" * 40), LOGIN)]
)
def test_no_redirect_is_followed_with_a_login_behind_a_proxy(tmp_path: Path, tool: ToolRun):
    """git sends it to the host that it is redirected to, and a proxy reaches every host."""
    said = asked(tmp_path, tool, HTTPS_PROXY="http://proxy.example:3128")
    assert [line.startswith(OPTION) for line in said] == [True] * len(said)


@pytest.mark.parametrize(
    ("headers", "proxy"), [({}, "http://proxy.example:3128"), (LOGIN, "")], ids=["none", "direct"]
)
def test_without_one_of_them_a_redirect_is_followed(
    tmp_path: Path, headers: dict[str, str], proxy: str
):
    """There is nothing to send, or the environment reaches one host alone."""
    (said,) = asked(tmp_path, resolving(URL, "HEAD", headers), HTTPS_PROXY=proxy)
    assert OPTION not in said
