"""The options of an engine, and what each of its public arguments has to be."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast, get_args

import msgspec

from cleanroom.core.arguments import (
    FLAG,
    PATH,
    SECONDS,
    TEXT,
    TEXTS,
    WHOLE,
    Expected,
    check,
    check_all,
    one_of,
    optional,
)
from cleanroom.engine.supervision.context import Keep
from cleanroom.model.errors import Exit
from cleanroom.model.plan import BackendName
from cleanroom.model.policy import Level

if TYPE_CHECKING:
    from cleanroom.project import Overrides


PolicyName = Literal["Low", "Medium", "High", "Locked"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Changes to a run beside the project's files. None: as the files say."""

    backend: str | None = None
    policy: str | None = None
    env: str | None = None
    seed: int | None = None
    slo_seconds: float | None = None
    strict_slo: bool | None = None
    allow_degraded: Sequence[str] = ()
    keep: Keep = "never"
    report_directory: str | os.PathLike[str] | None = None  # None: .ggen/cleanroom/reports
    fresh: bool = False  # use no cached data of services and homes, and skip no phase
    no_cache: bool = False  # skip no phase
    dry_run: bool = False  # nothing comes back to the project: the result lists what would
    offline: bool = False  # fetch no dependencies: those that the store lacks are missing

    def overrides(self) -> Overrides:
        """Those that change the plan."""
        from cleanroom.project import Overrides

        return Overrides(
            backend=cast(BackendName | None, self.backend),
            policy=Level(self.policy) if self.policy is not None else None,
            env=self.env,
            seed=self.seed,
            slo_seconds=self.slo_seconds,
            strict_slo=self.strict_slo,
            allow_degraded=tuple(self.allow_degraded),
            dry_run=self.dry_run,
            fresh=self.fresh,
        )


class RunOptions(TypedDict, total=False):
    """The options of `cleanroom.open`, each by its name, for type checkers; as in `Options`."""

    backend: BackendName | None
    policy: PolicyName | None
    env: str | None
    seed: int | None
    slo_seconds: float | None
    strict_slo: bool | None
    allow_degraded: Sequence[str]
    keep: Keep
    report_directory: str | os.PathLike[str] | None
    fresh: bool
    no_cache: bool
    dry_run: bool
    offline: bool


_EXPECTED = {
    "backend": optional(one_of(get_args(BackendName))),
    "policy": optional(one_of([level.value for level in Level])),
    "env": optional(TEXT),
    "seed": optional(WHOLE),
    "slo_seconds": optional(SECONDS),
    "strict_slo": optional(FLAG),
    "allow_degraded": TEXTS,
    "keep": one_of(get_args(Keep)),
    "report_directory": optional(PATH),
    "fresh": FLAG,
    "no_cache": FLAG,
    "dry_run": FLAG,
    "offline": FLAG,
}
OPTIONS = Expected("cleanroom.Options", lambda value: isinstance(value, Options))
PHASES = Expected("names of phases, each an argument of its own", TEXTS.holds)
INTERRUPTING_EXIT = Expected(
    "Exit.INTERRUPTED or Exit.TERMINATED", (Exit.INTERRUPTED, Exit.TERMINATED).__contains__
)


def checked_options(given: Mapping[str, Any], options: Options | None = None) -> Options:
    """The options that a caller of `cleanroom.open` named; the others are those of `options`.

    Raises:
        UsageError: one does not exist, or is not what it has to be.
    """
    check("cleanroom.open: options", options, optional(OPTIONS))
    before = msgspec.structs.asdict(options) if options is not None else {}
    both = {**before, **given}
    check_all("cleanroom.open", both, _EXPECTED)
    return Options(**both)
