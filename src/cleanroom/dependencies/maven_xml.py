"""Maven's XML: projects, settings and extensions, read without entities or other documents. Pure.

A document type is refused: entities are declared there, and Maven's files need none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape

BYTES_MAX = 4 << 20
DEPTH_MAX = 64
ELEMENTS_MAX = 100_000


class NotXml(ValueError):
    """A text is no XML that is read here."""


class Node(NamedTuple):
    """An element, without its attributes and namespace."""

    name: str
    text: str = ""
    children: tuple[Node, ...] = ()

    def all(self, name: str) -> tuple[Node, ...]:
        """The children of this name."""
        return tuple(child for child in self.children if child.name == name)

    def at(self, path: str) -> Iterator[Node]:
        """The elements that a path of names leads to, from here."""
        first, _, rest = path.partition("/")
        for child in self.all(first):
            yield from child.at(rest) if rest else (child,)

    def value(self, path: str) -> str:
        """The text of the first element that a path leads to; "" where there is none."""
        return next((node.text for node in self.at(path)), "")


class _Open(NamedTuple):
    name: str
    texts: list[str]
    children: list[Node]


class _Reader:
    """Builds nodes from a parser's calls."""

    def __init__(self) -> None:
        self._open = [_Open("", [], [])]
        self._elements = 0

    def start(self, name: str, _attributes: object) -> None:
        self._elements += 1
        if self._elements > ELEMENTS_MAX or len(self._open) > DEPTH_MAX:
            raise NotXml("it has more elements than any file of Maven's")
        self._open.append(_Open(name.rpartition(":")[2], [], []))

    def end(self, _name: str) -> None:
        done = self._open.pop()
        node = Node(done.name, "".join(done.texts).strip(), tuple(done.children))
        self._open[-1].children.append(node)

    def data(self, text: str) -> None:
        self._open[-1].texts.append(text)

    @property
    def root(self) -> Node:
        return self._open[0].children[0]


def read_xml(content: bytes) -> Node:
    """The root element of a document.

    Raises:
        NotXml: it cannot be read, is too large, or has a document type.
    """
    if len(content) > BYTES_MAX:
        raise NotXml(f"it is larger than {BYTES_MAX} bytes")
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.data
    parser.StartDoctypeDeclHandler = _refuse_document_type
    try:
        parser.Parse(content, True)
    except NotXml:
        raise
    # an encoding that nobody knows is a LookupError or a ValueError
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise NotXml(str(error)) from error
    return reader.root


def write_xml(node: Node) -> str:
    """The element as text."""
    inner = "".join(map(write_xml, node.children)) or escape(node.text)
    return f"<{node.name}>{inner}</{node.name}>"


def _refuse_document_type(*_arguments: object) -> None:
    raise NotXml("it has a document type, which could declare entities")
