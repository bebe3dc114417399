"""Fills poetry's cache with what was verified: a program of the fetch step, inside poetry.

It is loaded as `sitecustomize` by the interpreter that poetry runs in, wherever that is, and uses
poetry's own classes: its cache has a layout that changes from version to version. No project is
built, no package's code runs and no plugin is loaded.

Reads POETRY.json in the current folder: {"projects": [FOLDER...], "files": [{"name", "version",
"file", "url", "sha256", "size", "from"}...]}, where "from" is an address on the loopback that has
the file. Writes FILLED.json: {"artifacts": {URL: FOLDER BELOW THE CACHE}}.
"""

from __future__ import annotations

import html
import importlib
import io
import json
import os
import sys
import time
import traceback
import urllib.request
from email.utils import formatdate
from pathlib import Path
from typing import Any

ORDERS, FILLED = "POETRY.json", "FILLED.json"
PYPI = "https://pypi.org"
# poetry asks again when a page has become too old
YEARS = 10 * 365 * 24 * 3600
HTML, JSON = "text/html", "application/vnd.pypi.simple.v1+json"


def main() -> None:
    """Fill the cache that POETRY_CACHE_DIR names."""
    orders = json.loads(Path(ORDERS).read_bytes())
    files = orders["files"]
    factory = importlib.import_module("poetry.factory").Factory()
    pages = _pypi_pages(files)
    _answer_from(pages, {one["url"]: one["from"] for one in files})
    found: dict[str, str] = {}
    for project in orders["projects"]:
        pool = factory.create_poetry(Path(project), disable_plugins=True).pool
        for repository in pool.repositories:
            found |= _fill(repository, files, pages)
    Path(FILLED).write_text(json.dumps({"artifacts": found}), encoding="utf-8")


def _fill(repository: Any, files: list[dict[str, Any]], pages: dict[str, Any]) -> dict[str, str]:
    """Have one package source of poetry's know these files; returns where it keeps them."""
    package = importlib.import_module("poetry.core.packages.package").Package
    config = importlib.import_module("poetry.config.config").Config.create()
    caches = importlib.import_module("poetry.utils.cache")
    artifacts = caches.ArtifactCache(cache_dir=config.artifacts_cache_directory)
    is_pypi = type(repository).__name__ == "PyPiRepository"
    if not is_pypi:
        pages |= _simple_pages(repository.url, files)
    found = {}
    for name, version in sorted({(one["name"], one["version"]) for one in files}):
        if is_pypi:
            repository.get_package_info(name)
        wanted = package(name, version)
        for link in repository.find_links_for_package(wanted):
            folder = artifacts.get_cache_directory_for_link(link)
            below = folder.relative_to(config.artifacts_cache_directory.parent)
            found[link.url_without_fragment] = str(below)
        # What it depends on is read from a wheel. To know it of other files runs their code.
        own = [one for one in files if (one["name"], one["version"]) == (name, version)]
        if any(one["file"].endswith(".whl") for one in own):
            repository.package(name, wanted.version)
    return found


# --- the pages


def _pypi_pages(files: list[dict[str, Any]]) -> dict[str, tuple[str, bytes]]:
    """What PyPI says of these files: address -> type and text."""
    pages = {}
    for name in {one["name"] for one in files}:
        own = [one for one in files if one["name"] == name]
        listed = [
            {
                "filename": one["file"],
                "url": one["url"],
                "hashes": {"sha256": one["sha256"]},
                "size": one["size"],
                "yanked": False,
            }
            for one in own
        ]
        page = {"meta": {"api-version": "1.0"}, "name": name, "files": listed}
        pages[f"{PYPI}/simple/{name}/"] = JSON, json.dumps(page).encode()
        for version in {one["version"] for one in own}:
            release = [one for one in own if one["version"] == version]
            text = json.dumps(_release(name, version, release)).encode()
            pages[f"{PYPI}/pypi/{name}/{version}/json"] = "application/json", text
    return pages


def _release(name: str, version: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    wheels = [one for one in files if one["file"].endswith(".whl")]
    info: dict[str, Any] = {
        "name": name,
        "version": version,
        "summary": "",
        "requires_python": None,
        # None: poetry reads the wheel
        "requires_dist": None if wheels else [],
        "yanked": False,
    }
    urls = [
        {
            "filename": one["file"],
            "url": one["url"],
            "digests": {"sha256": one["sha256"]},
            "packagetype": "bdist_wheel" if one in wheels else "sdist",
            "size": one["size"],
            "yanked": False,
        }
        for one in files
    ]
    return {"info": info, "urls": urls}


def _simple_pages(index: str, files: list[dict[str, Any]]) -> dict[str, tuple[str, bytes]]:
    """What another index says of these files."""
    pages = {}
    for name in {one["name"] for one in files}:
        links = "".join(
            f'<a href="{html.escape(one["url"])}#sha256={one["sha256"]}">{one["file"]}</a>\n'
            for one in files
            if one["name"] == name
        )
        text = f"<!DOCTYPE html><html><body>\n{links}</body></html>\n"
        pages[f"{index.rstrip('/')}/{name}/"] = HTML, text.encode()
    return pages


# --- instead of the network


class _Body(io.BytesIO):
    """Tells that it has been read to its end as a connection's does: it is kept only then."""

    @property
    def fp(self) -> _Body | None:
        return None if self.tell() == len(self.getbuffer()) else self


def _answer_from(pages: dict[str, tuple[str, bytes]], files: dict[str, str]) -> None:
    """Have requests answered from here; poetry keeps what it gets in its cache."""
    adapter = importlib.import_module("requests.adapters").HTTPAdapter
    response = importlib.import_module("urllib3").HTTPResponse

    def send(self: Any, request: Any, *_: object, **__: object) -> Any:
        kind, body, kept = "application/octet-stream", b"", "no-store"
        # links carry their digest
        url, status = request.url.partition("#")[0], 200
        if url in pages:
            (kind, body), kept = pages[url], f"max-age={YEARS}"
        elif url in files:
            with urllib.request.urlopen(files[url]) as stream:  # noqa: S310
                body = stream.read()
        else:
            status = 404
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": kept,
            "Date": formatdate(time.time(), usegmt=True),
        }
        answer = response(
            body=_Body(body if request.method == "GET" else b""),
            headers=headers,
            status=status,
            reason="",
            version=11,
            preload_content=False,
            request_method=request.method,
        )
        return self.build_response(request, answer)

    adapter.send = send


def _is_poetry() -> bool:
    # The launcher of a version manager may be a Python program too.
    return os.path.isfile(ORDERS) and importlib.util.find_spec("poetry") is not None


if __name__ == "sitecustomize":
    import importlib.util

    if _is_poetry():
        try:
            main()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        # poetry itself is not to start
        os._exit(0)
