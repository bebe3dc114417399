"""Downloads files over HTTPS, several at once: the program of the fetch step's environments.

    python download.py ORDERS FOLDER

ORDERS is a JSON file, written by `engine/fetch/environment`:

    {"files": [{"url": ..., "headers": {...}, "limit": bytes}, ...],
     "hosts": ["registry.example.org:443", ...], "proxy": "", "certificates": "", "retries": 3,
     "idle_seconds": 30, "answer_seconds": 120}

The answer to the file number N is written to FOLDER/N. Each line of output is one JSON object:
{"n": N, "bytes": so far}, {"n": N, "done": bytes} or {"n": N, "failed": reason, "kind": kind}.
A file that comes slower than `SLOWEST`, measured over `idle_seconds`, is given up.
So is everything where a server says something, but nothing of an answer, for `answer_seconds`.
A redirect is followed to a host of "hosts" only, and credentials stay with the host they are for.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3

THREADS = 16
CHUNK = 1 << 16
REDIRECTS_MAX = 5
ADDRESS_MAX = 8000  # characters; signed addresses have some thousand
CONNECT_SECONDS, IDLE_SECONDS = 15.0, 30.0
ANSWER_SECONDS = (
    120.0  # to connect, to agree on keys, and to think, each idle for as long as it may
)
SLOWEST = 100  # bytes a second; a slow line that 16 downloads share gives each more
REPORT_BYTES = 1 << 20
TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_printing = threading.Lock()


class LedAway(Exception):
    """A redirect to a host that this environment does not reach; another one may."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class Failed(Exception):
    """A download that was given up."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind  # absent, refused, redirect, truncated, too large, network
        self.reason = reason


def main() -> int:
    """Download everything; 0 if nothing failed."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        orders = json.load(stream)
    downloader = Downloader(orders, sys.argv[2])
    threading.Thread(target=downloader.watch, daemon=True).start()
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(downloader.fetch, range(len(orders["files"]))))
    return 0 if all(results) else 1


class Downloader:
    """The downloads of one file of orders."""

    def __init__(self, orders: Mapping[str, Any], folder: str) -> None:
        self._files = orders["files"]
        self._hosts = frozenset(orders["hosts"])
        self._folder = folder
        self._retries = orders.get("retries", 3)
        self._idle_seconds = orders.get("idle_seconds", IDLE_SECONDS)
        self._answer_seconds = orders.get("answer_seconds", ANSWER_SECONDS)
        # number of a file -> when it was asked for, or its last bytes came
        self._waiting: dict[int, float] = {}
        self._pool = _connections(orders)
        self._stopped = threading.Event()

    def watch(self) -> None:
        """End this process where an answer never comes.

        Heads that come byte by byte, "100 Continue" and trailers without an end are read inside of
        the library, where nothing but silence times out.
        """
        while True:
            time.sleep(min(1.0, self._answer_seconds))
            begun = time.monotonic() - self._answer_seconds
            stuck = [number for number, since in list(self._waiting.items()) if since < begun]
            if stuck:
                reason = f"no answer in {self._answer_seconds:.0f} seconds, but something else"
                _report({"n": stuck[0], "failed": reason, "kind": "network"})
                os._exit(1)

    def fetch(self, number: int) -> bool:
        """Download one file, trying again where that may help."""
        for attempt in range(self._retries + 1):
            if self._stopped.is_set():
                return False
            try:
                size = self._once(number)
            except LedAway as led:
                _report({"n": number, "away": led.url})
                return True
            except Failed as failure:
                last = failure.kind in ("network", "truncated") and attempt < self._retries
                if last:
                    time.sleep(0.25 * 2**attempt)
                    continue
                # Storage that lists nothing refuses what it lacks.
                lacks = failure.kind in ("absent", "refused")
                if lacks and self._files[number].get("optional"):
                    with open(os.path.join(self._folder, str(number)), "wb"):
                        _report({"n": number, "done": 0})
                    return True
                _report({"n": number, "failed": failure.reason, "kind": failure.kind})
                # A person wants to know the first one, and not to wait for a thousand others.
                self._stopped.set()
                return False
            _report({"n": number, "done": size})
            return True
        return False

    def _once(self, number: int) -> int:
        order = self._files[number]
        try:
            return self._request(number, order)
        except urllib3.exceptions.HTTPError as error:
            raise Failed("network", _sentence(error)) from error
        except OSError as error:
            raise Failed("network", str(error)) from error
        finally:
            self._waiting.pop(number, None)

    def _request(self, number: int, order: Mapping[str, Any]) -> int:
        url, headers = order["url"], dict(order.get("headers", {}))
        first = _place(url)
        for _ in range(REDIRECTS_MAX):
            self._check_host(url, order)
            self._waiting[number] = time.monotonic()
            if _place(url) != first:
                headers.pop("Authorization", None)
            response = self._pool.request(
                "GET", url, headers=headers, preload_content=False, redirect=False, retries=False
            )
            try:
                if response.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, response.headers.get("Location", ""))
                    # Its body may have no end.
                    response.close()
                    continue
                return self._save(number, order, response)
            finally:
                response.release_conn()
        raise Failed("redirect", f"more than {REDIRECTS_MAX} redirects")

    def _check_host(self, url: str, order: Mapping[str, Any]) -> None:
        scheme, host, port = _place(url)
        if f"{host}:{port}" not in self._hosts:
            # From https to https only, so that nobody on the way chooses the host.
            if order.get("follow") and scheme == "https" and len(url) <= ADDRESS_MAX:
                raise LedAway(url)
            # As the registry wrote it: a login that it repeats is known in that form only.
            named = urlsplit(url).netloc.rpartition("@")[2]
            shown = named if named.endswith(f":{port}") else f"{named}:{port}"
            raise Failed("redirect", f"redirected to {shown}, which nothing names")

    def _save(self, number: int, order: Mapping[str, Any], response: Any) -> int:
        if response.status in (404, 410):
            raise Failed("absent", f"the registry answered {response.status}")
        if response.status in TRANSIENT:
            raise Failed("network", f"the registry answered {response.status}")
        if response.status != 200:
            raise Failed("refused", f"the registry answered {response.status}")
        size, reported, limit = 0, 0, order["limit"]
        path = os.path.join(self._folder, str(number))
        decode = order.get("decode", False)
        pace = Pace(self._idle_seconds)
        with open(path, "wb") as target:
            # Not `stream`, which waits until a chunk is full: a trickle would never be seen.
            while chunk := response.read1(CHUNK, decode_content=decode):
                size += len(chunk)
                self._waiting[number] = time.monotonic()
                if pace.too_slow(len(chunk)):
                    raise Failed("network", f"less than {SLOWEST} bytes a second")
                if size > limit:
                    raise Failed("too large", f"more than {limit} bytes")
                target.write(chunk)
                if size - reported >= REPORT_BYTES:
                    reported = size
                    _report({"n": number, "bytes": size})
        return size


