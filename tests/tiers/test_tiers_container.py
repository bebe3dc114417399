"""In an ordinary container: Debian's packages, Docker's default profile, no added capability;
as root and as an ordinary user.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from support import container_harness
from support.paths import ROOT

pytestmark = [pytest.mark.lower, pytest.mark.slow]

PROJECT = (
    '[project]\nname = "boxed"\n[lifecycle.test]\n'
    'command = "echo made > made; test $(id -u) != 0"\n'
)
# The image's own Python, with this tree and its libraries shown to it.
ENGINE = """
cp -r /given /tmp/project; cd /tmp/project; export HOME=/tmp/home; mkdir -p $HOME
python3 -m cleanroom doctor >&2
python3 -m cleanroom pipeline test "$@" --output json; status=$?
test ! -e made || test "$(cat made)" = made || exit 99
ls -d /tmp/cleanroom-* /var/tmp/cleanroom-* >&2 2>/dev/null && exit 98
exit $status
"""


def boxed(
    tmp_path: Path, user: str, *arguments: str, flags: tuple[str, ...] = ()
) -> tuple[int, dict[str, object], str]:
    """A run of the engine in a container: its status, its result, and what it said."""
    container_harness.require("docker")
    given = tmp_path / "given"
    given.mkdir()
    (given / "make.toml").write_text(PROJECT)
    given.chmod(0o755)
    libraries = sysconfig.get_paths()["purelib"]
    words = [
        "docker",
        "run",
        "--rm",
        "--user",
        user,
        *flags,
        "-e",
        f"PYTHONPATH={ROOT}/src:{libraries}",
    ]
    for folder in dict.fromkeys((str(ROOT / "src"), libraries, str(given) + ":/given")):
        words += ["-v", f"{folder if ':' in folder else f'{folder}:{folder}'}:ro"]
    done = subprocess.run(
        [*words, container_harness.IMAGE, "sh", "-c", ENGINE, "sh", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return (
        done.returncode,
        json.loads(done.stdout) if done.stdout.startswith("{") else {},
        done.stderr,
    )


@pytest.mark.parametrize("user", ["0", "1234:1234"], ids=["root", "user"])
def test_medium_is_held_in_an_unprivileged_container(tmp_path: Path, user: str):
    """The run passes, says E3, every canary was stopped, its change came back,
    and nothing is left in the container.
    """
    status, result, said = boxed(tmp_path, user)
    assert status == 0, said
    assert (result["outcome"], result["tier"], result["degraded"]) == ("passed", "E3", [])
    assert {canary["result"] for canary in result["canaries"]} == {"passed"}  # type: ignore[attr-defined]
    assert "tier E3" in said


def test_high_is_refused_by_name_in_an_unprivileged_container(tmp_path: Path):
    """What needs namespaces is named, with exit 3."""
    status, _, said = boxed(tmp_path, "0", "--policy", "High")
    assert status == 3
    assert "filesystem.reads" in said


def test_root_that_may_not_become_somebody_else_is_refused_by_name(tmp_path: Path):
    """Without any capability root stays root, which no level allows."""
    status, _, said = boxed(tmp_path, "0", flags=("--cap-drop", "ALL"))
    assert status == 3
    assert "process.privileges" in said
