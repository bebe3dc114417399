"""docs/faults.md from the rows that the tests carry out, and from those that other tests prove."""

from __future__ import annotations

from support.faults.elsewhere import ELSEWHERE
from support.faults.suite import load
from support.paths import ROOT

DOCUMENT = ROOT / "docs/faults.md"
HEAD = """# Faults

What goes wrong, what comes of it, the exit code, and what is read.
Written by `scripts/generated_docs.py` from the rows of `tests/faults`,
each of which is carried out by the real command: the code,
the words and that nothing is left behind are what the tests assert.

"""


def table() -> str:
    areas: dict[str, list[str]] = {}
    for row in load().values():
        on = f" ({', '.join(row.engines)})" if row.engines else ""
        code = (
            f"{row.code}"
            if row.code_by_samples is None
            else f"{row.code}, by samples {row.code_by_samples}"
        )
        areas.setdefault(row.area, []).append(
            f"| {row.name}{on} | {row.happens} | {code} | `{row.says}` | |\n"
        )
    for area, name, happens, code, where in ELSEWHERE:
        areas.setdefault(area, []).append(f"| {name} | {happens} | {code} | | `{where}` |\n")
    return HEAD + "\n".join(
        (
            f"## {area[0].upper()}{area[1:]}\n\n"
            "| fault | what happens | exit | what is read | proven elsewhere |\n"
            f"| --- | --- | --- | --- | --- |\n{''.join(rows)}"
        )
        for area, rows in areas.items()
    )


if __name__ == "__main__":
    print(table(), end="")
