"""What a phase cannot do to pid 1, to the engine's folder and by modes:
in containers as everywhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cleanroom.backends.base import EnvironmentSpec, WorkspaceSpec
from cleanroom.model.policy import Level, default_policy
from support.container_harness import ENGINES, IMAGE, backend, require
from support.embedded_harness import on_terminal, run

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

RUN_ID = "inside"
PROGRAM = """
import json, os, resource, socket
def said(action):
    try:
        action()
    except OSError as error:
        return error.errno
    return 0
open("own", "w").close()
os.chmod("own", 0o755)
print(json.dumps({
    "kill": said(lambda: os.kill(1, 9)),
    "limit": said(lambda: resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))),
    "priority": said(lambda: os.setpriority(os.PRIO_PROCESS, 1, 19)),
    "core": said(lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
    "now": resource.getrlimit(resource.RLIMIT_CORE),
    "moved": said(lambda: os.rename(".ggen", "x")),
    "link": said(lambda: os.symlink("/etc", "sub/.ggen")),
    "made": said(lambda: os.open("new", os.O_CREAT | os.O_RDWR, 0o4755)),
    "socket": said(lambda: socket.socket(socket.AF_UNIX).bind("/usr/mine")),
}))
"""


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_container_refuses_and_names_the_same(engine: Any, tmp_path: Path):
    """Each is refused as on the embedded backend, recorded, and the container lives on."""
    require(engine)
    project = tmp_path / "project"
    for folder in (".ggen/cleanroom", "sub"):
        (project / folder).mkdir(parents=True)
    shared = WorkspaceSpec(root=str(project), scratch=str(tmp_path / "s/workspace"))
    spec = EnvironmentSpec(
        id="phase",
        run_id=RUN_ID,
        role="phase",
        policy=default_policy(Level.MEDIUM),
        variables={"PATH": "/usr/bin:/bin"},
        image=IMAGE,
        workspace=shared,
        working_directory=str(project),
    )
    async with (
        backend(engine, RUN_ID, tmp_path / "s", tmp_path / "j") as made,
        made.workspace(shared),
        made.environment(spec) as environment,
    ):
        _, said = await run(environment, f"exec python3 - <<'END'\n{PROGRAM}\nEND")
        assert (await run(environment, "echo it lives"))[1] == "it lives\n"
        assert await on_terminal(environment) == "controlled\r\nexit 3"
        await environment.kill()
        attempts = [attempt async for attempt in environment.attempts()]
    assert json.loads(said) == {
        **dict.fromkeys(("kill", "limit", "priority", "made"), 1),
        **dict.fromkeys(("moved", "link"), 16),
        "core": 0,
        "now": [1, 1],
        "socket": 30,
    }
    assert sorted(attempt.rule for attempt in attempts if not attempt.tags) == [
        "filesystem.metadata",
        *["filesystem.write"] * 3,
        *["process.visibility"] * 3,
    ]
