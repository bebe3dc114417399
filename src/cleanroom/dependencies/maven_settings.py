"""The caller's `~/.m2/settings.xml`: mirrors, repositories, logins and a proxy. Pure.

What Maven gets in the fetch step is written anew from it: no local repository, no plugin groups,
no offline switch, and passwords only for servers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from cleanroom.dependencies.maven_xml import Node, NotXml, read_xml, write_xml
from cleanroom.dependencies.settings import host_of

FILE = ".m2/settings.xml"
_VARIABLE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_KEPT = ("servers", "mirrors", "profiles", "activeProfiles")


class MavenSettings(NamedTuple):
    """What the caller's settings say."""

    root: Node = Node("settings")
    unreadable: str = ""  # why it was left out

    @classmethod
    def of(cls, text: str, variables: Mapping[str, str]) -> MavenSettings:
        """From the text of the file, with the variables that it names."""
        if not text.strip():
            return cls()
        try:
            return cls(_filled(read_xml(text.encode()), variables))
        except NotXml as error:
            return cls(unreadable=str(error))

    @property
    def addresses(self) -> dict[str, str]:
        """The addresses of mirrors and repositories, by their ids."""
        paths = (
            "profiles/profile/repositories/repository",
            "profiles/profile/pluginRepositories/pluginRepository",
            "mirrors/mirror",
        )
        nodes = [node for path in paths for node in self.root.at(path)]
        return {
            node.value("id"): node.value("url").rstrip("/")
            for node in nodes
            if is_address(node.value("url"))
        }

    @property
    def mirrors_all(self) -> bool:
        """Whether a mirror stands for every repository."""
        mirrored = self._mirrored()
        return any("*" in names and not _excepted(names) for names in mirrored)

    @property
    def mirrors_central(self) -> bool:
        """Whether a mirror stands for Maven's own repository."""
        own = {"*", "external:*", "central"}
        return any(own & names and "!central" not in names for names in self._mirrored())

    def _mirrored(self) -> list[set[str]]:
        """The patterns of repositories that each mirror stands for."""
        patterns = (node.value("mirrorOf") for node in self.root.at("mirrors/mirror"))
        return [{name.strip() for name in pattern.split(",")} for pattern in patterns]

    def login(self, url: str) -> tuple[str, str] | None:
        """User and password for an address that these settings name; None where there are none."""
        for node in self.root.at("servers/server"):
            address = self.addresses.get(node.value("id"), "")
            if address and host_of(address) == host_of(url) and node.value("username"):
                return node.value("username"), node.value("password")
        return None

    def encrypted(self) -> list[str]:
        """Ids of servers whose passwords only Maven can read."""
        return [
            node.value("id")
            for node in self.root.at("servers/server")
            if re.search(r"\{[A-Za-z0-9+/=]{8,}\}", node.value("password"))
        ]

    def proxy(self) -> tuple[str, str]:
        """The proxy, as an address with its login, and the hosts that are reached without it."""
        for node in self.root.at("proxies/proxy"):
            if node.value("active") == "false" or not node.value("host"):
                continue
            user, password = node.value("username"), node.value("password")
            login = f"{quote(user, '')}:{quote(password, '')}@" if user else ""
            address = f"http://{login}{node.value('host')}:{node.value('port') or '8080'}"
            hosts = re.split(r"[|,\s]+", node.value("nonProxyHosts"))
            return address, ",".join(host.removeprefix("*") for host in hosts if host)
        return "", ""

    def for_fetch(self, proxy: str, no_proxy: str) -> str:
        """The settings that Maven gets in the fetch step."""
        kept = [child for name in _KEPT for child in self.root.all(name)]
        kept += [Node("proxies", children=tuple(_proxies(proxy, no_proxy)))]
        return write_xml(Node("settings", children=tuple(kept)))


def is_address(url: str) -> bool:
    """Whether files can be fetched from an address."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _excepted(names: set[str]) -> bool:
    return any(name.startswith("!") for name in names)


def _filled(node: Node, variables: Mapping[str, str]) -> Node:
    """The element with variables of the environment put in."""
    text = _VARIABLE.sub(lambda found: variables.get(found[1], found[0]), node.text)
    return Node(node.name, text, tuple(_filled(child, variables) for child in node.children))


def _proxies(proxy: str, no_proxy: str) -> Iterator[Node]:
    if not proxy:
        return
    parts = urlsplit(proxy)
    words = {
        "host": parts.hostname or "",
        "port": str(parts.port or 3128),
        "nonProxyHosts": "|".join(f"*{host}" for host in no_proxy.split(",") if host),
    }
    if parts.username:
        words |= {"username": unquote(parts.username), "password": unquote(parts.password or "")}
    for protocol in ("http", "https"):
        texts = {"id": f"fetch-{protocol}", "active": "true", "protocol": protocol, **words}
        yield Node("proxy", children=tuple(Node(name, text) for name, text in texts.items()))
