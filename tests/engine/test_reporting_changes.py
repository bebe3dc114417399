"""What is said of changes that came back, and where the rest goes; on the memory backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.backends.memory.programs import Inside
from cleanroom.model.events import Artifact, Note, Subject
from cleanroom.model.plan import Workspace
from cleanroom.testing import MemoryBackend, Outcome, Script, phase, plan, run_plan, succeed

pytestmark = pytest.mark.looptime


def artifacts(outcome: Outcome, role: str) -> list[Artifact]:
    events = [envelope.event for envelope in outcome.events]
    return [event for event in events if isinstance(event, Artifact) and event.role == role]


def notes(outcome: Outcome, code: str) -> list[Note]:
    events = [envelope.event for envelope in outcome.events]
    return [event for event in events if isinstance(event, Note) and event.code == code]


async def meddle(inside: Inside) -> int:
    """A phase during which somebody on the host writes the file that the phase writes."""
    assert inside.environment.workspace is not None
    Path(inside.environment.workspace.root, "both.txt").write_text("the host's")
    inside.write_file("both.txt", b"the phase's, in " + inside.working_directory.encode())
    return 0


def two_workspaces(root: Path, command: str):
    """A plan in which two workspaces have a phase of one name."""
    made = []
    for name in ("api", "web"):
        (root / name).mkdir()
        made.append(Workspace(name=name, path=str(root / name), phases=(phase("build", command),)))
    return plan(root=str(root), workspaces=tuple(made), requested=("build",))


async def test_phases_of_one_name_are_told_apart_by_their_workspace(tmp_path: Path):
    """What came back, what starts by itself and what is said of it name the workspace."""
    written = succeed(files={".envrc": b"x", "a": b"y"})
    used = MemoryBackend(Script(programs={"make": written}))
    outcome = await run_plan(two_workspaces(tmp_path, "make"), used)
    for role in ("changes", "autorun"):
        subjects = [event.subject for event in artifacts(outcome, role)]
        assert subjects == [Subject("phase", "build", name) for name in ("api", "web")]
    texts = [note.text.split(" brought")[0] for note in notes(outcome, "CR-WORKSPACE-005")]
    assert texts == ["phase api/build", "phase web/build"]
    rows = [(row.workspace, row.path) for row in outcome.result.autorun]
    assert rows == [("api", ".envrc"), ("web", ".envrc")]


async def test_conflicts_of_two_workspaces_do_not_meet(tmp_path: Path):
    """A file of the same path in both is kept twice, where `diff -r` finds it beside the
    project's."""
    used = MemoryBackend(Script(programs={"make": meddle}))
    outcome = await run_plan(two_workspaces(tmp_path, "make"), used)
    places = [event.path.rpartition("/conflicts/")[2] for event in artifacts(outcome, "conflict")]
    assert places == ["api", "web"]
    assert "phase api/build did not overwrite" in notes(outcome, "CR-WORKSPACE-001")[0].text
    assert (tmp_path / "api/both.txt").read_text() == "the host's"


async def meddle_and_remove(inside: Inside) -> int:
    """A phase during which somebody on the host writes the file that the phase removes."""
    assert inside.environment.workspace is not None
    Path(inside.environment.workspace.root, "both.txt").write_text("the host's")
    inside.delete_file("both.txt")
    return 0


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (None, 'declare cleanroom.outputs = [".", "run.sh"]: outputs stand in the place of'),
        (("*",), 'add to its cleanroom.outputs: "run.sh"'),
    ],
)
async def test_what_stays_comes_with_the_output_that_brings_it_back(tmp_path, outputs, said):
    """And that outputs stand in the place of every change, where none are declared yet."""
    (tmp_path / "run.sh").write_text("exit 0")
    used = MemoryBackend(Script(programs={"make": succeed(files={"run.sh": b"x"})}))
    declaring = phase("build", "make", outputs=outputs)
    named = (str(tmp_path / "run.sh"),)
    outcome = await run_plan(plan(declaring, root=str(tmp_path), named=named), used)
    (note,) = notes(outcome, "CR-WORKSPACE-006")
    assert said in note.text


