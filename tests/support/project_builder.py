"""Projects for tests: a folder with a make.toml, and a caller who has nothing but what is given."""

from __future__ import annotations

from pathlib import Path

from cleanroom.model.plan import Plan
from cleanroom.project import Overrides, load
from support.paths import TESTS

CORPUS = TESTS / "fixtures" / "corpus"
NO_FLOOR = Path("/nonexistent/config.toml")
HEAD = '[project]\nname = "x"\n'


def written(root: Path, text: str | bytes, name: str = "make.toml") -> Path:
    """The folder with this make.toml."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def planned(
    root: Path,
    text: str,
    *requested: str,
    caller: dict[str, str] | None = None,
    single: bool = False,
    floor: Path = NO_FLOOR,
    **said: object,
) -> Plan:
    """The plan of a project with this make.toml."""
    return load(
        written(root, text),
        requested,
        overrides=Overrides(**said),
        caller=caller or {},
        single=single,
        floor=floor,
    )


def trace(plan: Plan) -> list[str]:
    return [phase.name for phase in plan.phases]


def phase(plan: Plan, name: str):
    return next(phase for phase in plan.phases if phase.name == name)
