"""Files of addresses that a project names itself, in the place of an index's."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import msgspec

from cleanroom.dependencies.model import Artifact, Problem
from cleanroom.dependencies.pip_report import Root
from cleanroom.dependencies.requirements import Entry
from cleanroom.dependencies.session import SERVED, Session
from cleanroom.dependencies.wheel_addresses import WheelAddress
from cleanroom.model.errors import DependencyRejected

_REDIRECTED = "CR-FETCH-002"


class Offer:
    """Wheels that pip is served from the store, in the place of the addresses that name them.

    pip by itself would not follow them to another host, and would fetch them a second time.
    """

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}  # by their paths at the server
        self._urls: dict[str, str] = {}  # the same

    def entry(self, entry: Entry, wheel: WheelAddress, file: Path) -> Entry:
        """The requirement with the server's address of this wheel."""
        path = f"/direct/{len(self.files)}/{wheel.file}"
        self.files[path] = file
        self._urls[path] = wheel.url
        return entry._replace(text=entry.text.replace(wheel.url, f"{SERVED}{quote(path)}"))

    def named(self, artifact: Artifact) -> Artifact:
        """What pip reports of such a wheel, with the address that the project names."""
        parts = urlsplit(artifact.url)
        if parts.hostname != "127.0.0.1":
            return artifact
        url = self._urls.get(unquote(parts.path), artifact.url)
        return msgspec.structs.replace(artifact, url=url)


async def had(session: Session, artifacts: Iterable[Artifact]) -> dict[Artifact, Path]:
    """Those that their hosts give, in the store now; an address that leads astray is noted.

    Raises:
        DependencyError: a host does not have one, or gives another file.
    """
    found = {}
    for one in artifacts:
        try:
            (stored,) = await session.download([one])
        except DependencyRejected as error:
            if error.code != _REDIRECTED:
                raise
            why = f"its address leads elsewhere, which is not followed: {error}"
            hint = "name the address that it leads to, or keep the file in the project"
            session.note(Problem(entry=f"{one.name} @ {one.url}"[:200], why=why, hint=hint))
        else:
            found[one] = session.file(stored)
    return found


async def checked(session: Session, root: Root, offer: Offer | None = None) -> Root:
    """The root without wheels whose address leads astray: pip would be refused.

    The others pip finds where `offer` has them, if there is one.
    """
    changed: dict[Entry, Entry | None] = {}
    for entry in root.entries:
        wheel = entry.address
        if wheel is None:
            continue
        file = (await had(session, [wheel.artifact])).get(wheel.artifact)
        if file is None:
            changed[entry] = None
        elif offer is not None:
            changed[entry] = offer.entry(entry, wheel, file)

    def kept(entries: Iterable[Entry]) -> tuple[Entry, ...]:
        found = (changed.get(one, one) for one in entries)
        return tuple(one for one in found if one is not None)

    apart = (kept(part) for part in root.apart)
    return root._replace(entries=kept(root.entries), apart=tuple(part for part in apart if part))
