"""The public functions of everything that runs, verifies or sweeps.

What is named here is for the command, for libraries and for tests; modules of this room are not,
but for `prestart`. Names load on first use: the keeper is started, and shared services are served,
where most of this room must not be imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cleanroom.engine.doctor import Diagnosis
    from cleanroom.engine.engine import Engine, open
    from cleanroom.engine.fetch.forecast import SetForecast, forecast_dependencies
    from cleanroom.engine.host_services import (
        EndedServices,
        HostServices,
        services_down,
        services_up,
    )
    from cleanroom.engine.options import Options, RunOptions
    from cleanroom.engine.pause import PauseControl, PausedRun, answer, ask, interrupt, paused_runs
    from cleanroom.engine.phases.skipping import Decision
    from cleanroom.engine.records import (
        SweepReport,
        build_images,
        delivered_to,
        diagnose,
        init,
        list_runs,
        push_trace,
        read_run,
        read_trace,
        render_reports,
        show_audit,
        sweep,
        verify_audit,
    )
    from cleanroom.engine.retention import Expired, remove_expired
    from cleanroom.engine.run_comparison import compare_runs
    from cleanroom.engine.shared_services.ancestry import started_by_ggen
    from cleanroom.engine.shared_services.pool import PoolStatus
    from cleanroom.engine.supervision.context import PausedPhase
    from cleanroom.engine.user_cache import CacheReport, prune_cache, show_cache
    from cleanroom.engine.watching import ProjectWatch

_HOMES = {
    "CacheReport": "user_cache",
    "Decision": "phases.skipping",
    "Diagnosis": "doctor",
    "EndedServices": "host_services",
    "Expired": "retention",
    "Engine": "engine",
    "HostServices": "host_services",
    "Options": "options",
    "PauseControl": "pause",
    "PausedPhase": "supervision.context",
    "PausedRun": "pause",
    "PoolStatus": "shared_services.pool",
    "ProjectWatch": "watching",
    "RunOptions": "options",
    "SetForecast": "fetch.forecast",
    "SweepReport": "records",
    "answer": "pause",
    "ask": "pause",
    "build_images": "records",
    "compare_runs": "run_comparison",
    "delivered_to": "records",
    "forecast_dependencies": "fetch.forecast",
    "diagnose": "records",
    "init": "records",
    "interrupt": "pause",
    "list_runs": "records",
    "open": "engine",
    "paused_runs": "pause",
    "prune_cache": "user_cache",
    "push_trace": "records",
    "read_run": "records",
    "read_trace": "records",
    "services_down": "host_services",
    "services_up": "host_services",
    "remove_expired": "retention",
    "render_reports": "records",
    "show_audit": "records",
    "show_cache": "user_cache",
    "started_by_ggen": "shared_services.ancestry",
    "sweep": "records",
    "verify_audit": "records",
}
__all__ = [
    "CacheReport",
    "Decision",
    "Diagnosis",
    "EndedServices",
    "Engine",
    "Expired",
    "HostServices",
    "Options",
    "PauseControl",
    "PausedPhase",
    "PausedRun",
    "PoolStatus",
    "ProjectWatch",
    "RunOptions",
    "SetForecast",
    "SweepReport",
    "answer",
    "ask",
    "build_images",
    "compare_runs",
    "delivered_to",
    "diagnose",
    "forecast_dependencies",
    "init",
    "interrupt",
    "list_runs",
    "open",
    "paused_runs",
    "prune_cache",
    "push_trace",
    "read_run",
    "read_trace",
    "remove_expired",
    "render_reports",
    "services_down",
    "services_up",
    "show_audit",
    "show_cache",
    "started_by_ggen",
    "sweep",
    "verify_audit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
