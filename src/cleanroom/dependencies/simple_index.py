"""Pages of a Python package index: JSON of PEP 691, or HTML of PEP 503. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import quote, unquote, urldefrag, urljoin, urlsplit

import msgspec

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.digests import is_digest

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
# No folder, no control character, and none that a shell or an option would read otherwise.
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.(?:whl|tar\.gz|zip|tar\.bz2|tgz)")


# The parser takes a hundred times as much memory for a page of hostile attributes.
HTML_MAX = 16 << 20  # 50,000 files; PyPI answers in JSON
FILES_MAX = 50_000  # of one page: each takes some 70 us to be judged


class IndexFile(NamedTuple):
    """One file that an index has of a package."""

    file: str
    url: str
    digest: str = ""  # "sha256:..."; "" where the index gives none
    size: int = 0


def normalized(name: str) -> str:
    """The name as indexes write it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def page_url(index: str, name: str) -> str:
    """Where an index has a package's page."""
    return f"{index.rstrip('/')}/{quote(normalized(name), safe='')}/"


def is_file_name(name: str) -> bool:
    """Whether a file of this name may lie in a view."""
    return len(name) < 250 and _FILE.fullmatch(name) is not None


def files(content: bytes, url: str, digests: Collection[str] | None = None) -> list[IndexFile]:
    """The files of a page that was read from `url`; those with odd names or addresses are left
    out, and with `digests` those that have none of these.
    """
    found = _json_files(content) if content.lstrip().startswith(b"{") else _html_files(content)
    made: list[IndexFile] = []
    for one in found:
        if digests is not None and one.digest not in digests:
            continue
        if len(made) == FILES_MAX:
            break
        try:
            joined = urljoin(url, one.url)
        except ValueError:
            continue
        valid = is_web_address(joined) and (not one.digest or is_digest(one.digest))
        if valid and is_file_name(one.file):
            made.append(one._replace(url=joined))
    return made


class _Json(msgspec.Struct):
    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None


class _Page(msgspec.Struct):
    files: list[_Json] = []


def _json_files(content: bytes) -> Iterator[IndexFile]:
    try:
        page = msgspec.json.decode(content, type=_Page)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    for one in page.files:
        digest = one.hashes.get("sha256", "").lower()
        size = max(one.size or 0, 0)
        yield IndexFile(one.filename, one.url, f"sha256:{digest}" if digest else "", size)


def _html_files(content: bytes) -> Iterator[IndexFile]:
    if len(content) > HTML_MAX:
        return
    parser = _Links()
    # The parser asserts what declarations look like (`<![a`).
    with suppress(AssertionError):
        parser.feed(content.decode(errors="replace"))
    for link in parser.links:
        try:
            address, fragment = urldefrag(link)
            name = unquote(urlsplit(address).path).rpartition("/")[2]
        except ValueError:
            continue
        digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
        yield IndexFile(name, address, f"sha256:{digest[1].lower()}" if digest else "")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]
