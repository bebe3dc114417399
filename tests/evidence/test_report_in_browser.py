"""The report of a real run in a real browser: its picture is drawn, in light and dark,
on a desk and on a telephone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cleanroom import engine
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.reports.text import phase_name
from support.required_tools import require_or_skip

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

LONG = "a-phase-whose-name-is-longer-than-any-place-that-there-is-for-it"
MAKE = f"""
[project]
name = "drawn"
[cleanroom.services.echo]
command = ["/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "8125"]
ready = {{ tcp = 8125 }}
[lifecycle.init]
command = "true"
cleanroom.containers = ["echo"]
[lifecycle.{LONG}]
command = "touch /usr/{"a-long-path-without-a-break" * 6} || true"
cleanroom.on_violation = "warn"
cleanroom.reason = "it is what is drawn"
[lifecycle.test]
command = "seq 30; echo {"a-long-line-without-a-break" * 20}; exit 7"
[lifecycle.validate]
command = "true"
"""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
# Runs chromium with its pipe where it looks for it: descriptors 3 and 4.
STARTER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.closerange(5, 99); os.execv(sys.argv[3], sys.argv[3:])"
)
LOOK = """
(() => {
  const box = one => { const { left, right, top, bottom } = one.getBoundingClientRect(); return { left, right, top, bottom } };
  const pictures = [...document.querySelectorAll('.picture > svg')].filter(svg => svg.getBoundingClientRect().width > 0);
  const svg = pictures[0], back = svg.querySelector('.back');
  const rows = [...svg.querySelectorAll('g')].filter(g => g.querySelector('text') && g.querySelector('rect'));
  return {
    pictures: pictures.length, picture: box(svg), window: innerWidth, wide: document.documentElement.scrollWidth,
    bars: rows.map(g => ({ label: g.querySelector('text').textContent, ...box(g.querySelector('rect')) })),
    texts: [...svg.querySelectorAll('text')].map(box),
    ink: getComputedStyle(svg.querySelector('g text')).fill,
    paper: back ? getComputedStyle(back).fill : getComputedStyle(svg.closest('section')).backgroundColor,
  };
})()
"""  # noqa: E501


class Browser:
    """Chromium, told and asked over a pipe (the DevTools protocol)."""

    def __init__(self, told: int, said: int) -> None:
        self._told, self._said = (
            os.fdopen(told, "wb", buffering=0),
            os.fdopen(said, "rb", buffering=0),
        )
        self._number, self._read = 0, b""
        self._page: dict[str, str] = {}
        self.heard: list[dict[str, Any]] = []  # what it said without being asked
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._page = {
            "sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        }
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._told.write(
            json.dumps(
                {"id": self._number, "method": method, "params": parameters, **self._page}
            ).encode()
            + b"\0"
        )
        while (message := self._next()).get("id") != self._number:
            self.heard.append(message)
        assert "result" in message, message
        return dict(message["result"])

    def wait(self, method: str) -> None:
        while not any(message.get("method") == method for message in self.heard):
            self.heard.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            piece = self._said.read(1 << 16)
            assert piece, "the browser has ended"
            self._read += piece
        line, _, self._read = self._read.partition(b"\0")
        return dict(json.loads(line))

    def close(self) -> None:
        self._page = {}
        self("Browser.close")
        self._told.close()
        self._said.close()


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        require_or_skip("chromium", "no chromium on PATH")
    ends = [
        fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
        for pair in (os.pipe(), os.pipe())
        for end in pair
    ]
    words = [
        sys.executable,
        "-c",
        STARTER,
        str(ends[0]),
        str(ends[3]),
        str(found),
        *FLAGS,
        f"--user-data-dir={profile}",
    ]
    process = subprocess.Popen(
        words,
        pass_fds=(ends[0], ends[3]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ends[0])
    os.close(ends[3])
    try:
        browser = Browser(ends[1], ends[2])
        try:
            yield browser
        finally:
            browser.close()
        process.wait(30)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    """The report and the result of a run in which something of everything happened."""
    import anyio

    folder = tmp_path_factory.mktemp("drawn")
    project = folder / "project"
    project.mkdir()
    (project / "make.toml").write_text(MAKE)

    async def run() -> RunResult:
        caller = {**os.environ, "CLEANROOM_CACHE": str(folder / "cache"), "HOME": str(folder)}
        async with engine.open(project, caller=caller) as opened:
            return await opened.pipeline("init", LONG, "test", "validate")

    result = anyio.run(run)
    return project / result.reports["html"], result


def contrast(one: str, other: str) -> float:
    """Of two colours as a browser writes them, by the accessibility guidelines' formula."""

    def light(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_picture_of_a_real_run_is_drawn(ran: tuple[Path, RunResult], tmp_path: Path):
    """Each service and each phase that ran has a bar inside the picture,
    nothing is wider than the window, text is legible, and the console is silent.
    """
    page, result = ran
    assert result.outcome == "failed", result
    drawn = [service.name for service in result.services] + [
        phase_name(phase) for phase in result.phases if phase.exit_code is not None
    ]
    assert len(drawn) == 4
    with browsing(tmp_path / "profile") as browser:
        for width in (1100, 360):
            for scheme in ("light", "dark"):
                browser(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=800,
                    deviceScaleFactor=1,
                    mobile=width == 360,
                )
                browser(
                    "Emulation.setEmulatedMedia",
                    features=[{"name": "prefers-color-scheme", "value": scheme}],
                )
                browser.heard.clear()
                browser("Page.navigate", url=page.as_uri())
                browser.wait("Page.loadEventFired")
                seen = browser("Runtime.evaluate", expression=LOOK, returnByValue=True)["result"][
                    "value"
                ]
                picture, here = seen["picture"], f"{width} px, {scheme}: {seen}"

                assert (seen["pictures"], seen["window"]) == (1, width), here
                assert seen["wide"] <= width, here
                bars = [
                    next(
                        bar
                        for bar in seen["bars"]
                        if bar["label"].rstrip("…") == name[: len(bar["label"].rstrip("…"))]
                    )
                    for name in drawn
                ]
                assert all(
                    bar["right"] > bar["left"] and bar["bottom"] > bar["top"] for bar in bars
                ), here
                for inside in (*bars, *seen["texts"]):
                    assert (
                        picture["left"] <= inside["left"] < inside["right"] <= picture["right"]
                    ), f"{inside}; {here}"
                    assert (
                        picture["top"] <= inside["top"] < inside["bottom"] <= picture["bottom"] + 1
                    ), f"{inside}; {here}"
                assert contrast(seen["ink"], seen["paper"]) >= 4.5, here
                said = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
                assert [message for message in browser.heard if message.get("method") in said] == []
