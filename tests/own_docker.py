"""A dockerd of a test's own, to be restarted, filled up and starved: in network and mount namespaces of its own, with its own folders, socket and bridge.

The daemon that others use meanwhile is not touched. Its containers are processes of this machine as ever, which is what wardens need.
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

from cleanroom.sandbox import container_ends
from real_tools import require_or_skip

IMAGE = "faults/tiny:1"
PROGRAMS = ("sh", "sleep", "true", "cat")
UP_SECONDS = 60.0
# $1 is the folder, $2 the size of a small disk for its images or nothing. Its bridge needs two addresses, so the one pool has none left for a network.
START = """
ip link set lo up
if [ -n "$2" ]; then mount -t tmpfs -o size="$2" tmpfs "$1/data"; fi
cd / && exec dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" -H "unix://$1/engine.sock" --default-address-pool base=10.203.0.0/30,size=30
"""


class OwnDocker:
    """Made by `own_docker`."""

    def __init__(self, folder: Path, disk: str = "") -> None:
        self.folder = folder
        self.socket = str(folder / "engine.sock")
        self._disk = disk
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def caller(self) -> dict[str, str]:
        """What leads the command under test here."""
        return {"DOCKER_HOST": f"unix://{self.socket}"}

    def start(self) -> None:
        """Returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            words = ["unshare", "--mount", "--net", "--propagation", "slave", "sh", "-ec", START, "sh", str(self.folder), self._disk]
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + UP_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError):
                if container_ends.call(self.socket, "GET", "/_ping")[0] == 200:
                    return
            time.sleep(0.05)  # polling for what another process does
        raise OSError(f"dockerd did not come up: {(self.folder / 'log').read_text()[-1000:]}")

    def stop(self) -> None:
        """As a service manager does: its containers end with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=UP_SECONDS)
            self._process = None

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run something where it is."""
        assert self._process is not None
        where = ["nsenter", f"--target={self._process.pid}", "--mount", "--net", *words]
        return subprocess.run(where, capture_output=True, text=True, timeout=UP_SECONDS)

    def docker(self, *words: str, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["docker", "-H", f"unix://{self.socket}", *words], input=given, capture_output=True, timeout=UP_SECONDS)

    def containers(self) -> list[str]:
        """Names of all, whoever made them."""
        status, rows = container_ends.call(self.socket, "GET", "/containers/json?all=true")
        assert status == 200, rows
        return [row["Names"][0] for row in rows]


@contextlib.contextmanager
def own_docker(folder: Path, *, disk: str = "") -> Iterator[OwnDocker]:
    """One that runs and has the image `IMAGE`. `disk`: the size of a file system of its own for images and containers, such as "64m".

    Skips, or fails where docker is required, if there can be none.
    """
    for name in ("data", "exec"):
        (folder / name).mkdir(parents=True)
    made = OwnDocker(folder, disk)
    try:
        made.start()
        loaded = made.docker("import", "--change", "ENV PATH=/usr/bin", "-", IMAGE, given=_tiny())
    except OSError as error:
        _clear(made)
        require_or_skip("docker", f"no dockerd of one's own: {error}")
    try:
        assert loaded.returncode == 0, loaded.stderr
        yield made
    finally:
        _clear(made)


def _clear(made: OwnDocker) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        made.stop()
    shutil.rmtree(made.folder, ignore_errors=True)  # its mounts were in its own namespace, which has ended


def _tiny() -> bytes:
    """A few of this machine's programs with their libraries, as a file system."""
    wanted: dict[str, Path] = {}
    for program in PROGRAMS:
        place = Path(shutil.which(program) or program).resolve()
        wanted[f"usr/bin/{program}"] = place
        for word in subprocess.run(["ldd", str(place)], capture_output=True, text=True, check=True).stdout.split():
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
