"""The table of what became of each attack, `docs/isolation-attacks.md`:
`PYTHONPATH=tests python -m support.attacks.document` carries them out and writes it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from support.attacks.columns import COLUMNS, OTHERWISE
from support.attacks.elsewhere import ELSEWHERE
from support.attacks.host import ATTACKS, HOST_ELSEWHERE, HostAttack
from support.attacks.host_harness import COLUMNS as HOST_COLUMNS
from support.attacks.host_harness import Column
from support.attacks.host_harness import carried_out as carried_out_on_host
from support.attacks.suite import Attack, load
from support.paths import ROOT

DOCUMENT = ROOT / "docs/isolation-attacks.md"
HEAD = """# Attacks

Written by `PYTHONPATH=tests python -m support.attacks.document`;
`tests/attacks` carries the same attacks out at each level, as root and as an ordinary user.
A works, O works and is recorded, B is refused and recorded with process and target, b is refused,
L a limit acts.
What a level refuses, every higher one refuses.

| id | attack | Low | Medium | High | seen at Low | seen at Medium | seen at High |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
REASONS = """
## Cells that are not what the list asks for

"""


HOST_HEAD = """
## The host's side

What a phase, a service or a repository leaves, and what the engine does outside with it
(`docs/isolation.md`).
Each row is carried out by whole runs of the command: as root, as an ordinary user,
as root in that user's project, in tier E3, and in Docker's containers where the mechanism is
shared.
Held: no program was started outside, nothing there was changed,
nothing came back that runs later without a word; with it the exit status of each run.

"""


def seen(attack: Attack, result: dict[str, Any]) -> str:
    """What the steps came to, and what was recorded."""
    if attack.letter == "-":
        return attack.gap
    words = sorted(word for word in set(result["steps"].values()) if not word.isdigit())
    records = sorted(
        {
            attempt["rule"]
            for attempt in result["attempts"]
            if not attempt["tags"] or attack.letter in "BO"
        }
    )
    return (
        f"{', '.join(words) or 'killed'}; "
        f"{'recorded: ' + ', '.join(records) if records else 'no record'}"
    )


def row(attack: Attack, results: dict[str, dict[str, Any]]) -> str:
    columns = [attack.at(level) for level in COLUMNS]
    told = [
        seen(column, results[level].get(attack.id, {}))
        for level, column in zip(COLUMNS, columns, strict=True)
    ]
    return (
        f"| {attack.id} | {attack.title} | "
        f"{' | '.join([*(column.letter for column in columns), *told])} |\n"
    )


def table(results: dict[str, dict[str, Any]]) -> str:
    rows = [row(attack, results) for attack in load().values()]
    rows += [
        f"| {identity} | {title} | - | - | - | {where} | | |\n"
        for identity, (title, where) in ELSEWHERE.items()
    ]
    order = {name: place for place, name in enumerate(("NET", "FS", "PROC", "RES", "CLN"))}
    reasons = [f"- {identity} at {level}: {why}.\n" for (identity, level), why in OTHERWISE.items()]
    return (
        HEAD
        + "".join(sorted(rows, key=lambda line: (order[line[2:].split("-")[0]], line)))
        + REASONS
        + "".join(reasons)
    )


def host_table(cells: dict[tuple[str, str], str]) -> str:
    names = [column.name for column in HOST_COLUMNS]
    head = f"| id | attack | {' | '.join(names)} |\n|{' --- |' * (len(names) + 2)}\n"
    rows = [
        f"| {a.id} | {a.title} | {' | '.join(cells[a.id, name] for name in names)} |\n"
        for a in ATTACKS.values()
    ]
    rows += [
        f"| {identity} | {title} | {where} |{' |' * (len(names) - 1)}\n"
        for identity, (title, where) in HOST_ELSEWHERE.items()
    ]
    return HOST_HEAD + head + "".join(rows)


def host_cell(column: Column, attack: HostAttack) -> str:
    if not column.takes(attack):
        return "-"
    harm, said = carried_out_on_host(attack, column)
    codes = ", ".join(str(answer.code) for answer in said)
    return f"**not held**: {'; '.join(harm)}" if harm else f"held ({codes})"


def carried_out(level: str) -> dict[str, Any]:
    """In a process of its own: at Low it enters a network of its own."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as folder:
        Path(folder).chmod(0o755)
        run = Path(folder, "run")
        run.mkdir()
        subprocess.run(
            [
                sys.executable,
                "-B",
                "-m",
                "support.attacks.collect",
                str(run),
                level,
            ],
            check=True,
        )
        found: dict[str, Any] = json.loads((run / "found.json").read_text())
    return dict(found["results"])


def main() -> None:
    inside = table({level: carried_out(level) for level in COLUMNS})
    cells = {
        (attack.id, column.name): host_cell(column, attack)
        for attack in ATTACKS.values()
        for column in HOST_COLUMNS
    }
    DOCUMENT.write_text(inside + host_table(cells))


if __name__ == "__main__":
    main()
