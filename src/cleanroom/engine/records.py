"""The records of earlier runs, read and rendered again; the leftovers of killed runs, removed.

Part of the engine's public functions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from cleanroom.backends.base import Leftover
from cleanroom.core.arguments import PATH, check, optional
from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.files import hold, misplaced, open_to_read
from cleanroom.core.private_cache import open_cache
from cleanroom.engine.own_folder import (
    AUDIT,
    REPORTS,
    RUNS,
    SESSIONS,
    check_own_folders,
    check_writable,
    own_folder,
)
from cleanroom.model.errors import ProjectError, UsageError
from cleanroom.model.events import Envelope, decode

if TYPE_CHECKING:
    from cleanroom.backends.containers.images import Built
    from cleanroom.engine.doctor import Diagnosis
    from cleanroom.evidence.audit.log import Verification
    from cleanroom.evidence.tracing import SpanData
    from cleanroom.evidence.tracing.delivery import Delivered
    from cleanroom.project.init import Written


TRACE_LIMIT_BYTES = 256 << 20  # some hundred thousand spans: more than anybody reads
EVENTS = "events.jsonl"
# a longer line is no event of ours; bounds the memory that a hostile file takes
LINE_LIMIT_BYTES = 16 << 20


class SweepReport(msgspec.Struct, frozen=True, kw_only=True):
    """The dead runs that a sweep found, and what became of their leftovers."""

    runs: tuple[str, ...] = ()
    removed: tuple[Leftover, ...] = ()
    left: tuple[Leftover, ...] = ()
    living: int = 0  # runs that are under way
    # left alone: it cannot be known yet, or from this machine, whether their run lives
    waiting: tuple[Leftover, ...] = ()
    # runs of the project whose records were old enough to go, and what the audit log lost
    expired: tuple[str, ...] = ()
    audit_records: int = 0
    dry_run: bool = False  # nothing was removed, and leftovers were not looked for


def verify_audit(project: str | Path) -> Verification:
    """Check every record of the project's audit log.

    Raises:
        ProjectError: there is none, or something else stands in the place of its folder.
    """
    from cleanroom.evidence.audit.log import verify

    with recorded_folder(project, AUDIT) as folder:
        return verify(folder)


def show_audit(project: str | Path, run_id: str | None = None) -> Iterator[dict[str, Any]]:
    """The audit log's records, oldest first, of one run or all.

    Raises:
        ProjectError: it cannot be read.
    """
    from cleanroom.evidence.audit.chain import LOG_NAME
    from cleanroom.evidence.audit.log import records

    with recorded_folder(project, AUDIT) as folder:
        try:
            yield from records(folder, run_id)
        except OSError as error:
            raise _unreadable(folder.path / LOG_NAME, error) from error


def list_runs(project: str | Path) -> list[str]:
    """The runs that have events, oldest first; one that may not be read is among them.

    Raises:
        ProjectError: their folder may not be read.
    """
    check("project", project, PATH)
    try:
        with Folder.at(Path(project)) as root, root.folder(RUNS) as runs:
            found = [(name, _written_ns(runs, name)) for name in runs.names()]
    except PermissionError as error:
        raise _unreadable(Path(project, RUNS), error) from error
    except OSError:
        return []
    return [name for name, written in sorted(found, key=_age) if written is not None]


_SECOND = len("YYYYMMDD-HHMMSS")


def _age(run: tuple[str, int | None]) -> tuple[str, int]:
    """The key that sorts runs by age.

    A run's id has the second in which it began; of two in one second the later was written last.
    """
    name, written_ns = run
    return name[:_SECOND], written_ns or 0


def _written_ns(runs: Folder, name: str) -> int | None:
    """When a run's events were written last; None if it has none.

    A run that may not be read counts: without it an older one would be the newest.
    Reading it is an error that says why.
    """
    try:
        with runs.reading(f"{name}/{EVENTS}") as stream:
            return os.fstat(stream.fileno()).st_mtime_ns
    except PermissionError:
        return os.stat(name, dir_fd=runs.descriptor, follow_symlinks=False).st_mtime_ns
    except OSError:
        return None


def read_run(project: str | Path, run_id: str | None = None) -> list[Envelope]:
    """The events of a run, of the newest where none is named.

    An incomplete last line, as a killed engine leaves it, is skipped.

    Raises:
        UsageError: there is no such run.
        ProjectError: a line that is not the last is not an event.
    """
    with recorded_folder(project, f"{RUNS}/{chosen_run(project, run_id)}") as folder:
        return events_in(folder)


def chosen_run(project: str | Path, run_id: str | None = None) -> str:
    """The id of a run: `run_id`, or the newest's where none is named.

    Raises:
        UsageError: there is no such run.
    """
    runs = list_runs(project)
    if not runs or (run_id is not None and run_id not in runs):
        known = f"known are {', '.join(runs[-5:])}" if runs else "there is none yet"
        raise UsageError(
            "CR-HISTORY-001",
            f"no run {run_id or ''} in {project}: {known}".replace("  ", " "),
            hint="run a pipeline first",
        )
    return run_id or runs[-1]


def read_events(file: Path) -> list[Envelope]:
    """The events of a file, without an incomplete last line.

    Raises:
        ProjectError: it cannot be read, or a line that is not the last is not an event.
    """
    try:
        with open_to_read(file) as stream:
            return list(_events(file, stream))
    except OSError as error:
        raise _unreadable(file, error) from error


def events_in(folder: Folder) -> list[Envelope]:
    """The events of a run's folder.

    Raises:
        ProjectError: they cannot be read, or a line that is not the last is not an event.
    """
    file = folder.path / EVENTS
    try:
        with folder.reading(EVENTS) as stream:
            return list(_events(file, stream))
    except OSError as error:
        raise _unreadable(file, error) from error


def _events(file: Path, stream: BinaryIO) -> Iterator[Envelope]:
    number = 0
    while line := stream.readline(LINE_LIMIT_BYTES):
        number += 1
        if not line.endswith(b"\n"):
            if len(line) == LINE_LIMIT_BYTES:
                raise _no_event(
                    file, number, line, f"a line of more than {LINE_LIMIT_BYTES >> 20} MiB"
                )
            return  # torn
        try:
            if line != b"\n":
                yield decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _no_event(file, number, line, str(error)) from error


def _no_event(file: Path, number: int, line: bytes, why: str) -> ProjectError:
    at = re.search(r"\(byte (\d+)\)$", why)
    column = int(at[1]) + 1 if at else 1
    shown = line[:60].decode(errors="backslashreplace").rstrip("\n")
    return ProjectError(
        "CR-HISTORY-003",
        f"expected an event, found {shown}",
        hint=why,
        where=f"{file}:{number}:{column}",
    )


def _unreadable(file: Path, error: OSError) -> ProjectError:
    hint = "make it readable, or name another run's"
    return ProjectError(
        "CR-HISTORY-002",
        f"cannot be read: {error.strerror or error}",
        hint=hint,
        where=f"{file}:1:1",
    )


def read_trace(project: str | Path, run_id: str | None = None) -> tuple[str, list[SpanData]]:
    """A run's id and its spans, the newest run's where none is named.

    The spans are read from the trace file; for a killed engine, which wrote none, from the events.

    Raises:
        UsageError: there is no such run.
        ProjectError: the file is not a trace, or the events cannot be read.
    """
    from cleanroom.evidence.tracing import read_otlp_json, spans
    from cleanroom.subscribers.tracer import TRACE_FILE

    name = chosen_run(project, run_id)
    with recorded_folder(project, f"{RUNS}/{name}") as folder:
        file = folder.path / TRACE_FILE
        try:
            with folder.reading(TRACE_FILE) as stream:
                return name, read_otlp_json(stream.read(TRACE_LIMIT_BYTES))
        except FileNotFoundError:
            return name, spans(events_in(folder))
        except OSError as error:
            raise _unreadable(file, error) from error
        except ValueError as error:
            raise ProjectError(
                "CR-TRACE-001",
                "expected spans as OTLP/JSON, found something else",
                hint=str(error),
                where=f"{file}:1:1",
            ) from error


def delivered_to(project: str | Path, run_id: str) -> str:
    """The endpoint that received this run's spans, the last of several; "" where none did.

    Raises:
        UsageError: there is no such run.
    """
    from cleanroom.subscribers.tracer import read_deliveries

    with recorded_folder(project, f"{RUNS}/{chosen_run(project, run_id)}") as folder:
        for delivery in reversed(read_deliveries(folder)):
            if "traces" in delivery.counts:
                return delivery.endpoint
    return ""


def push_trace(
    project: str | Path,
    run_id: str | None = None,
    endpoint: str = "",
    *,
    caller: Mapping[str, str] | None = None,
) -> tuple[str, Delivered, bool]:
    """Send a recorded run to `endpoint`, or where the caller's OTEL_* variables say.

    Returns:
        The run's id, its delivery, and whether the endpoint had received it before.

    Raises:
        UsageError: there is no such run, or no collector is named.
        ProjectError: the records cannot be read.
    """
    from cleanroom.evidence.tracing.settings import read_settings, with_endpoint
    from cleanroom.subscribers.tracer import push

    name = chosen_run(project, run_id)
    settings = read_settings(with_endpoint(os.environ if caller is None else caller, endpoint))
    if not settings.destinations:
        raise UsageError(
            "CR-TRACE-005",
            "no collector is named",
            hint="say --push http://127.0.0.1:4318, or set OTEL_EXPORTER_OTLP_ENDPOINT",
        )
    spans = read_trace(project, name)[1]
    with recorded_folder(project, f"{RUNS}/{name}") as folder:
        delivered, already = push(folder, spans, events_in(folder), settings)
    return name, delivered, already


def render_reports(
    project: str | Path, events_file: str | Path | None = None, folder: str | Path | None = None
) -> dict[str, str]:
    """Render a project's reports again from recorded events alone.

    The events are those of the newest run, or of `events_file`.
    The bill of materials needs the record of dependencies beside them, as the run wrote it.
    The reports are written where a run writes them, or into `folder`.

    Returns:
        The path of each report, by its kind.

    Raises:
        UsageError: no run is recorded, or the project is no path.
        ProjectError: the events cannot be read, or something else stands in the place of a folder
            of ours.
        ArtifactError: a report cannot be written.
    """
    from cleanroom.evidence.reports.fold import ResultBuilder
    from cleanroom.subscribers.reporter import read_sets, report_paths, write_reports

    check("project", project, PATH)
    shown = (
        Path(project, RUNS, chosen_run(project), EVENTS)
        if events_file is None
        else Path(events_file)
    )
    builder = ResultBuilder()
    for envelope in read_run(project) if events_file is None else read_events(shown):
        builder.add(envelope)
    with Folder.at(shown.parent) as beside:
        sets = read_sets(beside, builder.dependencies_sha256)
    with _own_reports(project) if folder is None else hold(Path(folder)) as place:
        paths = {kind: str(path) for kind, path in report_paths(place.path, sets).items()}
        result = builder.result()
        write_reports(
            msgspec.structs.replace(result, reports={**paths, "events": str(shown)}), [place], sets
        )
    return paths


def _own_reports(project: str | Path) -> Folder:
    with Folder.at(Path(project), inherit_owner=True) as root:
        check_own_folders(root)
        check_writable(root)
        return own_folder(root, REPORTS)


def sweep(project: str | Path, *, caller: Mapping[str, str] | None = None) -> SweepReport:
    """Remove the leftovers of killed runs on this machine; runs that live are left alone.

    Raises:
        ProjectError: a link stands in the place of a folder of ours,
            which could lead to another's journals.
    """
    from cleanroom.backends.cleanup import merged
    from cleanroom.backends.cleanup import sweep as sweep_machine
    from cleanroom.backends.containers.cleanup import sweep_engines
    from cleanroom.core.locations import cache_folder
    from cleanroom.engine.fetch.sweep import sweep_store

    check("project", project, PATH)
    cache = cache_folder(os.environ if caller is None else caller)
    if cache.exists():
        open_cache(cache).close()
        sweep_store(cache)
    with Folder.at(Path(project)) as root:
        check_own_folders(root)
        contained = sweep_engines(os.environ if caller is None else caller)
        swept = sweep_machine(cache, _recorded(root))
    runs = tuple(
        Path(leftover.name).name for leftover in swept.removed if leftover.kind == "folder"
    )
    done = merged(contained, swept)
    return SweepReport(
        runs=runs,
        removed=done.removed,
        left=done.left,
        living=len(done.living),
        waiting=done.waiting,
    )


async def build_images(
    names: Sequence[str],
    backend: str,
    *,
    caller: Mapping[str, str],
    mirror: str = "",
    say: Callable[[str], None] = lambda _: None,
) -> list[Built]:
    """Build these images, or all, from Debian's packages, and load them into the container engine.

    `say` is called with lines of progress.

    Raises:
        UsageError: there is no such image.
        BackendUnavailable: the engine, its client library or mmdebstrap is missing;
            the error names all that are.
        EnvironmentFailed: one could not be made.
    """
    import anyio.to_thread

    from cleanroom.backends.containers import images
    from cleanroom.backends.containers.client import connect
    from cleanroom.backends.containers.requirements import inspect_machine, refusal
    from cleanroom.core.locations import cache_folder

    folder = cache_folder(caller) / "images"
    built = []
    plans = images.chosen(names)
    inspect = partial(inspect_machine, backend, (), caller, builds=True)  # type: ignore[arg-type]
    if refused := refusal(await anyio.to_thread.run_sync(inspect)):
        raise refused
    async with connect(backend, caller) as engine:  # type: ignore[arg-type]
        for plan in plans:
            one = await anyio.to_thread.run_sync(
                partial(images.build, plan, folder, mirror=mirror, say=say)
            )
            await images.load(one, engine)
            built.append(one)
    return built


def init(root: str | Path, source: str | Path | None = None) -> Written:
    """Write a make.toml that fits the project, and say which files and phases there are.

    Raises:
        UsageError: an argument is no path.
        ProjectError: there is a make.toml already, or `source` is no project.
        ArtifactError: the file could not be written.
    """
    from cleanroom.project.init import write_make_toml

    check("project", root, PATH)
    check("source", source, optional(PATH))
    return write_make_toml(Path(root), Path(source) if source else None)


def diagnose(*, caller: Mapping[str, str] | None = None) -> Diagnosis:
    """Which policies this machine can hold, and what helps with the rest."""
    from cleanroom.engine.doctor import diagnose as look

    return look(caller=os.environ if caller is None else caller)


@contextmanager
def recorded_folder(project: str | Path, name: str) -> Iterator[Folder]:
    """Open a folder of ours in a project, following no link.

    Raises:
        ProjectError: there is none, or something else stands in its place.
    """
    check("project", project, PATH)
    try:
        with Folder.at(Path(project)) as root:
            folder = root.folder(name)
    except OSError as error:
        if is_misplaced(error):
            raise misplaced(Path(project, name), error.strerror or str(error)) from error
        raise _unreadable(Path(project, name), error) from error
    with folder:
        yield folder


def _recorded(root: Folder) -> Iterator[Folder]:
    """The folders of a project's runs and sessions, each open until the next is yielded."""
    for kind in (RUNS, SESSIONS):
        try:
            with root.folder(kind) as around:
                for name in around.names():
                    yield from _opened(around, name)
        except OSError:
            continue


def _opened(around: Folder, name: str) -> Iterator[Folder]:
    try:
        folder = around.folder(name)
    except OSError:  # no folder
        return
    with folder:
        yield folder
