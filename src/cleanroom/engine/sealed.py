"""Loading no code from a workspace once its phases run.

The engine is often installed in the project's own virtual environment, and `python -m cleanroom`
has the project itself on its import path.
A module that the process loads later, from a file that a phase wrote meanwhile, would run with the
engine's rights.
So a process that is the engine's alone loads all modules that it may still need before the first
phase, and searches no workspace from then on.
The keeper does the same for itself (`sandbox/processes/keeper.py`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from types import ModuleType

from cleanroom.model.plan import Plan

# Modules of other distributions that ours import inside functions; a test compares.
# One that is not installed is not needed.
LATER = (
    "aiofiles",
    "aiofiles.threadpool",
    "anyio._core._fileio",  # by anyio itself, with the first path
    "h11",
    "packaging",
    "psutil",
    "urllib3",
    "yaml",
)
# The same, where spans are received or sent: they take a third of a second, so not for everyone.
TELEMETRY = (
    "google.protobuf.message",
    "grpc",
    "opentelemetry.exporter.otlp.proto.grpc._log_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.metric_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2",
    "opentelemetry._logs",
    "opentelemetry.sdk._logs",
    "opentelemetry.sdk.metrics.export",
    "opentelemetry.sdk.resources",
    "opentelemetry.sdk.trace",
    "opentelemetry.sdk.util.instrumentation",
    "opentelemetry.trace",
    "requests",
)
# Of ours, what no run imports late: other commands, other people's tests, what the keeper loads
# for itself, and backends, whose modules are there when they are entered.
_NOT_LATE = (
    "cleanroom.__main__",
    "cleanroom.backends",
    "cleanroom.cli.manual",
    "cleanroom.cli.reference",
    "cleanroom.engine.doctor",
    "cleanroom.engine.shared_services",
    "cleanroom.engine.user_cache",
    "cleanroom.project.init",
    "cleanroom.pytest_plugin",
    "cleanroom.sandbox",
    "cleanroom.servers",
    "cleanroom.testing",
    "cleanroom.evidence.tracing.sdk",
    "cleanroom.evidence.tracing.testing",
)
_COMMANDS = (
    *(
        "audit",
        "cache",
        "completion",
        "config",
        "diff",
        "doctor",
        "events",
        "explain",
        "image",
        "init",
    ),
    *("plan", "pool", "sweep"),
)


def seal(roots: Sequence[str], *, telemetry: bool = False) -> None:
    """Load no code from these folders from now on.

    Where this package, another that it needs or Python's library lies in one of them, modules that
    may be needed later are loaded first.
    Sealing again adds folders.
    Blocks: a tenth of a second where something is loaded.
    """
    sealed = _Sealed(roots)
    package = sys.modules["cleanroom"]
    if any(map(sealed.covers, package.__path__)) or any(map(sealed.covers, _of_others())):
        _load(telemetry)
    sys.meta_path.insert(0, sealed)


def _of_others() -> list[str]:
    """The files that the other distributions we need, and Python's library, were loaded from."""
    names = ("msgspec", "anyio", "os")
    found = (getattr(sys.modules.get(name), "__file__", None) for name in names)
    return [file for file in found if file]


def _load(telemetry: bool) -> None:
    """Load every module that a run may need and has not loaded yet."""
    exporters = ("cleanroom.evidence.tracing.sdk", *TELEMETRY) if telemetry else ()
    for name in (*_ours(), *LATER, *exporters):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _ours() -> Iterator[str]:
    """Modules of ours that a run may still import."""
    skipped = (*_NOT_LATE, *(f"cleanroom.cli.commands.{command}" for command in _COMMANDS))
    packages = [("cleanroom", list(sys.modules["cleanroom"].__path__))]
    while packages:
        package, places = packages.pop()
        for module in pkgutil.iter_modules(places, f"{package}."):
            if module.name in skipped:
                continue
            yield module.name
            if module.ispkg:
                below = module.name.rpartition(".")[2]
                packages.append((module.name, [os.path.join(place, below) for place in places]))


class _Sealed:
    """Finds modules before all other finders, and none of them in the folders."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = tuple(f"{os.path.realpath(root).rstrip('/')}/" for root in roots)

    def covers(self, place: str) -> bool:
        """Whether a path lies in one of the folders; "" is the working directory."""
        return f"{os.path.realpath(place or '.')}/".startswith(self._roots)

    def find_spec(
        self,
        name: str,
        path: Iterable[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Find the module outside of the folders.

        None leaves it to the other finders, where none of the folders would be searched.

        Raises:
            ModuleNotFoundError: it is nowhere else.
        """
        places = list(sys.path if path is None else path)
        safe = [place for place in places if not self.covers(place)]
        if len(safe) == len(places):
            return None
        for finder in (BuiltinImporter, FrozenImporter) if path is None else ():
            if (spec := finder.find_spec(name)) is not None:
                return spec
        spec = PathFinder.find_spec(name, safe, target)
        if spec is None:
            text = f"{name} is in no folder but those that phases write: not loaded while they run"
            raise ModuleNotFoundError(text, name=name)
        return spec


def seal_run(plan: Plan, roots: Sequence[str], caller: Mapping[str, str]) -> None:
    """Load no code from the workspaces from now on: a phase may write there. Blocks.

    With that everything is loaded: it stays, and the collector of garbage, which the command
    stops while it loads, need not look at it again.
    """
    exporting = any(name.startswith("OTEL_EXPORTER_OTLP") for name in caller)
    seal(roots, telemetry=exporting or any(phase.telemetry for phase in plan.phases))
    gc.freeze()
    gc.enable()
