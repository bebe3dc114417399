"""The scripts of `.ci` that set a machine up, with stand-ins for what they would install and
start.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.paths import ROOT

CI = ROOT / ".ci"

# dpkg-query answers from files, apt-get says what it was asked for,
# and `install` writes those files unless BROKEN is set.
DPKG_QUERY = """#!/bin/sh
for name; do :; done
cat "$PACKAGES/$name" 2>/dev/null && exit
echo "dpkg-query: no packages found matching $name" >&2
exit 1
"""
APT_GET = """#!/bin/sh
echo "apt-get $*" >> "$PACKAGES/.log"
case "$*" in
  *" install "*) [ "$BROKEN" ] || for name; do printf 'installed ' > "$PACKAGES/$name"; done;;
esac
"""
STAND_INS = {
    "dpkg-query": DPKG_QUERY,
    "apt-get": APT_GET,
    "dpkg": "#!/bin/sh\n",
    "id": '#!/bin/sh\necho "$USER_ID"\n',
}


class Machine:
    """One whose packages are files, each with the package's status."""

    def __init__(self, folder: Path, **statuses: str) -> None:
        self._programs, self._packages = folder / "programs", folder / "packages"
        self._programs.mkdir()
        self._packages.mkdir()
        for name, text in STAND_INS.items():
            (self._programs / name).write_text(text)
            (self._programs / name).chmod(0o755)
        for name, status in statuses.items():
            (self._packages / name).write_text(f"{status} ")

    def ask(
        self, *names: str, user: int = 0, broken: bool = False
    ) -> subprocess.CompletedProcess[str]:
        variables = {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "PACKAGES": str(self._packages),
            "USER_ID": str(user),
            "BROKEN": "1" if broken else "",
        }
        return subprocess.run(
            [CI / "packages", *names], env=variables, capture_output=True, text=True
        )

    @property
    def installed(self) -> list[str]:
        """What apt-get was asked to install, in all."""
        log = self._packages / ".log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [
            word
            for line in lines
            if " install " in line
            for word in line.partition(" install ")[2].split()
        ]


@pytest.mark.parametrize(
    ("there", "lacking"),
    [
        ({}, ["one", "two"]),
        ({"one": "installed"}, ["two"]),
        ({"one": "config-files", "two": "installed"}, ["one"]),
        ({"one": "half-configured", "two": "not-installed"}, ["one", "two"]),
        ({"one": "installed", "two": "installed"}, []),
    ],
    ids=["none", "some", "removed", "half set up", "all"],
)
def test_what_is_not_there_whole_is_installed(
    tmp_path: Path, there: dict[str, str], lacking: list[str]
):
    """Each package is looked up by itself: on a machine that never had any of them all are
    installed.
    """
    machine = Machine(tmp_path, **there)
    done = machine.ask("one", "two")
    assert (done.returncode, machine.installed) == (0, lacking), done.stderr


def test_a_package_that_is_missing_still_is_named(tmp_path: Path):
    """Whatever apt-get's exit status said."""
    done = Machine(tmp_path, one="installed").ask("one", "two", broken=True)
    assert (done.returncode, done.stderr) == (5, "still missing after apt-get: two\n")


def test_an_ordinary_user_is_told_what_root_would_install(tmp_path: Path):
    """In one line to paste, and nothing is tried."""
    machine = Machine(tmp_path, one="installed")
    done = machine.ask("one", "two", "three", user=1000)
    assert (done.returncode, machine.installed) == (5, [])
    assert "apt-get install --no-install-recommends two three" in done.stderr


def daemon(log: Path, probe: str, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CI / "daemon", "thing", log, probe, *command], capture_output=True, text=True
    )


def test_a_daemon_that_ends_shows_its_log(tmp_path: Path):
    """Named, with its last lines, as soon as it has ended."""
    log = tmp_path / "log"
    done = daemon(log, "false", "sh", "-c", "echo the disk is gone; exit 1")
    assert done.returncode == 5
    assert done.stderr == f"thing did not come up; the last lines of {log}:\nthe disk is gone\n"


def test_a_daemon_ignores_no_signal(tmp_path: Path):
    """Though its caller was started in the background of a shell, and ignores SIGINT:
    every container would too.
    """
    log, up = tmp_path / "log", tmp_path / "up"
    words = [
        CI / "daemon",
        "thing",
        log,
        f"test -e {up}",
        "sh",
        "-c",
        f"grep SigIgn: /proc/self/status; : > {up}; exec sleep 60",
    ]
    done = subprocess.run(
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    os.kill(int(done.stdout.split("kill ")[1].split(",")[0]), signal.SIGKILL)
    ignored = int(log.read_text().split()[1], 16)
    assert not ignored >> (signal.SIGINT - 1) & 1
