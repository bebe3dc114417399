"""What is fuzzed: for each kind of file that a command reads,
where inputs come from and what is claimed of every one.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import msgspec

from cleanroom.backends import cleanup as machine
from cleanroom.cli.views.failure import explain
from cleanroom.core.clock import SystemClock
from cleanroom.dependencies.model import Artifact, Fetched, Stored
from cleanroom.dependencies.store import Store
from cleanroom.evidence.audit.chain import encode_head
from cleanroom.evidence.audit.log import AuditLog, Genesis, Head, verify
from cleanroom.evidence.tracing import otlp_json, spans
from cleanroom.model.errors import ArtifactError, CleanroomError
from cleanroom.model.events import encode
from cleanroom.project import loader, state
from cleanroom.sandbox.journal import Journal
from cleanroom.services.templates import TemplateCache
from support.fuzzing import event_log_generator, make_toml_generator
from support.fuzzing.claims import LOCATED, CommandResult, bounded, call, check, watched
from support.fuzzing.hostile_text import TEXTS, mutated, one, sometimes
from support.open_folders import open_folder
from support.paths import TESTS

FIXTURES = TESTS / "fixtures"
KEPT = FIXTURES / "fuzz"  # one folder per target: what once broke a claim, and what reaches far
NEXT = b"\n#### the next file\n"  # between the two files of one input
GROUPS = Path("/sys/fs/cgroup")  # where `sweep` asks, by making one, whether groups can be made
RUN = "20261124-023501-k3f9x"

Claims = Callable[[Path, bytes], None]


class Target(NamedTuple):
    """`claims` gets an empty folder and an input; it raises `Broken` or lets an exception of the
    product through where a claim fails.
    """

    name: str
    text: str
    claims: Claims
    seeds: Callable[[], list[bytes]]
    fresh: Callable[[Random], bytes] | None = None
    words: Sequence[bytes] = ()
    weight: int = 2  # its share of a campaign: what costs most per input gets least

    def inputs(self) -> list[bytes]:
        """The kept inputs, then the seeds."""
        return [path.read_bytes() for path in sorted((KEPT / self.name).glob("*"))] + self.seeds()

    def made(self, random: Random, known: Sequence[bytes]) -> bytes:
        """A new input: made from nothing, or changed from a known one."""
        if self.fresh is not None and (not known or not sometimes(random, 3)):
            made = self.fresh(random)
            return mutated(random, made, known, self.words) if sometimes(random, 3) else made
        return mutated(random, known[random.randrange(len(known))], known, self.words)


@contextmanager
def surroundings(folder: Path, **further: str) -> Iterator[None]:
    """The environment of a caller who has nothing, not even programs:
    looking at a thousand of them would be most of the time.
    """
    known = dict(os.environ)
    os.environ.clear()
    os.environ.update(
        {
            "HOME": str(folder / "home"),
            "PATH": str(folder / "bin"),
            "CLEANROOM_CACHE": str(folder / "cache"),
            "NO_COLOR": "1",
            **further,
        }
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(known)


def _choice(data: bytes, *of: Sequence[str]) -> list[str]:
    """Steady: the same input is always read by the same command."""
    return list(of[zlib.crc32(data) % len(of)])


def _project(folder: Path, data: bytes, name: str = "make.toml") -> Path:
    root = folder / "project"
    (root / "sub").mkdir(parents=True)
    (root / name).write_bytes(data)
    return root


def _located(said: CommandResult) -> None:
    of_file = "CR-USAGE-" not in said.err.split("\n", 1)[0]
    check(
        said.status != 2 or not of_file or LOCATED.match(said.err) is not None,
        "an error without its place",
        said,
    )


def _read(root: Path, data: bytes) -> None:
    commands = (
        ["plan", "--output", "json"],
        ["plan", "--env", "prod"],
        ["plan", "test"],
        ["config", "show", "--origin"],
        ["config", "show", "--env", "ci", "--output", "json"],
    )
    for command in (["plan"], _choice(data, *commands)):
        _located(call([*command, "--root", str(root)], statuses=(0, 2)))


def make_toml(folder: Path, data: bytes) -> None:
    root = _project(folder, data)
    with surroundings(folder):
        _read(root, data)


def workspaces(folder: Path, data: bytes) -> None:
    """Two files: the project's and that of its workspace `sub`."""
    first, _, second = data.partition(NEXT)
    root = _project(
        folder, b'[workspace.api]\npath = "sub"\n' + first if zlib.crc32(data) % 2 else first
    )
    (root / "sub" / "make.toml").write_bytes(second)
    (root / "link").symlink_to("/etc")
    with surroundings(folder):
        _read(root, data)


