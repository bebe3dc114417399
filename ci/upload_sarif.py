"""Gives a run's SARIF file to GitHub's code scanning, by its REST interface.

The file's places are relative to the project, code scanning's to the repository.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import posixpath
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

SECONDS = 60.0
# What GitHub answers where the token may not: pull requests of forks, code scanning switched off.
_NOT_ALLOWED = (403, 404)


def below(document: dict[str, Any], folder: str) -> dict[str, Any]:
    """The file with each place below `folder`, a path relative to the repository."""
    prefix = posixpath.normpath(folder)
    if prefix == ".":
        return document
    for run in document["runs"]:
        for result in run["results"]:
            for location in result["locations"]:
                artifact = location["physicalLocation"]["artifactLocation"]
                artifact["uri"] = f"{urllib.parse.quote(prefix)}/{artifact['uri']}"
    return document


def request(environ: dict[str, str], document: dict[str, Any]) -> urllib.request.Request:
    """What is asked of the REST interface."""
    packed = gzip.compress(json.dumps(document).encode())
    body = {
        "commit_sha": environ["GITHUB_SHA"],
        "ref": environ["GITHUB_REF"],
        "sarif": base64.b64encode(packed).decode(),
        "tool_name": "cleanroom-engine",
    }
    repository = urllib.parse.quote(environ["GITHUB_REPOSITORY"])
    address = f"{environ['GITHUB_API_URL']}/repos/{repository}/code-scanning/sarifs"
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {environ['ENGINE_TOKEN']}",
        "Content-Type": "application/json",
    }
    return urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")


def main() -> int:
    environ = dict(os.environ)
    if not environ.get("ENGINE_TOKEN"):
        print("::error::upload-sarif: expected a token, such as token: ${{ github.token }}")
        return 2
    document = json.loads(Path(environ["ENGINE_SARIF"]).read_bytes())
    root = os.path.relpath(environ.get("ENGINE_ROOT") or ".", environ.get("GITHUB_WORKSPACE", "."))
    try:
        with urllib.request.urlopen(request(environ, below(document, root)), timeout=SECONDS):
            print("SARIF is with code scanning")
            return 0
    except urllib.error.HTTPError as error:
        kind = "warning" if error.code in _NOT_ALLOWED else "error"
        print(f"::{kind}::code scanning did not take the SARIF file: HTTP {error.code}")
        return 0 if kind == "warning" else 1
    except OSError as error:
        print(f"::error::code scanning cannot be reached: {type(error).__name__}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
