"""Documents that the code writes: `--write` makes them, `--check` fails with the name of each that
differs.

What they say is what the code says, so nobody edits them by hand.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from cleanroom.engine.phases import autorun
from cleanroom.model import events
from cleanroom.model.codes.record import Code
from cleanroom.model.codes.table import AREAS
from cleanroom.model.policy import CONTROLS, LIMITS, REACTIONS, Level, required
from cleanroom.model.rule_codes import RULE_CODES

ROOT = Path(__file__).resolve().parent.parent
GIB, MIB = 1 << 30, 1 << 20


def module(name: str) -> str:
    """What a module prints that writes its own reference."""
    return subprocess.run(
        [sys.executable, "-m", name], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout


def size(count: int) -> str:
    return f"{count // GIB} GiB" if count % GIB == 0 else f"{count // MIB} MiB"


def policy() -> str:
    """The four levels: rules, limits, reactions."""
    head = (
        "| | "
        + " | ".join(level.value for level in Level)
        + " |\n| --- |"
        + " --- |" * len(Level)
        + "\n"
    )
    rules = "".join(
        f"| `{control.rule}`: {control.title} | "
        + " | ".join("yes" if control in required(level) else "" for level in Level)
        + " |\n"
        for control in CONTROLS
    )
    shown: dict[str, Callable[[Level], str]] = {
        "memory, swap included": lambda level: size(LIMITS[level].memory_bytes),
        "processors": lambda level: f"{LIMITS[level].cpus:g}" if LIMITS[level].cpus else "all",
        "processes": lambda level: str(LIMITS[level].pids),
        "disk, and one file": lambda level: size(LIMITS[level].disk_bytes),
        "/tmp, home and /dev/shm, each": lambda level: size(LIMITS[level].tmpfs_bytes),
        "open files": lambda level: str(LIMITS[level].open_files),
        "output kept": lambda level: size(LIMITS[level].output_bytes),
        "wall time": lambda level: f"{LIMITS[level].wall_seconds / 60:g} min",
        "grace after SIGTERM": lambda level: f"{LIMITS[level].grace_seconds:g} s",
        "a violation": lambda level: {
            "warn": "is warned of",
            "fail": "fails its phase at its end",
            "end": "ends its phase at once",
        }[REACTIONS[level]],
    }
    limits = "".join(
        f"| {name} | " + " | ".join(value(level) for level in Level) + " |\n"
        for name, value in shown.items()
    )
    return f"""# Policy levels

Each level contains the one before it.
What a level requires is proven by canaries in every environment of every run;
a rule that this machine cannot hold refuses the run (exit 3) and names what would help.
`cleanroom-engine doctor` tells which levels can be held here:
this version holds Low, Medium and High; Locked is refused by name.

## Rules

{head}{rules}
## The caller's programs

At Low the phase has the caller's own home and variables.
At Medium the folders of PATH outside the system's own are shown read-only at their own paths, with
the installations that they belong to: pyenv, rustup, nvm, uv, pipx, asdf, mise, SDKMAN and others
in the home folder, a project's virtual environment and its interpreter. `plan` lists them.
The home inside is another one, so each is told where it lies (`PYENV_ROOT`, `ASDF_DATA_DIR`,
`MISE_DATA_DIR`, `UV_PYTHON_INSTALL_DIR`, ...), and asdf and mise get the names and versions of
`~/.tool-versions` and mise's own configuration, not the variables that it may hold.
Nothing else of the home folder is there; a configuration beside programs that names a credential
(`etc/npmrc`, `pip.conf`, `.condarc`) is an empty file.
From High on the system's programs and `cleanroom.tools` are all there is.

## Programs that a phase built

From High on nothing that was written is started, whoever wrote it.
`go test` starts a binary in the folder for temporary files, cargo its build scripts in `target/`:
`cleanroom.builds = true` lets programs start in `/tmp` and in the folders among the phase's
`outputs`, and nowhere else.
A phase that needs it says so (`CR-PHASE-011`), with the lines to add.

## Limits

Downwards freely (`cleanroom.limits`), upwards only with a written `cleanroom.reason`.
What a phase writes in its home's `.cache` ([cache.md](cache.md)) counts as disk.

{head}{limits}
The limit of a core file is one byte, soft and hard, at every level:
no core file is written, and a crash starts no handler that the host's `core_pattern` pipes it to,
which a limit of 0 would.
It cannot be changed inside; asking for less succeeds.
What remains: where the pattern names a socket (`@/path`,
since Linux 6.16) the kernel connects to it whatever the limit.

