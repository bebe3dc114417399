"""A container engine of a test's own, to be restarted, filled up and starved:
in network and mount namespaces of its own, with its own folders, socket and bridge.

The one that others use meanwhile is not touched.
Its containers are processes of this machine as ever, which is what wardens need.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

from cleanroom.backends.containers.client import VARIABLES, EngineName
from cleanroom.sandbox.processes import container_cleanup
from support.required_tools import require_or_skip

IMAGE = "faults/tiny:1"
PROGRAMS = ("sh", "sleep", "true", "cat")
UP_SECONDS = 60.0
# $1 is the folder, $2 the size of a small disk for its images or nothing. dockerd's bridge needs
# two addresses, so its one pool has none left for a network.
PREPARE = """
ip link set lo up
if [ -n "$2" ]; then mount -t tmpfs -o size="$2" tmpfs "$1/data"; fi
cd /
"""
START: dict[EngineName, str] = {
    "docker": """exec dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" -H "unix://$1/engine.sock" --default-address-pool base=10.203.0.0/30,size=30""",  # noqa: E501
    # Its locks lie in /dev/shm under a name that all share,
    # and one that starts with a new folder frees them.
    "podman": """mount -t tmpfs tmpfs /dev/shm
exec podman --root "$1/data" --runroot "$1/exec" --tmpdir "$1/exec/tmp" system service --time=0 "unix://$1/engine.sock\"""",
}


class OwnEngine:
    """Made by `own_engine`."""

    def __init__(self, engine: EngineName, folder: Path, disk: str = "") -> None:
        self._engine = engine
        self.folder = folder
        self.socket = str(folder / "engine.sock")
        self._disk = disk
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def caller(self) -> dict[str, str]:
        """What leads the command under test here."""
        return {VARIABLES[self._engine]: f"unix://{self.socket}"}

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            words = [
                "unshare",
                "--mount",
                "--net",
                "--propagation",
                "slave",
                "sh",
                "-ec",
                PREPARE + START[self._engine],
                "sh",
                str(self.folder),
                self._disk,
            ]
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + UP_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if container_cleanup.call(self.socket, "GET", "/_ping")[0] == 200:
                    return
            time.sleep(0.05)  # polling for what another process does
        raise OSError(f"it did not come up: {(self.folder / 'log').read_text()[-1000:]}")

    def stop(self) -> None:
        """As a service manager does: Docker's containers end with it, Podman's do not."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=UP_SECONDS)
            self._process = None

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run something where it is."""
        assert self._process is not None
        where = ["nsenter", f"--target={self._process.pid}", "--mount", "--net", *words]
        return subprocess.run(where, capture_output=True, text=True, timeout=UP_SECONDS)

    def ask(self, *words: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """By its own command."""
        there = {"docker": ["docker", "-H"], "podman": ["podman", "--remote", "--url"]}[
            self._engine
        ]
        return subprocess.run(
            [*there, f"unix://{self.socket}", *words],
            input=given,
            capture_output=True,
            timeout=UP_SECONDS,
        )

    def containers(self) -> list[str]:
        """Names of all, whoever made them."""
        status, rows = container_cleanup.call(self.socket, "GET", "/containers/json?all=true")
        assert status == 200, rows
        return [row["Names"][0] for row in rows]


@contextlib.contextmanager
def own_engine(engine: EngineName, folder: Path, *, disk: str = "") -> Iterator[OwnEngine]:
    """One that runs and has the image `IMAGE`.

    `disk`: the size of a file system of its own for images and containers, such as "64m".

    Skips, or fails where it is required, if there can be none.
    """
    for name in ("data", "exec"):
        (folder / name).mkdir(parents=True)
    made = OwnEngine(engine, folder, disk)
    try:
        made.start()
        loaded = made.ask("import", "--change", "ENV PATH=/usr/bin", "-", IMAGE, given=_tiny())
    except OSError as error:
        _clear(made)
        require_or_skip(engine, f"no {engine} of one's own: {error}")
    try:
        assert loaded.returncode == 0, loaded.stderr
        yield made
    finally:
        _clear(made)


def _clear(made: OwnEngine) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        made.stop()
    # its mounts were in its own namespace, which has ended
    shutil.rmtree(made.folder, ignore_errors=True)


def _tiny() -> bytes:
    """A few of this machine's programs with their libraries, as a file system."""
    wanted: dict[str, Path] = {}
    for program in PROGRAMS:
        place = Path(shutil.which(program) or program).resolve()
        wanted[f"usr/bin/{program}"] = place
        for word in subprocess.run(
            ["ldd", str(place)], capture_output=True, text=True, check=True
        ).stdout.split():
            if word.startswith("/"):
                wanted[word.lstrip("/")] = Path(word).resolve()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in ("tmp", "var/tmp", "home", "root", "run", "etc"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        shell = tarfile.TarInfo("bin")
        shell.type, shell.linkname = tarfile.SYMTYPE, "usr/bin"
        tar.addfile(shell)
        for name, place in wanted.items():
            tar.add(place, name)
    return packed.getvalue()
