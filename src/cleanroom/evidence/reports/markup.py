"""Markup that cannot be broken by what is put into it: text becomes markup only through `element`,
which escapes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from cleanroom.evidence.reports.text import plain

_WITHOUT_CONTENT = frozenset({"meta", "line", "rect", "path", "polyline", "br"})


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, /, *children: str | None, **attributes: str | float) -> Markup:
    """`<name attributes>children</name>`; children that are not `Markup` are escaped,
    None is left out.

    Attribute names: one trailing underscore goes (`class_`), others become hyphens (`text_anchor`).
    """
    written = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{_text(_number(value))}"'
        for key, value in attributes.items()
    )
    if name in _WITHOUT_CONTENT:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str | None], between: str = "") -> Markup:
    """Children side by side."""
    return Markup(
        between.join(
            child if isinstance(child, Markup) else _text(child)
            for child in children
            if child is not None
        )
    )


def _text(text: str) -> str:
    return escape(plain(text))


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
