"""The data of services: folders and files on the host, and prepared data from the cache."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from cleanroom.backends.base import Environment, Stream
from cleanroom.core.beneath import Folder
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.environments import EnvironmentObserver
from cleanroom.engine.supervision.output import OutputPump
from cleanroom.engine.supervision.service import OUTPUT_BYTES, Service
from cleanroom.engine.supervision.service_errors import prepare_failed, template_vanished
from cleanroom.engine.supervision.service_spec import prepare_spec, service_folder
from cleanroom.model.events import Note, Subject
from cleanroom.services import TemplateCache

PREPARE_SECONDS = 120.0  # initdb and the project's SQL


class ServiceData:
    """Makes, renews and removes the data of a run's services."""

    def __init__(
        self, context: RunContext, cache: TemplateCache, observer: EnvironmentObserver
    ) -> None:
        self._context = context
        self._bus = context.bus
        self._cache = cache
        self._observer = observer

    async def make(self, service: Service, pump: OutputPump) -> None:
        """Make the service's folders and files, and the template below its data.

        This happens once, so that a restarted service finds its state.

        Raises:
            ProjectError: a command that prepares the data failed.
            ServiceFailed: the prepared data cannot be kept.
        """
        if service.has_data:
            return
        recipe = service.recipe
        write_folders(service_folder(self._context, service), recipe.files)
        if recipe.template_key:
            template = await self._look_up(service)
            if template is None:
                if not await self._build_template(service, pump):
                    return
                template = await self._look_up(service)
            if template is None:
                raise template_vanished(service)
            service.template = str(template)
        service.has_data = True

    async def renew_damaged(self, service: Service) -> None:
        """Where a server that was never ready began with damaged data, let its next run begin with
        new data.
        """
        if not service.template or service.environment is not None:
            return
        if not await anyio.to_thread.run_sync(
            self._cache.drop_damaged, service.recipe.template_key
        ):
            return
        text = (
            f"the prepared data of service {service.recipe.name!r} was damaged in the cache; "
            "it is made anew"
        )
        self._bus.publish(
            Note(subject=service.subject, level="warning", text=text, code="CR-SERVICE-028")
        )
        folder = service_folder(self._context, service)
        await anyio.to_thread.run_sync((folder / "data").rename, folder / "damaged")
        service.has_data, service.template = False, ""

    async def remove(self, service: Service) -> None:
        """Remove the service's folder with all that is in it."""
        folder = service_folder(self._context, service)
        await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))

    async def _look_up(self, service: Service) -> Path | None:
        return await anyio.to_thread.run_sync(self._cache.lookup, service.recipe.template_key)

    async def _build_template(self, service: Service, pump: OutputPump) -> bool:
        """Prepare the cached data folder in an environment of its own.

        False where the backend runs nothing.
        """
        # Only the first run of a service builds one, and loading this takes 2 ms.
        from anyio.from_thread import check_cancelled

        recipe = service.recipe
        building = self._cache.building(recipe.template_key, waiting=check_cancelled)
        try:
            with self._bus.span(Subject("prepare", recipe.name)):
                async with in_thread(building) as folder:
                    if folder is not None:
                        await self._prepare(service, folder, pump)
        except _NothingRuns:
            return False
        return True

    async def _prepare(self, service: Service, folder: Path, pump: OutputPump) -> None:
        spec = prepare_spec(self._context, service, folder)
        async with self._observer.environment(spec, of=service.recipe.name) as observed:
            for argv in service.recipe.prepare:
                await self._run_prepare_step(service, observed.environment, argv, pump)

    async def _run_prepare_step(
        self, service: Service, environment: Environment, argv: Sequence[str], pump: OutputPump
    ) -> None:
        output = bytearray()

        def take_output(stream: Stream, data: bytes) -> None:
            pump.feed(stream, data)
            output.extend(data)
            del output[:-OUTPUT_BYTES]

        result = await environment.exec(
            argv, on_output=take_output, timeout_seconds=PREPARE_SECONDS
        )
        if not result.ran:
            raise _NothingRuns
        if result.exit_code:
            log_path = self._context.log_path(service.log)
            raise prepare_failed(service, result, PREPARE_SECONDS, output, log_path)


class _NothingRuns(Exception):
    """The backend has nothing that could run a command."""


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[Path | None]) -> AsyncIterator[Path | None]:
    """Enter and leave a blocking context manager in worker threads."""
    value = await anyio.to_thread.run_sync(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(
                manager.__exit__, type(error), error, error.__traceback__
            )
        raise
    await anyio.to_thread.run_sync(manager.__exit__, None, None, None)


def write_folders(folder: Path, files: Mapping[str, str]) -> None:
    """Make a service's folders and private files below `folder`."""
    with (
        Folder.at(folder.parent.parent) as around,
        around.folder(f"{folder.parent.name}/{folder.name}", make=True, mode=0o700) as opened,
    ):
        for name in ("data", "private", "run"):
            opened.folder(name, make=True, mode=0o700).close()
        for name, text in files.items():
            write_private(opened, f"private/{name}", text)


def write_private(folder: Folder, path: str, text: str) -> None:
    """Make a file that only its owner may read, in the place of any that is there.

    Raises:
        OSError: a folder on the way is a link, or the file cannot be made.
    """
    drop_private(folder, path)
    around, name = os.path.split(path)
    with folder.folder(around) as opened:
        descriptor = opened.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def drop_private(folder: Folder, path: str) -> None:
    """Remove a private file, if it exists."""
    around, name = os.path.split(path)
    with folder.folder(around) as opened, suppress(FileNotFoundError):
        os.unlink(name, dir_fd=opened.descriptor)