def floor(folder: Path, data: bytes) -> None:
    root = _project(
        folder,
        (
            b'[lifecycle.test]\ncommand = "true"\ncleanroom.egress = ["a.example:443"]\n'
            b'cleanroom.image = "x:1"\n'
        ),
    )
    file = root / "config.toml"
    file.write_bytes(data)
    defaults = loader.load.__kwdefaults__
    known = defaults["floor"]
    defaults["floor"] = file
    try:
        with surroundings(folder):
            said = call(["plan", "--root", str(root)], statuses=(0, 3))
            check(
                said.status == 0 or "config.toml" in said.err,
                "a refusal that does not name the file that wants it",
                said,
            )
    finally:
        defaults["floor"] = known


def init(folder: Path, data: bytes) -> None:
    """What `init --from` writes loads where the original does."""
    root = _project(folder, data, "other.toml")
    with surroundings(folder):
        wrote = call(
            ["init", "--root", str(root), "--from", str(root / "other.toml")],
            statuses=(0, 2),
            writes=(root / "make.toml", root / ".gitignore"),
        )
        _located(wrote)
        check(
            (wrote.status == 0) == (root / "make.toml").exists(),
            "a file where there was an error, or none where there was none",
            wrote,
        )
        if wrote.status == 0:
            converted = call(["plan", "--root", str(root)], statuses=(0, 2))
            (root / "make.toml").write_bytes(data)
            original = call(["plan", "--root", str(root)], statuses=(0, 2))
            check(
                converted.status == 0 or original.status == 2,
                "a file that loads was made into one that does not",
                converted,
            )


def ggen_state(folder: Path, data: bytes) -> None:
    """The input as ggen's file or as ours: refused with its place and left as it is,
    or everything that was in it is kept.
    """
    root = _project(folder, b"")
    name = (state.STATE, state.OURS)[zlib.crc32(data) % 2]
    (root / name).parent.mkdir(parents=True)
    (root / name).write_bytes(data)
    error: CleanroomError | None = None
    project = open_folder(root)
    with bounded(), watched([root / ".ggen"]) as touched:
        try:
            state.record(
                project,
                [state.PhaseRecord(phase="test", started_ms=1, duration_ms=2, success=True)],
            )
        except CleanroomError as refused:
            error = refused
    check(touched == [], f"state.record touched {touched}")
    if error is None:
        written = json.loads((root / state.STATE).read_bytes())
        check(
            any(entry["phase"] == "test" for entry in written["phase_history"]),
            "what ran is not in ggen's file",
        )
        state.record(open_folder(root), [])
    else:
        shown = explain(error)
        check(
            shown.status == 2 and LOCATED.match(shown.text) is not None,
            "an error without its place",
            CommandResult(shown.status, "", shown.text),
        )
        check((root / name).read_bytes() == data, "a broken file was changed")


