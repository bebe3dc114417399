"""The target of a symbolic link once it is in a project: followed step by step.

Never judged by its text alone: `folder/..` is the parent only while `folder` is no link.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

# The kernel follows as many links in one path (MAXSYMLINKS, path_resolution(7)).
HOPS_MAX = 40

# path in the project -> target of the link there; None if it is no link
LinkAt = Callable[[str], str | None]


def why_refused(path: str, target: str, root: str, visible: Sequence[str], link_at: LinkAt) -> str:
    """Why the link `path` to `target` may not be in the project at `root`; "" if it may.

    It may lead into the project, to paths that need not exist, and to the `visible` folders.
    A link whose text goes down and up again is refused wherever it leads:
    the folder on its way can become a link later.
    """
    if _goes_up_again(_pieces(target)):
        return f"a link that goes up again after it went down, {target}"
    folder = path.split("/")[:-1]
    waiting: list[str] = []
    link = target
    for _ in range(HOPS_MAX):
        # `link` lies in `folder`; `waiting` are the names after it in the path.
        if link.startswith("/"):
            below = _below(_pieces(link), _pieces(root))
            if below is None:
                trusted = any(_is_within(_pieces(link) + waiting, place) for place in visible)
                return "" if trusted else f"a link that leads out, to {link}"
            folder, waiting = [], below + waiting
        else:
            waiting = _pieces(link) + waiting
        try:
            following = _next_link(folder, waiting, link_at)
        except _LeadsOut:
            place = os.path.normpath(os.path.join(root, os.path.dirname(path), target))
            return f"a link that leads out, to {place}"
        if following is None:
            return ""
        link = following
    # The kernel fails with ELOOP.
    return ""


class _LeadsOut(Exception):
    pass


def _next_link(folder: list[str], waiting: list[str], link_at: LinkAt) -> str | None:
    """Walk to the next link and return its target; None if none follows.

    `folder` becomes the folder in which it lies, `waiting` the names after it.
    """
    while waiting:
        name = waiting.pop(0)
        if name != "..":
            link = link_at("/".join([*folder, name]))
            if link is not None:
                return link
            folder.append(name)
        elif folder:
            folder.pop()
        else:
            raise _LeadsOut
    return None


def _pieces(target: str) -> list[str]:
    return [piece for piece in target.split("/") if piece not in ("", ".")]


def _goes_up_again(pieces: Sequence[str]) -> bool:
    ups = [index for index, piece in enumerate(pieces) if piece == ".."]
    return ups != list(range(len(ups)))


def _below(pieces: list[str], top: list[str]) -> list[str] | None:
    """The names below `top`; None if the path does not lie there."""
    return pieces[len(top) :] if pieces[: len(top)] == top else None


def _is_within(pieces: list[str], place: str) -> bool:
    return ".." not in pieces and _below(pieces, _pieces(place)) is not None
