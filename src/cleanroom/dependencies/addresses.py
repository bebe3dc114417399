"""Addresses of files on the web, as locks and registries write them. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

# Before the address of a repository, as the field writes it.
GIT_SCHEME = "git+"
# Two readers of addresses must see one host in it: no login, no backslash, no percent sign before
# the path. A star in an egress rule would be many hosts.
_WEB_ADDRESS = re.compile(
    r"https?://(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::[0-9]{1,5})?(?:[/?#][!-\[\]-~]*)?"
)
_ADDRESS_MAX = 8192


def is_web_address(value: object) -> bool:
    """Whether it is an address over HTTP without a login, in which everybody reads the same host.

    Addresses come from lock files and from answers of registries: what is asked for one of them,
    and with which credentials, is decided by its host.
    """
    if not isinstance(value, str) or len(value) > _ADDRESS_MAX:
        return False
    if not _WEB_ADDRESS.fullmatch(value):
        return False
    try:
        return bool(urlsplit(value).hostname) and urlsplit(value).port != 0
    except ValueError:
        return False
