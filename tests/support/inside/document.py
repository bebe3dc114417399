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
