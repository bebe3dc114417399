"""The table of what became of each attack, `docs/isolation-attacks.md`: `python tests/attacks/attack_table.py` carries them out and writes it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from attack_collect import collect
from attack_elsewhere import ELSEWHERE
from attack_suite import Attack, load

DOCUMENT = Path(__file__).parents[2] / "docs/isolation-attacks.md"
HEAD = """# Attacks on the embedded backend at Medium

Written by `python tests/attacks/attack_table.py`; `tests/attacks` carries the same attacks out, as root and as an ordinary user.
Medium: A works, O works and is recorded, B is refused and recorded with process and target, b is refused, L a limit acts.

| id | attack | Medium | seen |
| --- | --- | --- | --- |
"""


def row(attack: Attack, result: dict[str, Any]) -> str:
    """One line: what the steps came to, and what was recorded."""
    words = sorted(set(result["steps"].values()) - {str(number) for number in range(100_000)})
    records = sorted({attempt["rule"] for attempt in result["attempts"] if not attempt["tags"] or attack.medium in "BO"})
    seen = f"{', '.join(words) or 'killed'}; {'recorded: ' + ', '.join(records) if records else 'no record'}"
    return f"| {attack.id} | {attack.title} | {attack.medium} | {seen}{'. Gap: ' + attack.gap if attack.gap else ''} |\n"


def table(results: dict[str, Any]) -> str:
    rows = [row(attack, results[attack.id]) for attack in load().values()]
    rows += [f"| {identity} | {title} | - | {where} |\n" for identity, (title, where) in ELSEWHERE.items()]
    order = {name: place for place, name in enumerate(("NET", "FS", "PROC", "RES", "CLN"))}
    return HEAD + "".join(sorted(rows, key=lambda line: (order[line[2:].split("-")[0]], line)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        DOCUMENT.write_text(table(asyncio.run(collect(Path(folder)))["results"]))


if __name__ == "__main__":
    main()