def events(folder: Path, data: bytes) -> None:
    root = _project(folder, b"")
    file = root / ".ggen" / "cleanroom" / "runs" / RUN / "events.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    out = folder / "out"
    commands = (
        ["events", "show"],
        ["events", "show", "--output", "jsonl"],
        ["events", "replay", "-vv"],
        ["events", "replay", "-q"],
    )
    with surroundings(folder):
        _located(call([*_choice(data, *commands), "--root", str(root)], statuses=(0, 2)))
        made = call(
            ["report", "--from", str(file), "--report-dir", str(out), "--root", str(root)],
            statuses=(0, 2),
            writes=(out,),
        )
    _located(made)
    if made.status == 0:
        event_log_generator.check_reports(out)


def trace(folder: Path, data: bytes) -> None:
    """The trace file of the newest of two runs."""
    root = _project(folder, b"")
    for name, content in ((RUN, data), ("20260101-000000-aaaaa", _traces()[0])):
        file = root / ".ggen" / "cleanroom" / "runs" / name / "trace.otlp.json"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        (file.parent / "events.jsonl").touch()
    commands = (
        ["trace"],
        ["trace", "--critical-path"],
        ["trace", "--output", "json"],
        ["trace", "--compare", "1"],
        ["trace", "--compare", "1", "--output", "json"],
    )
    with surroundings(folder):
        _located(call([*_choice(data, *commands), "--root", str(root)], statuses=(0, 2)))


def audit(folder: Path, data: bytes) -> None:
    """The log and its head: the verdict is 0 or 1, nothing is repaired by looking,
    and an engine goes on or refuses by name.
    """
    log, _, head = data.partition(NEXT)
    root = _project(folder, b"")
    place = root / ".ggen" / "cleanroom" / "audit"
    place.mkdir(parents=True)
    (place / "audit.jsonl").write_bytes(log)
    if head != b"none":
        (place / "audit.head").write_bytes(head)
    with surroundings(folder):
        verified = call(
            ["audit", "verify", *_choice(data, [], ["--output", "json"]), "--root", str(root)],
            statuses=(0, 1),
        )
        call(
            [
                "audit",
                "show",
                *_choice(data, [], ["--output", "json"], ["--output", "jsonl"]),
                "--root",
                str(root),
            ],
            statuses=(0,),
        )
    with bounded():
        try:
            _log(place).open()
        except ArtifactError as refused:
            check(verified.status == 1, f"a log that verifies is refused: {refused}", verified)
            check((place / "audit.jsonl").read_bytes() == log, "a log that was refused was changed")
        else:
            check(
                verified.status == 1 or verify(open_folder(place)).valid,
                "a valid log became invalid by going on",
            )


def journal(folder: Path, data: bytes) -> None:
    """A journal of a run that nobody lives of, and the owner file of a folder in the cache."""
    written, _, owner = data.partition(NEXT)
    root = _project(folder, b"")
    file = root / ".ggen" / "cleanroom" / "runs" / RUN / "journal.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(written)
    scratch = folder / "cache" / "runs" / RUN
    scratch.mkdir(parents=True)
    (scratch / "owner").write_bytes(owner)
    (folder / "victim").mkdir()
    groups = machine._groups
    # those of this machine's other runs are nobody's to remove here
    machine._groups = lambda folders: iter(())
    try:
        with surroundings(folder):
            call(
                ["sweep", *_choice(data, [], ["--output", "json"]), "--root", str(root)],
                statuses=(0, 1),
                writes=(file.parent, scratch, GROUPS),
            )
    finally:
        machine._groups = groups
    check(
        file.read_bytes().startswith(written) and (folder / "victim").exists(),
        "a sweep removed what was not its own",
    )