class Pace:
    """How fast one file comes, over windows of a length."""

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self._began = time.monotonic()
        self._bytes = 0

    def too_slow(self, size: int) -> bool:
        """Count a piece; whether a window that is over had too little."""
        self._bytes += size
        seconds = time.monotonic() - self._began
        if seconds < self._window_seconds:
            return False
        slow = self._bytes < SLOWEST * seconds
        self._began, self._bytes = time.monotonic(), 0
        return slow


def _place(url: str) -> tuple[str, str, int]:
    """Scheme, host and port, as the library that connects reads them."""
    try:
        parts = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError as error:
        raise Failed("redirect", "redirected to what is no address") from error
    scheme, host = parts.scheme or "", (parts.host or "").strip("[]")
    return scheme, host, parts.port or (443 if scheme == "https" else 80)


def _connections(orders: Mapping[str, Any]) -> Any:
    context = urllib3.util.ssl_.create_urllib3_context()
    context.load_default_certs()
    if orders.get("certificates"):
        context.load_verify_locations(orders["certificates"])
    idle_seconds = orders.get("idle_seconds", IDLE_SECONDS)
    arguments: dict[str, Any] = {
        "ssl_context": context,
        "maxsize": THREADS,
        "num_pools": 64,
        "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=idle_seconds),
    }
    if not orders.get("proxy"):
        return urllib3.PoolManager(**arguments)
    proxy = urlsplit(orders["proxy"])
    headers = {}
    if proxy.username:
        login = f"{proxy.username}:{proxy.password or ''}"
        headers = urllib3.make_headers(proxy_basic_auth=login)
    address = f"{proxy.scheme}://{proxy.hostname}:{proxy.port or 3128}"
    return urllib3.ProxyManager(address, proxy_headers=headers, **arguments)


def _sentence(error: BaseException) -> str:
    cause = error.__cause__ or error
    return " ".join(str(cause).split())[:400] or type(error).__name__


def _report(line: Mapping[str, object]) -> None:
    with _printing:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
