"""Where a link leads once it is in a project: step by step, through the other links on its way.

Never by its text alone: behind `folder/..` is the folder itself only while `folder` is no link.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

HOPS_MAX = 40  # as many links as the kernel follows for one path

LinkAt = Callable[[str], str | None]  # path in the project -> the target of a link that lies there


def why_refused(path: str, target: str, root: str, visible: Sequence[str], link_at: LinkAt) -> str:
    """Why the link `path` to `target` may not be in the project at `root`; "" where it may.

    It may lead to what is in the project, there or not yet, and to the `visible` folders outside.
    One that goes up again after it went down is refused wherever it leads: what it passes can
    become a link later, and it would lead elsewhere from then on.
    """
    if _goes_up_again(_pieces(target)):
        return f"a link that goes up again after it went down, {target}"
    folder = path.split("/")[:-1]
    waiting: list[str] = []
    link = target
    for _ in range(HOPS_MAX):
        # `link` lies in `folder`, and `waiting` is what follows it in the path.
        if link.startswith("/"):
            below = _below(_pieces(link), _pieces(root))
            if below is None:
                trusted = any(_is_below(_pieces(link) + waiting, place) for place in visible)
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
    return ""  # nobody comes anywhere by it: the kernel gives up as well


class _LeadsOut(Exception):
    pass


def _next_link(folder: list[str], waiting: list[str], link_at: LinkAt) -> str | None:
    """Go on to the next link: its target, and `folder` is where it lies; None where none comes."""
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
    """What of a path is below the top, if it is."""
    return pieces[len(top) :] if pieces[: len(top)] == top else None


def _is_below(pieces: list[str], place: str) -> bool:
    return ".." not in pieces and _below(pieces, _pieces(place)) is not None