def cache(folder: Path, data: bytes) -> None:
    """A template's manifest and the cache's secret: another folder's content is a miss,
    never an error.
    """
    manifest, _, secret = data.partition(NEXT)
    place = folder / "cache" / "templates" / "key"
    (place / "data").mkdir(parents=True)
    (place / "data" / "file").write_bytes(b"1234")
    (place / "complete.json").write_bytes(manifest)
    (folder / "cache" / "secret").write_bytes(secret)
    kept = TemplateCache(folder / "cache")
    with bounded(), watched([folder / "cache"]) as touched:
        found = kept.lookup("key")
        code = ""
        try:
            kept.secret("key")
        except CleanroomError as refused:
            code = refused.code
        with kept.building("other") as building:
            assert building is not None
            (building / "file").write_bytes(b"x")
    check(touched == [], f"the cache touched {touched}")
    check(
        code == ("" if len(secret) == 32 else "CR-SERVICE-014"),
        f"a secret of {len(secret)} bytes: {code}",
    )
    check(found is not None or not place.exists(), "an incomplete template was left")


def store(folder: Path, data: bytes) -> None:
    """A set of packages, the file that names a view's sets, and what a dead run used:
    `cache show` changes nothing, and `cache prune` nothing but the store.
    """
    described, _, named = data.partition(NEXT)
    root = _project(folder, b"")
    (folder / "cache").mkdir(mode=0o700)
    place = Store(folder / "cache").path
    (place / "sets" / "npm-1.json").write_bytes(described)
    (place / "views" / "one").mkdir()
    (place / "layouts" / "one").write_bytes(named)
    (place / "uses" / "dead").write_bytes(named)
    (folder / "victim").write_bytes(b"x")
    form = _choice(data, [], ["--output", "json"])
    limits = _choice(data, [], ["--keep", "0"], ["--unused", "1ms"])
    with surroundings(folder):
        # it makes sure of the store's folders, which are there
        call(
            ["cache", "show", *form, "--root", str(root)],
            statuses=(0,),
            writes=(place,),
        )
        check((place / "sets" / "npm-1.json").read_bytes() == described, "showing changed a set")
        call(
            ["cache", "prune", *limits, *form, "--root", str(root)],
            statuses=(0,),
            writes=(folder / "cache",),
        )
    check((folder / "victim").exists(), "pruning removed what was not its own")


def _log(place: Path) -> AuditLog:
    return AuditLog(
        open_folder(place),
        RUN,
        Genesis(plan_sha256="0", policy_sha256="0", engine_version="0"),
        SystemClock(),
    )


def _tomls() -> list[bytes]:
    return [path.read_bytes() for path in sorted((FIXTURES / "corpus").glob("*make.toml"))]


def _states() -> list[bytes]:
    record = {"phase": "init", "started_ms": 1, "duration_ms": 2, "success": True}
    theirs = {
        "last_phase": "init",
        "phase_history": [record],
        "generated": [],
        "cache_keys": [{"phase": "init", "key": "k"}],
        "phases_run": ["init"],
    }
    ours = {
        "schema": "cleanroom.state/1",
        "records": [record],
        "production_score": 9.5,
        "last_validation": "x",
    }
    return [json.dumps(each, indent=2).encode() for each in (theirs, ours, {})]


def _events() -> list[bytes]:
    return [
        b"".join(encode(envelope) + b"\n" for envelope in story)
        for story in event_log_generator.told()
    ]


@functools.cache
def _traces() -> list[bytes]:
    return [otlp_json(spans(story)) for story in event_log_generator.told()]


def _audits() -> list[bytes]:
    import tempfile

    found = []
    for story in event_log_generator.told():
        with tempfile.TemporaryDirectory() as name:
            log = _log(Path(name))
            log.open()
            log.append(story[:12])
            log.close()
            text = (Path(name) / "audit.jsonl").read_bytes()
            found += [
                text + NEXT + (Path(name) / "audit.head").read_bytes(),
                text + NEXT + b"none",
                text + text.splitlines(keepends=True)[0][:50] + NEXT + encode_head(log.head),
            ]
    return [*found, NEXT + encode_head(Head())]


