"""Files of addresses that a project names itself, in the place of an index's."""

from __future__ import annotations

from collections.abc import Iterable

from cleanroom.dependencies.model import Artifact, Problem
from cleanroom.dependencies.pip_report import Root
from cleanroom.dependencies.session import Session
from cleanroom.model.errors import DependencyRejected

_REDIRECTED = "CR-FETCH-002"


async def had(session: Session, artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Those that their own host gives, in the store now; an address that leads elsewhere is noted.

    Releases of GitHub do: the host that they lead to is named nowhere.

    Raises:
        DependencyError: a host does not have one, or gives another file.
    """
    found = []
    for one in artifacts:
        try:
            await session.download([one])
        except DependencyRejected as error:
            if error.code != _REDIRECTED:
                raise
            why = f"its address leads to another host, which is not followed: {error}"
            hint = "name the address that it leads to, or keep the file in the project"
            session.note(Problem(entry=f"{one.name} @ {one.url}"[:200], why=why, hint=hint))
        else:
            found.append(one)
    return found


async def checked(session: Session, root: Root) -> Root:
    """The root without wheels whose address leads elsewhere: pip would be refused."""
    left = set()
    for entry in root.entries:
        wheel = entry.address
        if wheel is not None and not await had(session, [wheel.artifact]):
            left.add(entry)
    kept = tuple(one for one in root.entries if one not in left)
    apart = tuple(tuple(one for one in part if one not in left) for part in root.apart)
    return root._replace(entries=kept, apart=tuple(part for part in apart if part))
