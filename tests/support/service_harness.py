"""An environment for recipes without the sandbox: plain processes of an unprivileged user,
with the recipe's folders at their own paths.

Each command gets a user and a mount namespace in which DATA,
PRIVATE and the run folder are bind mounts; works as root and as an ordinary user.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
from anyio.abc import ByteStream, Process

from cleanroom.services.base import DATA, PRIVATE, Recipe, run_folder
from cleanroom.services.probe import is_ready
from cleanroom.services.templates import TemplateCache

ENTER = """
set -eu
mount -t tmpfs -o size=1m,mode=755 none /var && mount -t tmpfs -o size=1m,mode=755 none /run
mkdir -p {data} {private} {run}
mount --bind {host}/data {data} &&
mount --bind {host}/private {private} &&
mount --bind {host}/run {run}
cd "$1"; shift
exec setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all "$@"
"""
UNSHARE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--keep-caps", "--mount")


def namespaces_work() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    )


class Plain:
    """What `probe.is_ready` and a supervisor need of an environment."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder, self.output = recipe, folder, b""
        for name in ("data", "private", "run"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        for name, text in recipe.files.items():
            path = folder / "private" / name
            path.touch(mode=0o600)
            path.write_text(text)

    async def exec(
        self,
        argv: Sequence[str],
        *,
        on_output: Callable[[Any, bytes], None],
        timeout_seconds: float | None = None,
    ) -> Any:
        with anyio.fail_after(timeout_seconds):
            result = await anyio.run_process(
                self.inside(argv),
                env=self.recipe.variables,
                stderr=subprocess.STDOUT,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        on_output("stdout", result.stdout)
        return SimpleNamespace(exit_code=result.returncode)

    async def dial(self, to: str) -> ByteStream:
        kind, _, rest = to.partition(":")
        if kind == "tcp":
            return await anyio.connect_tcp("127.0.0.1", int(rest))
        return await anyio.connect_unix(str(self.socket(to)))

    def socket(self, to: str) -> Path:
        return (
            self.folder
            / "run"
            / Path(to.removeprefix("unix:")).relative_to(run_folder(self.recipe.name))
        )

    def inside(self, argv: Sequence[str]) -> list[str]:
        script = ENTER.format(
            data=DATA, private=PRIVATE, run=run_folder(self.recipe.name), host=self.folder
        )
        return [*UNSHARE, "sh", "-c", script, "enter", self.recipe.working_directory, *argv]

    async def run(self, argv: Sequence[str]) -> tuple[int, str]:
        pieces: list[bytes] = []
        result = await self.exec(
            argv, on_output=lambda _stream, data: pieces.append(data), timeout_seconds=60
        )
        return result.exit_code, b"".join(pieces).decode()


@asynccontextmanager
async def environment(recipe: Recipe) -> AsyncIterator[Plain]:
    """The folders of one environment; nothing runs in it yet."""
    folder = Path(tempfile.mkdtemp(prefix="svc-"))  # short: a socket's path has at most 107 bytes
    try:
        yield Plain(recipe, folder)
    finally:
        shutil.rmtree(folder)


def begin_with(template: Path | None, data: Path) -> None:
    """A copy in the place of the overlay that the embedded backend mounts."""
    assert template is not None
    shutil.copytree(template, data, symlinks=True, dirs_exist_ok=True)
    owner = template.stat()
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


@asynccontextmanager
async def running(recipe: Recipe, cache: TemplateCache) -> AsyncIterator[Plain]:
    """The service, ready and personalised, as the supervisor does it."""
    async with environment(recipe) as plain:
        if recipe.template_key:
            await template(recipe, cache)
            begin_with(cache.lookup(recipe.template_key), plain.folder / "data")
        async with serving(plain) as process, anyio.create_task_group() as tasks:
            tasks.start_soon(_collect, plain, process)
            await ready(plain, process)
            yield plain
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def serving(plain: Plain) -> AsyncIterator[Process]:
    process = await anyio.open_process(
        plain.inside(plain.recipe.main),
        env=plain.recipe.variables,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(plain.recipe.stop_signal)
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(10):
                await process.wait()
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            await process.aclose()


async def ready(plain: Plain, process: Process) -> None:
    with anyio.fail_after(30):
        while not await is_ready(
            plain.recipe.first_probe or plain.recipe.probe, plain, plain.output
        ):
            assert process.returncode is None, plain.output.decode()
            await anyio.lowlevel.checkpoint()


async def template(recipe: Recipe, cache: TemplateCache) -> None:
    """Build the recipe's template unless the cache has it."""
    if cache.lookup(recipe.template_key) is not None:
        return
    async with environment(recipe) as plain:
        with cache.building(recipe.template_key) as folder:
            assert folder is not None
            (plain.folder / "data").rmdir()
            (plain.folder / "data").symlink_to(folder)
            for argv in recipe.prepare:
                code, output = await plain.run(argv)
                if code:
                    raise RuntimeError(output)


async def _collect(plain: Plain, process: Process) -> None:
    assert process.stdout is not None
    async for piece in process.stdout:
        plain.output += piece
