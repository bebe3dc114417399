"""The page `docs/inside.md`: what programs do inside as they do outside, made of the rows."""

from __future__ import annotations

from support.inside.rows import GROUPS, Row

# column of the page -> columns of the tests that it stands for
COLUMNS = {
    "Medium": ("root Medium", "user Medium"),
    "High": ("root High",),
    "tier E3": ("E3",),
    "Docker": ("docker",),
}
HEAD = """# Inside as outside

What programs do in a phase as they do outside, and where that differs.
Each row is carried out by a shell outside and by phases of the real command (`tests/inside`), with
the same files afterwards: at Medium as root and as an ordinary user, at High, in tier E3 and in
Docker's containers.
"same" is what happens outside; "-": that column was not tried.
What is no program's business but a bound of ours stands in [limits.md](limits.md).

Where a column differs, this is why: overlayfs renames no folder of a layer below and splits hard
links, and pid 1 of an environment prepares both; in containers pid 1 is a small program in C that
knows no such order.
A container shows the machine's own `/proc` and `/sys`, as its engine made them.
Without namespaces (tier E3) nothing can be shown at a place where the caller has something else,
so a git folder elsewhere is not there, and nobody's network is the environment's own.
At High only listed programs are started, and none looks into another.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_table(title, rows) for title, rows in GROUPS.items())


def _table(title: str, rows: tuple[Row, ...]) -> str:
    head = f"\n## {title}\n\n| what | outside | " + " | ".join(COLUMNS) + " |\n"
    line = "| --- " * (len(COLUMNS) + 2) + "|\n"
    cells = [[row.kind, row.outside, *(_cell(row, name) for name in COLUMNS)] for row in rows]
    return head + line + "".join(f"| {' | '.join(row)} |\n" for row in cells)


def _cell(row: Row, name: str) -> str:
    tried = [column for column in COLUMNS[name] if not row.only or column in row.only]
    if not tried:
        return "-"
    return next((row.gaps[column] for column in tried if column in row.gaps), "same")


if __name__ == "__main__":
    print(page(), end="")