## Letting a rule go

`allow_degraded = ["RULE"]` in the file and `--allow-degraded RULE` on the command line together let
a rule go.
The first and last line and every report then say DEGRADED.
Neither alone does anything.
"""


def starts() -> str:
    """What tools of the host start by themselves."""
    rows = "".join(
        f"| {row.by} | {row.why} | {' '.join(f'`{name}`' for name in row.names.split())} |\n"
        for row in autorun.TABLE
    )
    packages = ", ".join(f"`{name}`" for name in autorun.PACKAGES)
    return f"""# What starts by itself

<!-- Generated by `python scripts/generated_docs.py --write`; a test compares. -->

Files that something on this machine starts, or takes as its configuration,
without anybody naming them.
A phase that passed may bring them back: then one line names some and counts all
(`CR-WORKSPACE-005`), and the reports list them.
From a phase that did not pass they come only where they are declared outputs.

Names count at any depth and in any case: `NAME`, `*.SUFFIX`, `FOLDER/NAME`,
`FOLDER/*` (right in the folder), `FOLDER/` (all below it).
In {packages}
only programs and what the interpreter runs count.
Not in the table is what a person starts by name or what is there to be built:
sources, `Makefile`, `package.json`, `Cargo.toml`.
A program that a make.toml names and that a phase made is listed too.

A link counts for what it leads to: with `.cargo` a link to `cfg` the link is listed,
and `cfg/config.toml` as started through it, from the run that made the link and from later ones
that change what lies behind a link in a folder above it.

| what | why | names |
| --- | --- | --- |
{rows}"""


def error_codes() -> str:
    """What `explain` says of every code, by area."""
    sections = [
        """# Error codes

<!-- Generated by `python scripts/generated_docs.py --write`; a test compares. -->

Each error and many notes end with a code.
`cleanroom-engine explain CODE` prints what stands here, without a network.
A code never changes its meaning.
"""
    ]
    for area in AREAS:
        heading = (area.__doc__ or "").removesuffix(".")
        sections += [f"## {heading}\n", *map(error_code, area.CODES)]
    return "\n".join(sections)


def error_code(code: Code) -> str:
    """One of them, with a heading that can be linked."""
    language = "console" if code.is_command else "toml"
    example = "\n".join(code.example_lines)
    rule = "".join(f"\n\nRule: `{rule}`." for rule, of in RULE_CODES.items() if of == code.code)
    return f"""### {code.code}

**{plain(code.title)}**{rule}

{plain(textwrap.dedent(code.text).strip())}

```{language}
{example}
```
"""


def plain(text: str) -> str:
    """Text as Markdown shows it unchanged, but for what stands in backticks."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"[*<]", r"\\\g<0>", part) for part in parts[::2]]
    return "`".join(parts)


def of_tests(name: str) -> str:
    """What a module of the tests' support prints. Nothing is carried out here: tests do that."""
    variables = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("src", "tests", "scripts"))
    }
    argv = [sys.executable, "-B", "-m", name]
    return subprocess.run(
        argv, capture_output=True, text=True, check=True, cwd=ROOT, env=variables
    ).stdout


DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/make-toml.md": lambda: module("cleanroom.project.keys_page"),
    "docs/commands.md": lambda: module("cleanroom.cli.reference"),
    "data/share/man/man1/cleanroom-engine.1": lambda: module("cleanroom.cli.manual"),
    "docs/events.schema.json": lambda: json.dumps(events.schema(), indent=2, sort_keys=True) + "\n",
    "docs/policy.md": policy,
    "docs/codes.md": error_codes,
    "docs/autorun.md": starts,
    "docs/faults.md": lambda: of_tests("support.faults.document"),
    "docs/ecosystems.md": lambda: of_tests("support.ecosystems_document"),
    "docs/inside.md": lambda: of_tests("support.inside.document"),
}


def main() -> int:
    if sys.argv[1:] not in (["--check"], ["--write"]):
        print("usage: generated_docs.py --check | --write")
        return 2
    differing = [
        name
        for name, make in DOCUMENTS.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != make()
    ]
    for name in differing:
        if sys.argv[1] == "--write":
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(DOCUMENTS[name]())
        stale = "is not what the code says; run `python scripts/generated_docs.py --write`"
        print(f"{name}: {'written' if sys.argv[1] == '--write' else stale}")
    return int(bool(differing) and sys.argv[1] == "--check")


if __name__ == "__main__":
    sys.exit(main())
