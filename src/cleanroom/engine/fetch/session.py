"""The fetch step at work for one set of dependencies: what managers may ask of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec

from cleanroom.core.beneath import Folder
from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.git_sources import PACK, fetching, source_of
from cleanroom.dependencies.model import Artifact, Problem, Stored
from cleanroom.dependencies.session import WORK, Manager, Page, ToolResult, ToolRun
from cleanroom.dependencies.settings import (
    CERTIFICATE_VARIABLES,
    host_of,
    login_of,
    secrets_of,
)
from cleanroom.dependencies.store import Rejected, Store, hard_link
from cleanroom.engine.fetch.environment import (
    FORBIDDEN,
    ORDERS,
    OUTPUT_BYTES,
    FetchEnvironments,
    Orders,
    image_program,
    python_program,
)
from cleanroom.engine.fetch.errors import (
    failed_clone,
    failed_download,
    inside_of_proxy,
    led_inside,
    led_too_often,
    led_with_login,
    may_not_fetch,
    no_address,
    rejected_download,
    too_many_hosts,
    unanswered,
)
from cleanroom.engine.fetch.progress import Progress
from cleanroom.engine.fetch.proxied import hosts_inside
from cleanroom.model.errors import EnvironmentFailed

PAGE_BYTES = 64 << 20
PAGES_BYTES = 1 << 30  # that are read at once, and held; PyPI's largest page has 3 MB
FILE_BYTES = 4 << 30
SHOWN = "shown"  # beside a tool's folders: the files that it is served
UNKNOWN_BYTES = 2 << 30  # of a file whose size no lock says
RETRIES = 3
# Of one environment, which has FORWARDS_MAX sockets for them; real locks name five.
HOSTS_MAX = 200
HOPS_MAX = 3  # from host to host; releases of GitHub take one


class FetchPolicy(NamedTuple):
    """What the fetch step may do, and must."""

    # nothing is fetched
    offline: bool = False
    # what cannot be had is an error; else a warning, since phases may not need it
    required: bool = False


class FetchSession:
    """One set's downloads and tool runs. Its folders are removed at the end."""

    def __init__(
        self,
        manager: Manager,
        store: Store,
        environments: FetchEnvironments,
        progress: Progress,
        policy: FetchPolicy,
    ) -> None:
        self._manager = manager
        self._store = store
        self._environments = environments
        self._progress = progress
        self._policy = policy
        self._folders = ExitStack()
        environments.conceal(login_of(manager.settings.proxy))
        self.problems: list[Problem] = []

    async def __aenter__(self) -> FetchSession:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._folders.close)

    def note(self, problem: Problem) -> None:
        """Name an entry that turned out to be none that can be fetched."""
        self.problems.append(problem)

    def file(self, stored: Stored) -> Path:
        """The store's file."""
        return self._store.file(stored.sha256)

    # --- documents

    async def read(self, pages: Sequence[Page]) -> list[bytes]:
        """The documents, in order. Raises as `dependencies.session.Session` says."""
        if not pages:
            return []
        orders = [
            {**self._order(page.url, PAGE_BYTES, page.accept), "optional": page.optional}
            for page in pages
        ]
        names = [page.url for page in pages]
        folder = await self._download(orders, names)
        sizes = (os.lstat(folder / str(number)).st_size for number in range(len(pages)))
        if sum(sizes) > PAGES_BYTES:
            reason = f"more than {PAGES_BYTES} bytes of documents"
            raise failed_download(self._manager.name, pages[0].url, reason, "too large")
        return await anyio.to_thread.run_sync(
            lambda: [_read_regular(folder / str(number)) for number in range(len(pages))]
        )

    # --- files

    async def download(self, artifacts: Sequence[Artifact]) -> tuple[Stored, ...]:
        """See that the store has these files. Raises as `dependencies.session.Session` says."""
        found = await anyio.to_thread.run_sync(self._stored_already, tuple(artifacts))
        missing = [one for one in artifacts if one not in found]
        self._progress.expect(len(artifacts), len(missing))
        for one in [one for one in missing if source_of(one)]:
            found[one] = await self._clone(one)
        missing = [one for one in missing if one not in found]
        if missing:
            came = await self._download_wherever_led(missing)
            found |= await anyio.to_thread.run_sync(self._add_all, came)
        return tuple(found[one] for one in artifacts)

    async def _clone(self, artifact: Artifact) -> Stored:
        """Have git fetch one commit, verify it, and move it into the store.

        Raises:
            DependencyError: it cannot be had, or is not the commit that the lock names.
        """
        source = source_of(artifact)
        assert source is not None, "the address of a commit"
        result = await self.run(fetching(source, self._manager.credentials(source.url)))
        if result.exit_code:
            raise failed_clone(artifact, source.url, result.output)
        host = host_of(source.url)
        add = partial(self._store.add, artifact, result.folder / PACK, host)
        try:
            stored = await anyio.to_thread.run_sync(add)
        except Rejected as rejected:
            raise rejected_download(artifact, host, rejected) from rejected
        self._progress.fetched += 1
        self._progress.bytes += stored.size
        return stored

    def _stored_already(self, artifacts: Sequence[Artifact]) -> dict[Artifact, Stored]:
        """Those that the store has, or the machine's own caches."""
        found: dict[Artifact, Stored] = {}
        with self._store.building() as folder:
            for artifact in artifacts:
                stored = self._store.find(artifact)
                if stored is None and artifact.digest:
                    stored = self._moved(artifact) or self._copied(artifact, folder)
                if stored is not None:
                    found[artifact] = stored
        return found

    def _moved(self, artifact: Artifact) -> Stored | None:
        """The file that a tool of this session left, whose environment is gone."""
        path = self._manager.downloaded(artifact)
        if path is None:
            return None
        try:
            return self._store.add(artifact, path)
        except (OSError, Rejected):
            return None

    def _copied(self, artifact: Artifact, folder: Path) -> Stored | None:
        copies = (
            self._store.copy(artifact, path, folder)
            for path in self._manager.local_copies(artifact)
            if path.is_file()
        )
        return next((copy for copy in copies if copy is not None), None)

    def _add_all(self, came: Mapping[Artifact, _Came]) -> dict[Artifact, Stored]:
        """Verify what was fetched, and move it into the store.

        Raises:
            DependencyError: a file is not the one that its lock names.
        """
        found: dict[Artifact, Stored] = {}
        for artifact, (path, host) in came.items():
            try:
                found[artifact] = self._store.add(artifact, path, host)
            except Rejected as rejected:
                raise rejected_download(artifact, host, rejected) from rejected
        return found

    async def _download_wherever_led(self, artifacts: Sequence[Artifact]) -> dict[Artifact, _Came]:
        """Fetch files; where a host leads to another one, from there.

        Files only, whose digests a lock has or the first use pins. The next host is reached from an
        environment of its own, without a login, and only at a public address.
        """
        came: dict[Artifact, _Came] = {}
        asked = [(one, self._order(one.url, _limit(one), follow=True)) for one in artifacts]
        logins = frozenset(_logins(order for _, order in asked))
        for hop in range(HOPS_MAX + 1):
            names = [f"{one.name} {one.version}" for one, _ in asked]
            away: dict[int, str] = {}
            folder = await self._download([order for _, order in asked], names, away, hop=hop)
            led = []
            for number, (one, order) in enumerate(asked):
                host = host_of(str(order["url"]))
                if number not in away:
                    came[one] = _Came(folder / str(number), host)
                    continue
                target = self._followed(names[number], host, away[number], hop, logins)
                led.append((one, {**order, "url": target, "headers": {}}))
            if not led:
                break
            asked = led
        return came

    def _followed(self, name: str, host: str, url: str, hop: int, logins: frozenset[str]) -> str:
        """The address that a host led to.

        Raises:
            DependencyRejected: this is none that may be followed.
        """
        if any(login in url.casefold() for login in logins):
            raise led_with_login(name, host)
        if not url.startswith("https://") or not is_web_address(url):
            raise no_address(url)
        target = host_of(url)
        if hop >= HOPS_MAX:
            raise led_too_often(name, host, target, HOPS_MAX)
        if hosts_inside([target], self._private(self._manager.settings.proxy)):
            raise led_inside(name, host, target)
        self._progress.led(name, target)
        return url

    # --- the downloader

    def _order(
        self, url: str, limit: int, accept: str = "", *, follow: bool = False
    ) -> dict[str, object]:
        if not is_web_address(url):
            raise no_address(url)
        # A lock may name a registry of the caller's without encryption, where all would read them.
        own = url.startswith("https:") or host_of(url) in self._manager.named_hosts()
        headers = dict(self._manager.credentials(url)) if own else {}
        self._environments.conceal(headers.values())
        if accept:
            headers["Accept"] = accept
        return {
            "url": url,
            "headers": headers,
            "limit": limit,
            "decode": bool(accept),
            "follow": follow and url.startswith("https:"),
        }

    async def _download(
        self,
        files: Sequence[Mapping[str, object]],
        names: Sequence[str],
        away: dict[int, str] | None = None,
        *,
        hop: int = 0,
    ) -> Path:
        """Fetch files in an environment; returns the folder that holds them by their numbers.

        `away` gets the addresses that files led to instead, on hosts that nothing names.
        """
        urls = [str(file["url"]) for file in files]
        if self._policy.offline:
            raise may_not_fetch(self._manager.name, names)
        settings = self._manager.settings
        hosts = sorted({host_of(url) for url in urls})
        proxy = settings.proxy_for(urls[0])
        work, ordered = await self._new_folders()
        certificates = await self._certificates(ordered)
        document = {
            "files": files,
            "hosts": hosts,
            "proxy": proxy,
            "certificates": certificates,
            "retries": RETRIES,
        }
        encoded = msgspec.json.encode(document)
        await anyio.to_thread.run_sync(_write, ordered / "orders.json", encoded)
        argv, folders, variables = python_program("download")
        reader = self._progress.reader(names)
        self._check_hosts(hosts, proxied=bool(proxy))
        egress = (host_of(proxy),) if proxy else hosts
        orders = Orders(
            argv=[*argv, f"{ORDERS}/orders.json", WORK],
            work=work,
            orders=ordered,
            egress=tuple(egress),
            private=self._private(proxy),
            variables=variables,
            folders=folders,
        )
        try:
            result = await self._environments.run(orders, reader.feed)
        except EnvironmentFailed as error:
            if hop and error.code == FORBIDDEN:
                # Of what it may try only a name that leads to a private address is forbidden.
                raise led_inside(names[0], "a registry", ", ".join(hosts)) from error
            raise
        if away is not None:
            away.update(reader.away)
        if reader.failure is not None:
            number, reason, kind = reader.failure
            raise failed_download(names[number], urls[number], reason, kind)
        if result.exit_code:
            raise unanswered(self._manager.name, result.exit_code, reader.tail)
        return work

    # --- tools

    async def run(self, tool: ToolRun) -> ToolResult:
        """Run a program. Raises as `dependencies.session.Session` says."""
        if self._policy.offline and tool.egress:
            raise may_not_fetch(self._manager.name, (tool.wanted or " ".join(tool.argv[:2]),))
        asked = (*tool.argv, *sorted(tool.files.items()), *sorted(tool.variables.items()))
        if tool.lasting and asked in self._environments.answers:
            return self._environments.answers[asked]
        self._environments.conceal(tool.authorizations)
        work, ordered = await self._new_folders()
        await anyio.to_thread.run_sync(partial(_write_files, work, tool.files))
        argv, variables = list(tool.argv), dict(tool.variables)
        folders: list[str] = []
        if tool.served:
            shown = await anyio.to_thread.run_sync(self._show, tool.served, ordered.parent)
            document = msgspec.json.encode({"files": shown})
            await anyio.to_thread.run_sync(_write, ordered / "served.json", document)
            serving = image_program if self._environments.image else python_program
            program, folders, python_variables = serving("serve")
            argv = [*program, f"{ORDERS}/served.json", *argv]
            folders += [str(ordered.parent / SHOWN)]
            variables = {**python_variables, **variables}
        egress = tuple(tool.egress)
        if egress:
            self._check_hosts(egress, proxied=bool(self._manager.settings.proxy))
            network = await self._network(ordered)
            variables = {**network.variables, **variables}
            egress = network.egress or egress
        output = bytearray()

        def take(data: bytes) -> None:
            output.extend(data)
            del output[:-OUTPUT_BYTES]
            self._progress.log(data)

        result = await self._environments.run(
            Orders(
                argv=argv,
                work=work,
                orders=ordered,
                egress=egress,
                private=self._private(self._manager.settings.proxy),
                variables=variables,
                folders=folders,
                image=self._environments.image,
            ),
            take,
        )
        answer = ToolResult(result.exit_code, bytes(output), work)
        if tool.lasting and not answer.exit_code:
            self._environments.answers[asked] = answer
        return answer

    def _show(self, served: Mapping[str, Path], around: Path) -> dict[str, str]:
        """The same by other names: of the store a tool sees what it is served, and no more.

        It may be one that a project's own registry gave, and others' packages are none of its
        business. The folder of these names is shown read-only: they are the store's files.
        """
        folder = around / SHOWN
        folder.mkdir(mode=0o700)
        found = {}
        for path, file in served.items():
            inside = file.is_relative_to(self._store.path)
            found[path] = str(folder / file.name if inside else file)
            if inside:
                hard_link(file, folder / file.name)
        return found

    async def _network(self, ordered: Path) -> _Network:
        """What a tool needs to reach registries as the caller's own tools do."""
        settings = self._manager.settings
        variables: dict[str, str] = {}
        if certificates := await self._certificates(ordered):
            variables |= dict.fromkeys(CERTIFICATE_VARIABLES, certificates)
        if not settings.proxy:
            return _Network(variables)
        variables |= {"HTTPS_PROXY": settings.proxy, "NO_PROXY": settings.no_proxy}
        return _Network(variables, (host_of(settings.proxy),))

    async def _certificates(self, ordered: Path) -> str:
        """Copy the caller's certificates; their path inside, "" where there are none."""
        own = self._manager.settings.certificates
        if not own:
            return ""
        text = await anyio.to_thread.run_sync(Path(own).read_bytes)
        await anyio.to_thread.run_sync(_write, ordered / "certificates.pem", text)
        return f"{ORDERS}/certificates.pem"

    def _check_hosts(self, hosts: Sequence[str], *, proxied: bool) -> None:
        """See that these can be reached from one environment, and may be asked of a proxy.

        Raises:
            DependencyUnavailable: they are too many, or one is an address of the proxy's own
                network and the caller's own configuration does not name it.
        """
        if len(hosts) > HOSTS_MAX:
            raise too_many_hosts(self._manager.name, len(hosts), HOSTS_MAX)
        named = self._private(self._manager.settings.proxy)
        if proxied and (found := hosts_inside(hosts, named)):
            raise inside_of_proxy(found[0])

    def _private(self, proxy: str = "") -> frozenset[str]:
        """Hosts that may be private ones: the caller's own configuration names them."""
        return self._manager.named_hosts() | ({host_of(proxy)} if proxy else frozenset())

    async def _new_folders(self) -> tuple[Path, Path]:
        """Two folders on the store's file system: one to be written, one to be read."""
        building = self._store.building()
        around = await anyio.to_thread.run_sync(self._folders.enter_context, building)
        for name in ("work", "orders"):
            (around / name).mkdir(mode=0o700)
        return around / "work", around / "orders"


class _Came(NamedTuple):
    """A file that was fetched."""

    path: Path
    host: str  # HOST:PORT that gave it in the end


class _Network(NamedTuple):
    """How a tool reaches registries."""

    variables: dict[str, str]
    egress: tuple[str, ...] = ()  # the proxy alone, where there is one


def _logins(orders: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What no address may repeat, in small letters, as hosts are read."""
    for order in orders:
        for secret in secrets_of(order["headers"].get("Authorization", "")):
            yield secret.casefold()


def _limit(artifact: Artifact) -> int:
    return min(artifact.size or UNKNOWN_BYTES, FILE_BYTES)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    # Names come from a project's files: none leads out of the folder.
    with Folder.at(folder) as around:
        for name, data in files.items():
            inner, _, last = name.rpartition("/")
            with around.folder(inner, make=True) as at:
                descriptor = at.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)


def _read_regular(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(PAGE_BYTES)