def _journals() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        written = Journal.at(open_folder(Path(name)))
        written.open(RUN)
        thing = written.make("folder", "../victim")
        written.make("cgroup", "/sys/fs/cgroup/none")
        written.gone(thing)
        text = Path(name, "journal.jsonl").read_bytes()
        written.close()
    dead = text.replace(str(os.getpid()).encode() + b":", b"4194999:")
    return [dead + NEXT + b"4194999:5", dead + NEXT, dead + NEXT + b"x:y"]


def _caches() -> list[bytes]:
    return [
        b'{"files":1,"bytes":4}' + NEXT + b"s" * 32,
        b'{"files":2,"bytes":4}' + NEXT,
        b"" + NEXT,
    ]


def _stores() -> list[bytes]:
    artifact = Artifact(name="a", version="1", file="a.tgz", url="https://registry.example/a.tgz")
    stored = Stored(artifact=artifact, sha256="0" * 64, size=7)
    known = Fetched(manager="npm", folder="", name="package-lock.json", files=(stored,))
    outside = msgspec.structs.replace(stored, sha256="../../victim", size=-1)
    led = msgspec.structs.replace(known, files=(outside,))
    return [
        *(msgspec.json.encode(one) + NEXT + b"npm-1 npm-2" for one in (known, led)),
        NEXT + b"\xff../../../victim",
    ]


def _two(random: Random) -> bytes:
    return make_toml_generator.make_toml(random) + NEXT + make_toml_generator.make_toml(random)


def _floor(random: Random) -> bytes:
    lines = (
        f"policy = {make_toml_generator.value(random, 'level')}",
        f"backend = {make_toml_generator.value(random, 'backend')}",
        f"egress = {make_toml_generator.value(random, 'egress')}",
        f"images = {make_toml_generator.value(random, 'texts')}",
        f"{make_toml_generator.key(one(random, TEXTS))} = 1",
    )
    return "\n".join(
        lines[random.randrange(len(lines))] for _ in range(random.randrange(4))
    ).encode("utf-8", "surrogatepass")


TARGETS = {
    target.name: target
    for target in (
        Target(
            "make.toml",
            "`plan`, `config show` of a make.toml",
            make_toml,
            _tomls,
            make_toml_generator.make_toml,
            make_toml_generator.WORDS,
            weight=3,
        ),
        Target(
            "workspaces",
            "the same of a project and its workspace",
            workspaces,
            lambda: [NEXT.join(_tomls()[:2])],
            _two,
            make_toml_generator.WORDS,
        ),
        Target(
            "init",
            "`init --from`, and the plan of what it wrote",
            init,
            _tomls,
            make_toml_generator.make_toml,
            make_toml_generator.WORDS,
            weight=1,
        ),
        Target(
            "floor",
            "`plan` under an organisation's config.toml",
            floor,
            lambda: [b'policy = "Medium"\negress = ["*.example:443"]\n'],
            _floor,
            make_toml_generator.WORDS,
            weight=3,
        ),
        Target("state", "both state.json, as ggen wrote them", ggen_state, _states, weight=3),
        Target(
            "events",
            "`events show`, `events replay`, `report --from` of an events.jsonl",
            events,
            _events,
            event_log_generator.as_lines,
            weight=1,
        ),
        Target(
            "trace",
            "`trace` of a trace.otlp.json, and compared with another",
            trace,
            _traces,
            weight=3,
        ),
        Target(
            "audit",
            "`audit verify`, `audit show` and the next run's start on a log and its head",
            audit,
            _audits,
            weight=3,
        ),
        Target("journal", "`sweep` of a dead run's journal and owner file", journal, _journals),
        Target(
            "cache",
            "a service template of the user's cache, and its secret",
            cache,
            _caches,
            weight=3,
        ),
        Target(
            "store",
            "`cache show` and `cache prune` of what is known of fetched packages",
            store,
            _stores,
            weight=3,
        ),
        Target(
            "stories",
            "every display and report of events with hostile text",
            event_log_generator.claims,
            _events,
            event_log_generator.as_lines,
            weight=1,
        ),
    )
}
