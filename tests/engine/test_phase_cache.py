"""Phases that are skipped since nothing changed, on real files with the memory backend."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cleanroom.backends.base import Backend
from cleanroom.engine import Engine, Options, verify_audit
from cleanroom.engine.phase_cache import fingerprints
from cleanroom.engine.phases.skipping import Decision
from cleanroom.evidence.reports.result import RunResult
from cleanroom.testing import Inside, MemoryBackend, Script, egress_attempt, succeed

FILE = """
[project]
name = "demo"
[lifecycle.build]
command = "build"
cleanroom.outputs = ["dist/"]
cleanroom.cache = { inputs = ["src/**"] }
[lifecycle.test]
command = "test"
cleanroom.cache = { inputs = ["src/**", "dist"] }
cleanroom.pass = ["TOKEN"]
[lifecycle.always]
command = "always"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # thousands of files that no test here changes
    monkeypatch.setattr(fingerprints, "_BY_HAND", ())
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "src/a.py").write_text("a")
    (root / "make.toml").write_text(FILE)
    return root


class Runs:
    """Runs of one project, and what was really executed in the last."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.executed: list[str] = []
        self.programs = {"build": build}

    async def __call__(self, *phases: str, token: str = "one", **options: object) -> RunResult:
        self.executed = []
        caller = self.caller(token)
        backend = MemoryBackend(Script(programs=self.programs, otherwise=succeed(b"fine\n")))

        def make(name: str, **where: object) -> Backend:
            return backend

        result = await Engine(
            self.project, caller, Options(backend="memory", **options), make
        ).pipeline(*phases)  # type: ignore[arg-type]
        self.executed = [argv[-1] for _, argv in backend.executed]
        assert result.exit_code in (0, 1), result.error
        return result

    def caller(self, token: str = "one") -> dict[str, str]:
        cache = str(self.project.parent / "cache")
        return {"PATH": "/usr/bin:/bin", "HOME": "/", "CLEANROOM_CACHE": cache, "TOKEN": token}

    def forecast(self, *phases: str) -> tuple[Decision, ...]:
        """What a plan says of them."""
        engine = Engine(self.project, self.caller(), Options(backend="memory"))
        return tuple(engine.forecast(*phases))


def build(inside: Inside) -> object:
    inside.write_file("dist/all", b"built of " + (inside.read_file("src/a.py") or b""))
    return succeed()(inside)


@pytest.fixture
def run(project: Path) -> Runs:
    return Runs(project)


def results(result: RunResult) -> dict[str, str]:
    return {phase.name: phase.result for phase in result.phases}


def why(result: RunResult, name: str) -> str:
    return next(phase.cache for phase in result.phases if phase.name == name)


async def test_a_phase_is_skipped_when_nothing_changed(run: Runs):
    """The second run executes nothing of what has inputs, names the first run, and passes."""
    first = await run("build", "test", "always")
    assert results(first) == {"build": "passed", "test": "passed", "always": "passed"}
    second = await run("build", "test", "always")
    assert run.executed == ["always"]
    assert results(second) == {"build": "cached", "test": "cached", "always": "passed"}
    assert {phase.cached_run for phase in second.phases} == {first.run_id, ""}
    assert (second.outcome, second.exit_code) == ("passed", 0)


async def test_a_run_of_cached_phases_alone_passes(run: Runs):
    """No command ran, and the evidence of the earlier run makes it pass: exit 0, not 4."""
    await run("build", "test")
    again = await run("build", "test")
    assert (run.executed, again.exit_code) == ([], 0)
    assert all(phase.exit_code is None and not phase.log for phase in again.phases)
    assert verify_audit(run.project).valid


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / "src/a.py").write_text("b"), "input src/a.py changed"),
        (lambda root: (root / "src/new.py").write_text(""), "input src/new.py is new"),
        (
            lambda root: (root / "src/a.py").rename(root / "src/b.py"),
            "input src/b.py is new, input src/a.py is gone",
        ),
        (lambda root: (root / "src/a.py").chmod(0o755), "input src/a.py changed"),
        (lambda root: (root / "dist/all").unlink(), "output dist/all changed"),
        (lambda root: (root / "dist/all").write_text("other"), "output dist/all changed"),
        (lambda root: (root / "dist/more").write_text(""), "output dist/more changed"),
        (
            lambda root: (root / "make.toml").write_text(FILE.replace('"build"', '"build more"')),
            "commands changed",
        ),
        (
            lambda root: (root / "make.toml").write_text(
                FILE.replace('"build"\n', '"build"\ncleanroom.variables = { A = "1" }\n')
            ),
            "variable A is new",
        ),
        (
            lambda root: (root / "make.toml").write_text(
                FILE.replace('"build"\n', '"build"\ncleanroom.timeout = "9s"\n')
            ),
            "place changed",
        ),
        (
            lambda root: (root / "make.toml").write_text(
                FILE.replace('"build"\n', '"build"\ncleanroom.limits = { pids = 9 }\n')
            ),
            "policy changed",
        ),
    ],
)
async def test_any_change_makes_it_run_and_is_named(
    run: Runs, change: Callable[[Path], object], said: str
):
    """A changed input, output, command, variable, time or policy:
    it runs, and says what changed.
    """
    await run("build")
    change(run.project)
    again = await run("build")
    assert results(again) == {"build": "passed"}
    assert said in why(again, "build")


async def test_a_value_handed_over_is_part_of_the_key_and_not_in_the_entry(run: Runs):
    """Another TOKEN makes the phase run; what lies on disk does not tell it,
    nor its plain digest.
    """
    import hashlib

    await run("build", "test", token="hunter2-secret")
    again = await run("build", "test", token="another")
    assert results(again) == {"build": "cached", "test": "passed"}
    assert "variable TOKEN changed" in why(again, "test")
    kept = b"".join(
        file.read_bytes() for file in (run.project / ".ggen/cleanroom/cache").rglob("*.json")
    )
    assert b"hunter2" not in kept
    assert hashlib.sha256(b"hunter2-secret").hexdigest().encode() not in kept


async def test_a_failed_phase_is_never_skipped(run: Runs):
    """What failed runs again and fails again."""
    await run("build")
    run.programs["test"] = succeed(exit_code=3)
    for _ in range(2):
        assert results(await run("test")) == {"test": "failed"}


async def test_a_phase_that_tried_what_is_forbidden_is_never_skipped(run: Runs):
    """Where a violation is only warned of the phase passes,
    and the warning must be there the next time too.
    """

    def curious(inside: Inside) -> object:
        inside.attempt(egress_attempt("192.0.2.1", 443))
        return succeed()(inside)

    file = FILE.replace(
        '"always"',
        (
            '"always"\ncleanroom.on_violation = "warn"\ncleanroom.reason = "tried"\n'
            'cleanroom.cache = { inputs = ["src"] }'
        ),
    )
    (run.project / "make.toml").write_text(file)
    run.programs["always"] = curious
    for _ in range(2):
        outcome = await run("always")
        assert results(outcome) == {"always": "passed"}
        assert len(outcome.violations) == 1


@pytest.mark.parametrize("option", ["no_cache", "fresh"])
async def test_the_cache_can_be_ignored(run: Runs, option: str):
    """With --no-cache or --fresh everything runs, and what passes is remembered again."""
    await run("build")
    assert results(await run("build", **{option: True})) == {"build": "passed"}
    assert run.executed == ["build"]
    assert results(await run("build")) == {"build": "cached"}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def changed(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data.replace(b"passed", b"pasted", 1) if b"passed" in data else data[:-1])


@pytest.mark.parametrize(
    ("what", "damage", "said"),
    [
        ("runs/RUN", shutil.rmtree, "report of run"),
        ("runs/RUN/test_results.json", Path.unlink, "report of run"),
        ("runs/RUN/test_results.json", changed, "report of run"),
        ("runs/RUN/events.jsonl", Path.unlink, "events of run"),
        ("runs/RUN/events.jsonl", cut, "events of run"),
        ("cache/build/KEY.json", cut, "nothing is remembered"),
        ("cache/build/KEY.json", changed, "nothing is remembered"),
    ],
)
async def test_without_its_evidence_an_entry_is_a_miss(
    run: Runs, what: str, damage: Callable[[Path], object], said: str
):
    """A report, event log or entry that is gone, cut or changed: the phase runs, and says why."""
    first = await run("build")
    ours = run.project / ".ggen/cleanroom"
    entry = next((ours / "cache/build").iterdir())
    target = ours / what.replace("RUN", first.run_id).replace("KEY.json", entry.name)
    if what.endswith("events.jsonl") and damage is cut:
        lines = [
            line
            for line in target.read_bytes().splitlines(keepends=True)
            if entry.stem.encode() not in line
        ]
        target.write_bytes(b"".join(lines))
    else:
        damage(target)
    again = await run("build")
    assert results(again) == {"build": "passed"}
    assert said in why(again, "build")


async def test_an_entry_that_names_another_run_is_a_miss(run: Runs):
    """An entry's word alone earns nothing: the run that it names has no record of the phase with
    this key.
    """
    first = await run("always")
    await run("build")
    entry = next((run.project / ".ggen/cleanroom/cache/build").iterdir())
    import json

    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"run_id": first.run_id}))
    again = await run("build")
    assert results(again) == {"build": "passed"}
    assert "does not say that it passed" in why(again, "build")


async def test_an_entry_with_other_outputs_is_a_miss(run: Runs):
    """The audit log binds the outputs too: an entry made to fit a changed output is not
    confirmed.
    """
    await run("build")
    entry = next((run.project / ".ggen/cleanroom/cache/build").iterdir())
    import json

    (run.project / "dist/all").write_text("forged")
    held = json.loads(entry.read_text())
    held["outputs"] = fingerprints.output_digests(run.project, ["dist/"], ())
    entry.write_text(json.dumps(held))
    again = await run("build")
    assert results(again) == {"build": "passed"}
    assert "audit log has no record" in why(again, "build")


async def test_a_pattern_that_matches_nothing_skips_nothing(run: Runs):
    """A misspelt input would never change: such a phase runs every time and says so."""
    (run.project / "make.toml").write_text(FILE.replace('"src/**"] }', '"scr/**"] }', 1))
    for _ in range(2):
        outcome = await run("build")
        assert results(outcome) == {"build": "passed"}
        assert "no file matches its input 'scr/**'" in why(outcome, "build")


async def test_an_input_changed_while_the_phase_ran_is_not_remembered(run: Runs):
    """Which of the two the phase saw, nobody knows."""

    def slow(inside: Inside) -> object:
        (run.project / "src/a.py").write_text("changed meanwhile")
        return build(inside)

    run.programs["build"] = slow
    outcome = await run("build")
    assert any(note.endswith("its input src/a.py changed while it ran") for note in outcome.notes)
    run.programs["build"] = build
    assert results(await run("build")) == {"build": "passed"}
    assert results(await run("build")) == {"build": "cached"}


async def test_what_is_not_remembered_says_so_and_why(run: Runs):
    """When it passed, and the next time in its plan: an output that is a link to a folder."""
    run.programs["build"] = succeed(files={"dist/all": b"1"})
    (run.project / "dist").mkdir()
    (run.project / "dist/link").symlink_to("../src")
    reason = "dist/link is a link to a folder, whose content is not looked at"
    outcome = await run("build")
    said = "phase build runs again next time: nothing is remembered of it, since"
    assert f"{said} {reason}" in outcome.notes
    assert results(await run("build")) == {"build": "passed"}
    forecast = run.forecast("build")
    assert [decision.why for decision in forecast] == [f"nothing is remembered of it: {reason}"]


async def test_what_stayed_away_is_why_nothing_is_remembered(run: Runs):
    """A phase that passed and of which something was withheld runs again."""
    file = run.project / "make.toml"
    table = '[lifecycle.edit]\ncommand = "edit"\ncleanroom.cache = { inputs = ["src/**"] }\n'
    file.write_text(FILE + table)
    run.programs["edit"] = succeed(files={"make.toml": b"other"})
    outcome = await run("edit")
    reason = "since some of its changes did not come back"
    assert any(note.endswith(reason) for note in outcome.notes)


async def test_what_did_not_come_back_is_no_input(run: Runs):
    """A phase whose input an earlier phase changed in the layer only is neither skipped nor
    remembered.
    """

    def secretly(inside: Inside) -> object:
        inside.write_file("src/generated.py", b"1")
        return build(inside)

    run.programs["build"] = secretly
    for _ in range(2):
        outcome = await run("build", "test", no_cache=True)
        assert "src/generated.py" in why(outcome, "test")


async def test_phases_of_one_service_are_skipped_together_or_not_at_all(run: Runs, tmp_path: Path):
    """A test whose database the setup filled is not run without it,
    nor after it where only the test changed.
    """
    file = """
    [project]
    name = "demo"
    [cleanroom.services.store]
    command = ["/bin/sleep", "1000"]
    port = 4000
    ready = { command = "true" }
    [lifecycle.setup]
    command = "setup"
    cleanroom.containers = ["store"]
    cleanroom.cache = { inputs = ["src/**"] }
    [lifecycle.test]
    command = "test"
    cleanroom.containers = ["store"]
    cleanroom.cache = { inputs = ["tests/**"] }
    """
    (run.project / "make.toml").write_text(file)
    (run.project / "tests").mkdir()
    (run.project / "tests/t.py").write_text("1")
    await run("setup", "test")
    assert results(await run("setup", "test")) == {"setup": "cached", "test": "cached"}
    assert not run.executed
    (run.project / "tests/t.py").write_text("2")
    again = await run("setup", "test")
    assert results(again) == {"setup": "passed", "test": "passed"}
    assert "test runs" in why(again, "setup")
    assert results(await run("setup", "test")) == {"setup": "cached", "test": "cached"}
    (run.project / "src/a.py").write_text("changed")
    assert "phase setup before it changed" in why(await run("setup", "test"), "test")


async def test_a_plan_tells_what_would_be_skipped(run: Runs):
    """The forecast is what the next run does."""
    first = await run("build", "test", "always")
    forecast = run.forecast("build", "test", "always")
    assert [decision.skips for decision in forecast] == [True, True, False]
    assert first.run_id in forecast[0].why


async def test_a_phase_of_which_something_stayed_away_runs_again(run: Runs):
    """What may not come back is not there in a run that skips the phase, so it is not skipped."""
    file = run.project / "make.toml"
    file.write_text(
        FILE + '[lifecycle.edit]\ncommand = "edit"\ncleanroom.cache = { inputs = ["src/**"] }\n'
    )
    run.programs["edit"] = succeed(files={"make.toml": b"other"})
    await run("edit")
    await run("edit")
    assert run.executed == ["edit"]
