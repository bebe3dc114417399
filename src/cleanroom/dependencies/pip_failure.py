"""Why pip did not resolve something, by what it printed. Pure."""

from __future__ import annotations

import re

from cleanroom.model.errors import DependencyUnavailable

_VERSIONS = re.compile(r"\(from versions: ([^)]*)\)")
_NONE_FITS = (b"No matching distribution found", b"ResolutionImpossible")
# It says that nothing fits where an index did not answer, too.
_UNREACHED = (b"WARNING: Retrying", b"Could not fetch URL")


class NoneFits(DependencyUnavailable):
    """The indexes have nothing that fits, and asking again changes nothing."""


def failure(name: str, output: bytes) -> DependencyUnavailable:
    """Why pip cannot resolve what a file asks for, by what it printed last."""
    lines = output.decode(errors="replace").strip().splitlines()
    said = [line.strip() for line in lines if "ERROR" in line] or lines[-2:]
    # It lists every version of a package that has none which fits.
    short = [_VERSIONS.sub(_newest, line.removeprefix("ERROR: ")) for line in said[-2:]]
    text = "; ".join(short)[-400:] or "it said nothing"
    permanent = any(one in output for one in _NONE_FITS)
    transient = any(one in output for one in _UNREACHED)
    kind = NoneFits if permanent and not transient else DependencyUnavailable
    return kind(
        "CR-FETCH-009",
        f"{name}: pip cannot resolve it: {text}",
        hint="an index has to have it as a wheel; a phase with egress can have it otherwise",
    )


def _newest(listed: re.Match[str]) -> str:
    versions = listed[1].split(", ")
    return (
        f"(newest of {len(versions)} versions: {versions[-1]})" if len(versions) > 3 else listed[0]
    )
