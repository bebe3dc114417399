"""The embedded backend: environments from Linux namespaces, Landlock and seccomp, without a daemon.

This is the engine's side: it describes environments, talks to their wardens and brings files back.
What happens in the kernel is in `sandbox/`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends.base import EnvironmentSpec, Leftover, WorkspaceSpec
from cleanroom.backends.embedded import spec_hostns
from cleanroom.backends.embedded.copied_workspace import CopiedWorkspace
from cleanroom.backends.embedded.environment import EmbeddedEnvironment
from cleanroom.backends.embedded.keeper_process import KeeperProcess, nearest_folder
from cleanroom.backends.embedded.spec import Described, describe, environment_user
from cleanroom.backends.embedded.workspace import EmbeddedWorkspace
from cleanroom.backends.run_folders import claim
from cleanroom.core.beneath import Folder
from cleanroom.model.capability import CapabilityReport, DimensionReport, Missing
from cleanroom.model.errors import ArtifactError, EnvironmentFailed, PolicyRefused
from cleanroom.model.policy import Level
from cleanroom.sandbox import channel
from cleanroom.sandbox.async_channel import Link
from cleanroom.sandbox.filesystem import layers, mount_plan, tree_removal
from cleanroom.sandbox.filesystem.mount_ops import HomeLayers
from cleanroom.sandbox.journal import Journal, Resource
from cleanroom.sandbox.kernel import cgroups
from cleanroom.sandbox.network import relay

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import (
        Forward,
        KeeperMessage,
        KeeperOrder,
        ProbeReport,
        SandboxSpec,
    )

# for the keeper: a thousand times what was measured, so only a hang reaches it
START_SECONDS = 20.0
LEAVE_SECONDS = 10.0


OpenJournal = Callable[[], Journal]  # opens the run's, made where it is not there


class EmbeddedBackend:
    """Makes environments with the kernel's own means, as root and as an ordinary user."""

    name = "embedded"
    shows_host = True
    forwards_elsewhere = True
    make_environment = EmbeddedEnvironment

    def __init__(
        self, run_id: str, scratch: Path, journal: OpenJournal, keeper: KeeperProcess | None = None
    ) -> None:
        self._run_id = run_id
        self._process = keeper  # started ahead by whoever made this, or started here
        self.scratch = scratch
        self._open_journal = journal
        self._tops: list[Folder] = []  # the folders that this run has for itself
        # path of what the keeper was told -> the folder around it
        self._owned: dict[str, Folder] = {}
        self._journal: Journal | None = None
        self._keeper: Link[KeeperMessage] | None = None
        self._up = asyncio.Event()
        self._environments: dict[str, EmbeddedEnvironment] = {}
        self._workspaces: dict[str, EmbeddedWorkspace | CopiedWorkspace] = {}
        self._closed: dict[str, asyncio.Event] = {}
        # environment -> its doors, each with its listening socket
        self._doors: dict[str, list[tuple[Forward, int]]] = {}
        # environment of another process -> what takes its doors
        self._elsewhere: dict[str, Callable[[str, int], None]] = {}
        self._probed: asyncio.Future[ProbeReport] | None = None
        self._left: list[Leftover] = []
        self._groups: dict[str, cgroups.Group] = {}  # of environments, by identity
        self._keeper_ended = False
        self._hold = -1  # the file that says that this run lives
        self._limits_proven = False
        self._claiming = anyio.Lock()
        self._scratch_thing: Resource | None = None
        self._created = 0
        self._removed = 0
        self._homes: cgroups.Homes | None = None
        self._host: mount_plan.HostFacts | None = None
        self._bare = False  # the probe found no way to make namespaces
        self._landlock = True
        self.outer_filter = False  # a container's own filter refuses calls before ours is asked
        self._ground: spec_hostns.RunArea | None = None
        self._making_ground = anyio.Lock()
        self._ground_things: list[Resource] = []
        self._copies = 0

    # --- life

    async def __aenter__(self) -> EmbeddedBackend:
        self._process = self._process or KeeperProcess()
        if self._process.probing:
            self._probed = asyncio.get_running_loop().create_future()
        self._keeper = Link(
            self._process.detach_channel(),
            channel.KEEPER_MESSAGES.receive,
            self._from_keeper,
            self._keeper_lost,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        with anyio.CancelScope(shield=True):
            for environment in list(self._environments.values()):
                await environment.leave()
            await self.settled()
            for thing in (
                *self._ground_things,
                *([self._scratch_thing] if self._scratch_thing is not None else []),
            ):
                await self.drop_folder(thing)
            with contextlib.suppress(EnvironmentFailed):
                self._order({"op": "bye"})
            assert self._process is not None
            await self._process.wait(LEAVE_SECONDS)
            self._link.close()
            if self._journal is not None:
                self._journal.close()
            if self._hold >= 0:
                os.close(self._hold)
            for folder in (*self._tops, *self._owned.values()):
                folder.close()

    @property
    def _link(self) -> Link[KeeperMessage]:
        assert self._keeper is not None, "the backend was not entered"
        return self._keeper

    def _order(self, order: KeeperOrder, descriptors: Sequence[int] = ()) -> None:
        """Tell the keeper.

        Raises:
            EnvironmentFailed: it has ended.
        """
        try:
            self._link.send(order, descriptors)
        except OSError:
            raise EnvironmentFailed("CR-SANDBOX-002", "the keeper process ended") from None

    def _from_keeper(self, message: KeeperMessage, descriptors: list[int]) -> None:
        match message["kind"]:
            case "up":
                self._up.set()
            case "probed":
                if self._probed is not None and not self._probed.done():
                    self._probed.set_result(message["report"])
            case "probe_failed":
                if self._probed is not None and not self._probed.done():
                    why = f"this machine could not be probed: {message['error']}"
                    self._probed.set_exception(EnvironmentFailed("CR-SANDBOX-007", why))
            case "closed":
                self._left += [Leftover(kind="cgroup", name=path) for path in message["left"]]
                if message["environment"] in self._closed:
                    self._closed[message["environment"]].set()
            case _:
                assert_never(message)

    def _keeper_lost(self) -> None:
        self._keeper_ended = True
        self._up.set()
        for event in self._closed.values():
            event.set()
        if self._probed is not None and not self._probed.done():
            self._probed.set_exception(
                EnvironmentFailed("CR-SANDBOX-002", "the keeper process ended")
            )

    # --- what it holds

    async def probe(self, level: Level) -> CapabilityReport:
        """Ask the kernel, in a throw-away child of the keeper."""
        if self._probed is None:
            self._probed = asyncio.get_running_loop().create_future()
            self._order({"op": "probe", "scratch": str(nearest_folder(self.scratch))})
        with anyio.fail_after(START_SECONDS):
            found = await self._probed
        self._bare, self._landlock, self.outer_filter = (
            found["mode"] == "bare",
            found["landlock"],
            found["outer_filter"],
        )
        homes = await anyio.to_thread.run_sync(self._cgroups)
        return _report(found, homes)

    def _cgroups(self) -> cgroups.Homes:
        if self._homes is None:
            self._homes = (
                cgroups.homes()
                if os.geteuid() == 0
                else cgroups.Homes(0, {}, "not root, and no group was delegated")
            )
        return self._homes

    # --- things that are made

    def record(self, kind: str, name: str) -> Resource:
        """Write down that something will be made, before it is."""
        if self._journal is None:
            self._journal = self._open_journal()
            self._journal.open(self._run_id)
            self._order({"op": "journal"}, [self._journal.descriptor])
        self._created += 1
        return self._journal.make(kind, name)

    def gone(self, thing: Resource) -> None:
        """Write down that it was seen to be gone."""
        assert self._journal is not None
        self._removed += 1
        self._journal.gone(thing)

    async def folder(self, path: Path) -> Resource:
        """Make a folder that the keeper removes should the engine die."""
        thing: Resource | None = None
        # a moment; half-way nobody would know that it has to be dropped
        with _usable(path), anyio.CancelScope(shield=True):
            thing = await self._make_folder(path)
        assert thing is not None
        return thing

    async def _make_folder(self, path: Path) -> Resource:
        async with self._claiming:
            if not self._tops:
                await self._claim()
        around = self._reached(path.parent)
        thing = self._own(around, path.name)
        await anyio.to_thread.run_sync(
            lambda: around.folder(path.name, make=True, mode=0o700).close()
        )
        return thing

    async def _claim(self) -> None:
        """Make this run's own folder, and say in it whose it is."""
        around = await anyio.to_thread.run_sync(_parent, self.scratch)
        self._scratch_thing = self._own(around, self.scratch.name)
        top = around.folder(self.scratch.name, make=True, mode=0o700)
        self._tops.append(top)
        self._hold = await anyio.to_thread.run_sync(
            lambda: claim(top, self._cgroups().folders.values())
        )
        self._order({"op": "hold"}, [self._hold])

    def _reached(self, path: Path) -> Folder:
        """A folder below one of the run's own, made where it is not there;
        these are closed to others.
        """
        top = next((top for top in self._tops if path.is_relative_to(top.path)), None)
        assert top is not None, f"{path} is not below the run's own folder"
        return top.folder(path.relative_to(top.path).as_posix(), make=True, mode=0o711)

    async def ground(self) -> spec_hostns.RunArea:
        """Where environments without namespaces have what is theirs."""
        async with self._making_ground:
            if self._ground is None:
                self._ground = await self._make_ground()
        return self._ground

    async def _make_ground(self) -> spec_hostns.RunArea:
        """Its folders are named to the keeper before they exist."""
        user = environment_user(self._run_id)
        folder, short = spec_hostns.places_for(self._run_id, self.scratch)
        for place in {folder, short} - {self.scratch}:
            around = await anyio.to_thread.run_sync(Folder.at, place.parent)
            thing = self._own(around, place.name)
            try:
                self._tops.append(
                    await anyio.to_thread.run_sync(
                        spec_hostns.make_ground, around, place.name, user
                    )
                )
            except FileExistsError:
                self._disown(thing)  # somebody else's, and not ours to remove
                raise
            self._ground_things.append(thing)
        held = {top.path: top for top in self._tops}
        return spec_hostns.RunArea(held[folder], held[short], user)

    async def root_of(self, identity: str) -> Path:
        """The folder of one environment."""
        return ((await self.ground()).folder if self._bare else self.scratch) / "roots" / identity

    def _own(self, around: Folder, name: str) -> Resource:
        """Journal a folder and name it to the keeper, before it exists.

        `around` is held until it is dropped.
        """
        path = str(around.path / name)
        thing = self.record("folder", path)
        self._owned[path] = around
        self._order({"op": "own", "folder": path, "name": name}, [around.descriptor])
        return thing

    async def drop_folder(self, thing: Resource) -> None:
        """Remove such a folder; not one that an environment still uses, which is left and said."""
        path = Path(thing.name)
        # said once, of the last try
        self._left = [left for left in self._left if left.name != thing.name]
        if user := next((e.id for e in self._environments.values() if e.uses(path)), ""):
            self._left.append(
                Leftover(
                    kind="folder",
                    name=thing.name,
                    detail=f"environment {user} uses it: it has to end first",
                )
            )
            return
        around = self._owned[thing.name]
        if not await anyio.to_thread.run_sync(_removed, around, path.name):
            self._left.append(Leftover(kind="folder", name=thing.name))
            return
        self._disown(thing)

    def _disown(self, thing: Resource) -> None:
        self._owned.pop(thing.name).close()
        with contextlib.suppress(EnvironmentFailed):
            self._order({"op": "disown", "folder": thing.name})
        self.gone(thing)

    def first_proof(self) -> bool:
        """True once: the limits' mechanisms are proven in the first environment,
        they are the same in all.
        """
        first, self._limits_proven = not self._limits_proven, True
        return first

    async def settled(self) -> None:
        """Wait for what is still being removed. Here nothing is: leaving waits for the kernel."""

    async def ledger(self) -> tuple[int, int, tuple[Leftover, ...]]:
        """What was created, what was removed, and what is left."""
        await self.settled()
        return self._created, self._removed, tuple(self._left)

    # --- workspaces and environments

    @asynccontextmanager
    async def workspace(
        self, spec: WorkspaceSpec
    ) -> AsyncIterator[EmbeddedWorkspace | CopiedWorkspace]:
        """A copy-on-write view of `spec.root`; its layers lie under `spec.scratch` and go when it
        is left.
        """
        root, scratch = Path(spec.root), Path(spec.scratch)
        if scratch.resolve().is_relative_to(root.resolve()):
            raise PolicyRefused(
                "CR-SANDBOX-003",
                f"the cache folder {scratch} lies inside the project",
                hint="set CLEANROOM_CACHE to a folder outside of it",
            )
        thing = await self.folder(scratch)
        try:
            self._workspaces[spec.root] = await self._make_workspace(spec)
            yield self._workspaces[spec.root]
        finally:
            workspace = self._workspaces.pop(spec.root, None)
            with anyio.CancelScope(shield=True):
                if workspace is not None:
                    await workspace.finish_home(False)
                    workspace.close()
                await self.drop_folder(thing)

    async def _make_workspace(self, spec: WorkspaceSpec) -> EmbeddedWorkspace | CopiedWorkspace:
        user = environment_user(self._run_id)
        if not self._bare:
            return await anyio.to_thread.run_sync(EmbeddedWorkspace, spec, user)
        with _usable(self.scratch):
            ground = await self.ground()
            self._copies += 1
            around = await anyio.to_thread.run_sync(ground.own, "workspaces")
            return await anyio.to_thread.run_sync(
                CopiedWorkspace, spec, around / str(self._copies), user
            )

    @asynccontextmanager
    async def environment(self, spec: EnvironmentSpec) -> AsyncIterator[EmbeddedEnvironment]:
        """Start an environment; leaving ends its tree and waits until the kernel and the keeper
        have removed it.
        """
        environment = self.make_environment(self, spec)
        try:
            await environment.start()
            yield environment
        finally:
            with anyio.CancelScope(shield=True):
                await environment.leave()

    def opened(self, environment: EmbeddedEnvironment, descriptor: int, spec: SandboxSpec) -> None:
        """Ask the keeper for a warden with this end of the channel."""
        self._closed[environment.id] = asyncio.Event()
        self._environments[environment.id] = environment
        if (group := spec["limits"]["cgroup"]) is not None:
            self._groups[environment.id] = cgroups.Group.from_wire(group)
        self._order({"op": "open", "spec": spec}, [descriptor])

    async def closed(self, identity: str) -> bool:
        """Wait until the keeper has seen the warden's end and removed what it had made for it.

        One that does not end by itself is killed: False.
        """
        by_itself = await self._closed_within(identity, LEAVE_SECONDS)
        if not by_itself:
            with contextlib.suppress(EnvironmentFailed):
                self._order({"op": "end", "environment": identity})
            if not await self._closed_within(identity, LEAVE_SECONDS):
                self._left.append(
                    Leftover(
                        kind="process",
                        name=f"environment {identity}",
                        detail="its warden did not end",
                    )
                )
                return False
        del self._environments[identity]
        group = self._groups.pop(identity, None)
        # its wardens died with it; what it would have removed is ours to remove
        if self._keeper_ended and group is not None:
            self._left += [
                Leftover(kind="cgroup", name=str(path))
                for path in await anyio.to_thread.run_sync(cgroups.clear, group)
            ]
        return by_itself

    async def _closed_within(self, identity: str, seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            await self._closed[identity].wait()
        return self._closed[identity].is_set()

    def relay(self, owner: str, door: Forward, descriptor: int, told: Sequence[int] = ()) -> None:
        """Hand the listening socket of the environment `owner` to whoever can connect to what lies
        behind it; `told` is where refusals are said.
        """
        if door["to"].startswith(relay.OUTWARD):
            self._order({"op": "relay", "to": door["to"]}, [descriptor, *told])
            return
        if door["environment"] in self._elsewhere:
            self._elsewhere[door["environment"]](door["to"], descriptor)
            return
        self._doors.setdefault(owner, []).append((door, os.dup(descriptor)))
        behind = self._environments.get(door["environment"])
        # else its service is between two lives, and the next one is handed the door
        if behind is not None:
            with contextlib.suppress(EnvironmentFailed):
                behind.order({"op": "relay", "to": door["to"]}, [descriptor])

    def forward_elsewhere(self, environment: str, admit: Callable[[str, int], None]) -> None:
        """Give the doors to this environment of another process to `admit`."""
        self._elsewhere[environment] = admit

    def reconnect(self, environment: EmbeddedEnvironment) -> None:
        """A service that was started again has a relay of its own:
        hand it the doors that its predecessor served.
        """
        for doors in self._doors.values():
            for door, descriptor in doors:
                if door["environment"] == environment.id:
                    environment.order({"op": "relay", "to": door["to"]}, [descriptor])

    def forget_doors(self, owner: str) -> None:
        """The environment `owner` is gone, and with it everyone who could come through its
        doors.
        """
        for _, descriptor in self._doors.pop(owner, ()):
            os.close(descriptor)

    async def describe(self, spec: EnvironmentSpec, root: Path) -> Described:
        """The whole environment as the warden is told it."""
        workspace = self._workspaces[spec.workspace.root] if spec.workspace is not None else None
        if self._host is None:
            self._host = await anyio.to_thread.run_sync(mount_plan.read_host_facts)
        if self._bare:
            with _usable(self.scratch):
                return await self._describe_bare(spec, self._host, workspace, root)
        stack, cache = await self._prepared(spec)
        await self._up.wait()
        told = describe(
            spec, self._host, self._cgroups(), stack, root, cache, landlock=self._landlock
        )
        return Described(told, written(stack, cache))

    async def _describe_bare(
        self,
        spec: EnvironmentSpec,
        host: mount_plan.HostFacts,
        workspace: EmbeddedWorkspace | CopiedWorkspace | None,
        root: Path,
    ) -> Described:
        ground = await self.ground()
        copy, cache = "", ""
        if isinstance(workspace, CopiedWorkspace):
            copy = str(workspace.place)
            if spec.home and os.geteuid() != 0:
                cache = str(await anyio.to_thread.run_sync(workspace.home.take_whole, spec.home))
        await self._up.wait()
        given = spec_hostns.Given(ground, root, copy, cache)
        find = partial(
            spec_hostns.describe, spec, host, self._cgroups(), given, landlock=self._landlock
        )
        return await anyio.to_thread.run_sync(find)

    async def give_back(self, spec: EnvironmentSpec) -> None:
        """After an environment that prepared data: what it wrote is where it was asked to be."""
        if self._bare and spec.role == "prepare":
            ground = await self.ground()
            for mount in spec.mounts:
                if mount.writable:
                    await anyio.to_thread.run_sync(ground.give_back, mount)

    @property
    def plants(self) -> Path:
        """Where what canaries must not find is planted: in reach of an environment,
        but for what holds it back.
        """
        return self._ground.folder if self._ground is not None else self.scratch

    async def _prepared(self, spec: EnvironmentSpec) -> tuple[list[Path], HomeLayers | None]:
        """Make what its mounts need; its layers, newest first, and those of its home's .cache."""
        workspace = self._workspaces[spec.workspace.root] if spec.workspace is not None else None
        if spec.in_place and isinstance(workspace, EmbeddedWorkspace):
            workspace.used_in_place()
        with _usable(self.scratch):
            stack = (
                await workspace.push()
                if isinstance(workspace, EmbeddedWorkspace) and not spec.in_place
                else []
            )
            user = environment_user(self._run_id)
            owner = (user, user) if os.geteuid() == 0 else None
            await anyio.to_thread.run_sync(make_layers, spec, owner)
            if not spec.home or workspace is None:
                return stack, None
            return stack, await anyio.to_thread.run_sync(workspace.home.take, spec.home, owner)


def _parent(scratch: Path) -> Folder:
    scratch.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Folder.at(scratch.parent)


def _removed(around: Folder, name: str) -> bool:
    """Remove a folder, and say whether it is gone."""
    with contextlib.suppress(FileNotFoundError):
        tree_removal.remove_beneath(around.descriptor, name)
    try:
        os.stat(name, dir_fd=around.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """What the disk refuses is said with its path and what helps."""
    try:
        yield
    except OSError as error:
        hint = "make room in the cache, or make it yours; CLEANROOM_CACHE names another folder"
        raise ArtifactError(
            "CR-SANDBOX-009",
            f"{error.filename or folder}: the cache cannot be used: {error.strerror}",
            hint=hint,
        ) from error


def make_layers(spec: EnvironmentSpec, owner: tuple[int, int] | None) -> None:
    """The layers of folders that are shown copy-on-write."""
    for mount in spec.mounts:
        if mount.above and not (Path(mount.source) / "upper").exists():
            layers.make(Path(mount.source), Path(mount.above), owner)


def written(stack: Sequence[Path], cache: HomeLayers | None) -> tuple[Path, ...]:
    """The folders that an environment with these layers fills."""
    layers = (*stack[:1], *((cache.layer,) if cache else ()))
    return tuple(layer / "upper" for layer in layers)


def _report(found: ProbeReport, homes: cgroups.Homes) -> CapabilityReport:
    """The probe's words as the report that refusal and `doctor` go by."""
    rows = [
        msgspec.convert(row, DimensionReport)
        for row in found["dimensions"]
        if row["dimension"] != "resource"
    ]
    return CapabilityReport(
        backend="embedded",
        tier=found["tier"],
        dimensions=(*rows, _resources(homes)),
        missing=tuple(msgspec.convert(row, Missing) for row in found["missing"]),
        levels={
            level: tuple(msgspec.convert(row, Missing) for row in lacking)
            for level, lacking in found["levels"].items()
        },
        mechanisms=found["mechanisms"]
        | dict.fromkeys(("resource.memory", "resource.pids"), _resources(homes).mechanism),
        notes=tuple(found["notes"]),
    )


def _resources(homes: cgroups.Homes) -> DimensionReport:
    """Control groups enforce and count; without them rlimits refuse and samples find out,
    which is said as partial.
    """
    if homes.version:
        return DimensionReport(
            dimension="resource",
            enforced="yes",
            detected="yes",
            attributed="partial",
            completeness="exact",
            mechanism=f"control groups version {homes.version}, rlimits, samples",
            evidence=f"groups with limits can be made for {', '.join(sorted(homes.folders))}",
        )
    return DimensionReport(
        dimension="resource",
        enforced="partial",
        detected="partial",
        attributed="partial",
        completeness="lossy",
        mechanism="rlimits, samples",
        evidence=f"no control group: {homes.why}",
    )
