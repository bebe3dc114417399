"""Parts that sections of the HTML page share: tables, lists, code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cleanroom.evidence.reports.markup import Markup, element


class Cell(NamedTuple):
    """The content of one column of a row."""

    content: str | Markup
    class_: str = ""


class Row(NamedTuple):
    """A row of a table; `id_` is its anchor, if any."""

    cells: tuple[Cell, ...]
    id_: str = ""


def table(columns: Sequence[str], rows: Iterable[Row], empty: str) -> Markup:
    """A table, or the text `empty` where it has no rows.

    Roles are explicit: on a narrow screen each row is shown as a list, and browsers then no longer
    report it as a table.
    """
    found = list(rows)
    if not found:
        return element("p", empty, class_="dim")
    heads = (element("th", column, scope="col", role="columnheader") for column in columns)
    head = element("thead", element("tr", *heads, role="row"), role="rowgroup")
    body = element("tbody", *(_row_element(each, columns) for each in found), role="rowgroup")
    return element("div", element("table", head, body, role="table"), class_="wide")


def _row_element(row: Row, columns: Sequence[str]) -> Markup:
    cells = []
    for column, cell in zip(columns, row.cells, strict=True):
        classes = {"class_": cell.class_} if cell.class_ else {}
        cells.append(element("td", cell.content, data_label=column, role="cell", **classes))
    return element("tr", *cells, role="row", **({"id": row.id_} if row.id_ else {}))


def table_row(*cells: str | Cell, id_: str = "") -> Row:
    return Row(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in cells), id_)


def bullet_list(lines: Sequence[str]) -> Markup:
    return (
        element("ul", *(element("li", line) for line in lines))
        if lines
        else element("p", "None.", class_="dim")
    )


def code_element(text: str) -> Markup:
    return element("code", text)


def section(title: str, *content: Markup | None) -> Markup:
    return element("section", element("h2", title), *content)