async def test_no_place_is_named_for_what_the_run_had_removed(tmp_path: Path):
    """Of a removal nothing is kept: neither the warning nor the reason names a folder for it."""
    (tmp_path / "both.txt").write_text("1")
    used = MemoryBackend(Script(programs={"make": meddle_and_remove}))
    outcome = await run_plan(plan(phase("build", "make"), root=str(tmp_path)), used)
    (note,) = notes(outcome, "CR-WORKSPACE-001")
    changed = "did not remove both.txt: both.txt changed on the host meanwhile"
    assert changed in note.text
    assert "conflicts" not in note.text + outcome.result.reason
    assert [event.path for event in artifacts(outcome, "conflict")] == ["."]
    assert (tmp_path / "both.txt").read_text() == "the host's"


def stayed(outcome: Outcome) -> list[str]:
    events = [envelope.event for envelope in outcome.events]
    texts = [event.text for event in events if isinstance(event, Note)]
    return [text for text in texts if "did not come back" in text]


async def test_a_failed_phase_says_in_one_line_what_did_not_come_back(tmp_path: Path):
    """How many, some by name, and why; nothing of one that passed or changed nothing."""
    written = {"a": b"x", "b/c": b"x", ".git/index": b"x"}
    programs = {
        "fail": succeed(files=written, exit_code=1),
        "idle": succeed(exit_code=1),
        "pass": succeed(files=written),
    }
    said = {}
    for name in programs:
        used = MemoryBackend(Script(programs=programs))
        root = tmp_path / name
        root.mkdir()
        said[name] = stayed(await run_plan(plan(phase("build", name), root=str(root)), used))
    counted = "phase build did not pass, so 2 of its changes did not come back: a, b/c"
    assert said == {
        "fail": [f"{counted}; what `outputs` names comes back all the same"],
        "idle": [],
        "pass": [],
    }


async def test_what_is_said_is_bounded(tmp_path: Path):
    """A thousand programs are counted, some are in the event, a few in the line."""
    written = succeed(files={f"bin/p{number:04}": b"x" for number in range(1000)})
    used = MemoryBackend(Script(programs={"make": written}))
    outcome = await run_plan(plan(phase("build", "make")), used)
    (event,) = artifacts(outcome, "autorun")
    assert (event.files, len(event.autorun)) == (1000, 100)
    (note,) = notes(outcome, "CR-WORKSPACE-005")
    assert note.level == "info"
    assert note.text.endswith(" and 995 more")
    assert outcome.result.brought_back["autorun"] == 1000


async def test_what_stays_is_said_once_for_a_folder_and_all_that_is_in_it(tmp_path: Path):
    """make.toml and what it names stay, with the reason; what a run without them brings is
    said as ever."""
    (tmp_path / "run.sh").write_text("exit 0")
    written = succeed(files={"make.toml": b"x", "run.sh": b"x", "other": b"x"})
    used = MemoryBackend(Script(programs={"make": written}))
    asked = plan(
        phase("build", "make"),
        root=str(tmp_path),
        files=(str(tmp_path / "make.toml"),),
        named=(str(tmp_path / "run.sh"),),
    )
    outcome = await run_plan(asked, used)
    (note,) = notes(outcome, "CR-WORKSPACE-006")
    assert "make.toml (it decides what runs" in note.text
    assert "run.sh (make.toml names it" in note.text
    assert artifacts(outcome, "changes")[0].files == 1
    assert (tmp_path / "run.sh").read_text() == "exit 0"


async def test_a_dry_run_lists_what_would_come_back_and_brings_nothing(tmp_path: Path):
    """Later phases see what earlier ones did, the project stays as it is, and the result has each
    path once, with the last phase that changed it.
    """
    (tmp_path / "old").write_text("old")
    seen = []

    async def second(inside: Inside) -> int:
        seen.append(inside.read_file("made"))
        inside.write_file("made", b"twice")
        inside.delete_file("old")
        return 0

    used = MemoryBackend(Script(programs={"one": succeed(files={"made": b"x"}), "two": second}))
    planned = plan(phase("one", "one"), phase("two", "two"), root=str(tmp_path), dry_run=True)
    outcome = await run_plan(planned, used)

    assert outcome.result.outcome == "passed"
    assert seen == [b"x"]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert outcome.result.brought_back == {}
    assert outcome.result.dry_run
    rows = [(row.path, row.kind, row.phase) for row in outcome.result.would_change]
    assert rows == [("made", "file", "two"), ("old", "deleted", "two")]
