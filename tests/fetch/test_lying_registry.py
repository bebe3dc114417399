"""A registry that lies, through the real command: each lie is caught and named."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from support.lying_registry import PORT, Answer, make_certificates
from support.paths import ROOT

NEEDS = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="makes network namespaces, as root"
)
pytestmark = [pytest.mark.sandbox, NEEDS]

BODY = b"the package\n"
FILE = "/left-pad/-/left-pad-1.0.0.tgz"
URL = f"https://registry.test:{PORT}{FILE}"
MAKE = '[project]\nname = "p"\n[lifecycle.test]\ncommand = "true"\n'


class Said(NamedTuple):
    code: int
    err: str
    requests: list[str]


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    folder = tmp_path / "server"
    folder.mkdir()
    make_certificates(folder)
    return folder


def lock(digest_of: bytes = BODY, url: str = URL) -> str:
    digest = base64.b64encode(hashlib.sha512(digest_of).digest()).decode()
    entry = {"version": "1.0.0", "resolved": url, "integrity": f"sha512-{digest}"}
    packages = {"": {}, "node_modules/left-pad": entry}
    return json.dumps({"lockfileVersion": 3, "packages": packages})


def run(
    tmp_path: Path, server: Path, answers: dict[str, Answer], text: str, *words: str, **more: str
) -> Said:
    project = tmp_path / "project"
    project.mkdir(exist_ok=True)
    (project / "make.toml").write_text(MAKE)
    (project / "package-lock.json").write_text(text)
    (server / "answers").write_text(json.dumps(answers))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT / "tests"),
        "CLEANROOM_CACHE": str(tmp_path / "cache"),
        "SSL_CERT_FILE": str(server / "certificate.pem"),
        **more,
    }
    program = [sys.executable, "-m", "support.lying_registry", str(server / "answers"), str(server)]
    engine = [sys.executable, "-m", "cleanroom", *(words or ("pipeline", "test"))]
    done = subprocess.run(
        [*program, *engine],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
    )
    log = server / "requests"
    return Said(done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else [])


def test_what_the_lock_names_is_fetched_once_and_then_never_again(
    tmp_path: Path, certificates: Path
):
    """The second run, and an offline one, ask nobody."""
    answers = {FILE: Answer(body=BODY.hex())}
    first = run(tmp_path, certificates, answers, lock())
    assert (first.code, len(first.requests)) == (0, 1), first.err
    again = run(tmp_path, certificates, answers, lock())
    offline = run(tmp_path, certificates, answers, lock(), "pipeline", "test", "--offline")
    assert (again.code, offline.code, len(offline.requests)) == (0, 0, 1)


def test_the_bill_of_materials_is_made_again_from_the_records(tmp_path: Path, certificates: Path):
    """The same bytes; none where the record was changed, and of a set that cannot be had why."""
    run(tmp_path, certificates, {FILE: Answer(body=BODY.hex())}, lock())
    reports = tmp_path / "project/.ggen/cleanroom/reports"
    written = (reports / "sbom.cdx.json").read_bytes()
    (package,) = json.loads(written)["components"]
    assert package["purl"] == "pkg:npm/left-pad@1.0.0"
    again = run(tmp_path, certificates, {}, lock(), "report")
    assert (again.code, (reports / "sbom.cdx.json").read_bytes()) == (0, written)
    (record,) = (tmp_path / "project/.ggen/cleanroom/runs").glob("*/dependencies.json")
    record.write_text(record.read_text().replace("left-pad", "right-pad"))
    assert run(tmp_path, certificates, {}, lock(), "report").code == 0
    assert not (reports / "sbom.cdx.json").exists()
    run(tmp_path, certificates, {FILE: Answer(status=404)}, lock(b"other"))
    (missing,) = json.loads((reports / "sbom.cdx.json").read_bytes())["components"]
    assert "answered 404" in json.dumps(missing["properties"])


LIES = {
    "another file": (Answer(body=b"another\n".hex()), 3, "CR-FETCH-001", "the registry gave"),
    "a longer file": (Answer(body=(BODY + b"x").hex()), 3, "CR-FETCH-001", "the registry gave"),
    "a redirect to a private address": (
        Answer(status=302, location=f"https://private.test:{PORT}{FILE}"),
        3,
        "CR-FETCH-002",
        "redirected to private.test",
    ),
    "a redirect to the loopback": (
        Answer(status=302, location="https://127.0.0.1/x"),
        3,
        "CR-FETCH-002",
        "redirected to 127.0.0.1",
    ),
    "a redirect to a private address by its number": (
        Answer(status=302, location=f"https://10.77.0.2:{PORT}{FILE}"),
        3,
        "CR-FETCH-002",
        "redirected to 10.77.0.2",
    ),
    "a redirect to a link-local address": (
        Answer(status=302, location="https://169.254.169.254/latest"),
        3,
        "CR-FETCH-002",
        "redirected to 169.254.169.254",
    ),
    "a redirect without encryption": (
        Answer(status=302, location=f"http://objects.test:{PORT}/elsewhere"),
        3,
        "CR-FETCH-002",
        "redirected to objects.test",
    ),
    "a redirect from host to host": (
        Answer(status=302, location=f"https://{{host}}:{PORT}{FILE}"),
        3,
        "CR-FETCH-002",
        "after 3 others",
    ),
    "another file, elsewhere": (
        Answer(status=302, location=f"https://objects.test:{PORT}/other"),
        3,
        "CR-FETCH-001",
        "from objects.test",
    ),
    "a redirect in a circle": (
        Answer(status=302, location=URL),
        3,
        "CR-FETCH-002",
        "more than 5 redirects",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_named_and_refuses_the_run(tmp_path: Path, certificates: Path, lie: str):
    """No phase runs, and the store keeps nothing of it."""
    answer, code, error, text = LIES[lie]
    other = {"/other": Answer(body=b"other".hex())}
    said = run(tmp_path, certificates, {FILE: answer, **other}, lock())
    assert said.code == code, said.err
    assert error in said.err
    assert text in said.err
    assert not [
        path for path in (tmp_path / "cache/dependencies/files").rglob("*") if path.is_file()
    ]
    assert not list((tmp_path / "cache/dependencies/building").iterdir())


FAULTS = {
    "a file that is not there": (Answer(status=404), "answered 404"),
    "a refusal": (Answer(status=403), "answered 403"),
    "a file cut short": (Answer(body=BODY.hex(), length=1000), "registry.test"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_registry_in_trouble_is_a_warning_and_an_error_of_fetch(
    tmp_path: Path, certificates: Path, fault: str
):
    """Phases may not need the package: they run, and `fetch` says 5."""
    answer, text = FAULTS[fault]
    said = run(tmp_path, certificates, {FILE: answer}, lock())
    assert said.code == 0, said.err
    assert "CR-FETCH-003" in said.err
    assert text in said.err
    assert run(tmp_path, certificates, {FILE: answer}, lock(), "fetch").code == 5


def test_a_private_registry_that_only_the_lock_names_is_not_reached(
    tmp_path: Path, certificates: Path
):
    """A lock file comes with the project: it opens no way to the caller's own network."""
    url = f"https://private.test:{PORT}{FILE}"
    said = run(tmp_path, certificates, {FILE: Answer(body=BODY.hex())}, lock(url=url), "fetch")
    assert (said.code, said.requests) == (5, [])
    assert "private.test" in said.err


def test_offline_names_what_is_missing(tmp_path: Path, certificates: Path):
    """Nothing is asked, the phases run, and `fetch --offline` says 5."""
    said = run(tmp_path, certificates, {}, lock(), "pipeline", "test", "--offline")
    assert (said.code, said.requests) == (0, [])
    assert "CR-FETCH-004" in said.err
    assert run(tmp_path, certificates, {}, lock(), "fetch", "--offline").code == 5


def test_credentials_of_netrc_reach_their_host_and_nothing_else(tmp_path: Path, certificates: Path):
    """The registry gets them; a phase, the output and the run's files do not."""
    (tmp_path / ".netrc").write_text(
        f"machine registry.test:{PORT} login me password hunter2-hunter2\n"
    )
    said = run(tmp_path, certificates, {FILE: Answer(body=BODY.hex())}, lock())
    sent = "Basic " + base64.b64encode(b"me:hunter2-hunter2").decode()
    assert said.requests == [f"{sent} {FILE}"]
    kept = [
        path
        for folder in (tmp_path / "project", tmp_path / "cache")
        for path in folder.rglob("*")
        if path.is_file() and b"hunter2" in path.read_bytes()
    ]
    assert (kept, "hunter2" in said.err) == ([], False)


PASSWORD = "hunter2-hunter2"
LOGIN = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
ECHO = b"{login}".hex()
AWAY = Answer(status=302, location=f"https://{{login}}.registry.test:{PORT}/")


def shows_login(tmp_path: Path, said: Said) -> list[str]:
    """Where a login can be read afterwards: on the screen, and in files of ours."""
    files = (path for name in ("project", "cache") for path in (tmp_path / name).rglob("*"))
    texts = {str(path): path.read_bytes() for path in files if path.is_file()}
    texts["the screen"] = said.err.encode()
    words = [word.encode() for word in (PASSWORD, LOGIN, LOGIN.rstrip("="))]
    return [name for name, text in texts.items() if any(word in text for word in words)]


@pytest.mark.parametrize(
    "answer", [AWAY, Answer(status=403, reason="no {login}", body=ECHO)], ids=["away", "refused"]
)
@pytest.mark.parametrize("file", [".netrc", ".npmrc"])
def test_a_registry_that_repeats_a_login_has_it_shown_nowhere(
    tmp_path: Path, certificates: Path, file: str, answer: Answer
):
    """In the place it redirects to, or in its refusal."""
    texts = {
        ".netrc": f"machine registry.test:{PORT} login me password {PASSWORD}\n",
        ".npmrc": f"//registry.test:{PORT}/:_auth={LOGIN}\n",
    }
    (tmp_path / file).write_text(texts[file])
    said = run(tmp_path, certificates, {FILE: answer}, lock(), "pipeline", "test")
    assert said.requests[0] == f"Basic {LOGIN} {FILE}"
    assert "registry.test" in said.err
    assert shows_login(tmp_path, said) == []


# Stands for python3: it has a pip, which prints its configuration and fails.
TALKATIVE = """#!/bin/sh
case "$*" in
-c*) echo "$0" ;;
*--help) echo --report ;;
*) cat "$PIP_CONFIG_FILE"; exit 3 ;;
esac
"""


def test_what_a_tool_prints_of_the_logins_it_has_is_masked(tmp_path: Path, certificates: Path):
    """A pip that prints its own configuration, into the log and the warning."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/requirements.txt").write_text("left-pad\n")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/python3").write_text(TALKATIVE)
    (tmp_path / "tools/python3").chmod(0o755)
    index = f"https://me:{PASSWORD}@registry.test:{PORT}/simple"
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip/pip.conf").write_text(f"[global]\nindex-url = {index}\n")
    path = f"{tmp_path / 'tools'}:/usr/bin:/bin"
    said = run(tmp_path, certificates, {}, lock(), "pipeline", "test", PATH=path)
    assert "index-url = https://[redacted]@registry.test" in said.err
    assert shows_login(tmp_path, said) == []


def test_certificates_that_are_none_are_an_error_of_the_download(
    tmp_path: Path, certificates: Path
):
    """The caller's own file: said, and nothing is fetched without it."""
    broken = tmp_path / "broken.pem"
    broken.write_text("none")
    answers = {FILE: Answer(body=BODY.hex())}
    said = run(tmp_path, certificates, answers, lock(), "fetch", SSL_CERT_FILE=str(broken))
    assert (said.code, said.requests) == (5, [])
    assert "CR-FETCH-005" in said.err


def test_a_server_whose_certificate_nobody_vouches_for_is_not_believed(
    tmp_path: Path, certificates: Path
):
    """Without the caller's file its authority is unknown."""
    answers = {FILE: Answer(body=BODY.hex())}
    said = run(tmp_path, certificates, answers, lock(), "fetch", SSL_CERT_FILE="")
    assert (said.code, said.requests) == (5, [])
    assert "CERTIFICATE_VERIFY_FAILED" in said.err


@pytest.mark.parametrize("sweeper", ["pipeline test", "sweep"])
def test_what_a_killed_fetch_had_begun_goes_with_the_next_command(
    tmp_path: Path, certificates: Path, sweeper: str
):
    """Its folders hold the orders of a download, and the logins in them."""
    (tmp_path / ".netrc").write_text(
        f"machine registry.test:{PORT} login me password hunter2-hunter2\n"
    )
    store = tmp_path / "cache/dependencies"

    def orders() -> list[Path]:
        return list(store.glob("building/*/orders/orders.json"))

    slow = {FILE: Answer(body=BODY.hex(), pause=2.0)}
    killer = threading.Thread(target=_kill_engine, args=(orders,))
    killer.start()
    run(tmp_path, certificates, slow, lock(), "fetch")
    killer.join()
    assert orders()
    run(
        tmp_path,
        certificates,
        slow,
        "{}" if sweeper == "sweep" else '{"packages": {}}',
        *sweeper.split(),
    )
    assert not list((store / "building").iterdir())


def _kill_engine(orders: Callable[[], list[Path]]) -> None:
    """Kill the engine that has written these orders, with SIGKILL."""
    until = time.monotonic() + 30
    while not (found := orders()) and time.monotonic() < until:
        time.sleep(0.01)
    lock_of = f"building-{found[0].parent.parent.name}"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(one).endswith(lock_of) for one in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)
                return


NETRC = f"machine registry.test:{PORT} login me password secret\n"
SENT = "Basic " + base64.b64encode(b"me:secret").decode()


def test_an_address_with_two_hosts_gets_no_credentials(tmp_path: Path, certificates: Path):
    """One reader's host has the login, the other's gets the request."""
    (tmp_path / ".netrc").write_text(NETRC.replace("registry", "private"))
    there = f"https://registry.test:{PORT}"
    document = json.loads(lock(url=f"{there}\\@private.test:{PORT}{FILE}"))
    other = json.loads(lock(b"other", f"{there}/b"))["packages"]["node_modules/left-pad"]
    document["packages"]["node_modules/b"] = other
    odd = f"/%5C@private.test:{PORT}{FILE}"
    answers = {"/b": Answer(body=b"other".hex()), odd: Answer(body=BODY.hex())}
    said = run(tmp_path, certificates, answers, json.dumps(document))
    assert "node_modules/left-pad: its address is no plain one" in said.err
    assert not [line for line in said.requests if line.startswith("Basic")]


def test_credentials_stay_with_a_redirect_within_their_place(tmp_path: Path, certificates: Path):
    """The same scheme, host and port."""
    (tmp_path / ".netrc").write_text(NETRC)
    answers = {
        FILE: Answer(status=302, location=f"https://registry.test:{PORT}/elsewhere"),
        "/elsewhere": Answer(body=BODY.hex()),
    }
    said = run(tmp_path, certificates, answers, lock())
    assert said.code == 0, said.err
    assert said.requests == [f"{SENT} {FILE}", f"{SENT} /elsewhere"]


def test_a_file_is_followed_to_another_public_host(tmp_path: Path, certificates: Path):
    """As releases of GitHub lead: without the login, and the record has the host."""
    (tmp_path / ".netrc").write_text(NETRC)
    answers = {
        FILE: Answer(status=302, location=f"https://objects.test:{PORT}/stored?signed=1"),
        "/stored?signed=1": Answer(body=BODY.hex()),
    }
    said = run(tmp_path, certificates, answers, lock(), "fetch")
    assert said.code == 0, said.err
    assert said.requests == [f"{SENT} {FILE}", "- /stored?signed=1"]
    (record,) = (tmp_path / "project/.ggen/cleanroom/runs").glob("*/dependencies.json")
    (stored,) = json.loads(record.read_text())[0]["files"]
    assert stored["host"] == f"objects.test:{PORT}"
    assert "left-pad 1.0.0 is led to objects.test" in said.err + log_of(tmp_path)


def log_of(tmp_path: Path) -> str:
    """What the fetch step wrote of its work."""
    logs = (tmp_path / "project/.ggen/cleanroom/runs").glob("*/logs/**/*")
    return "".join(path.read_text() for path in logs if path.is_file())


def test_a_login_goes_to_no_port_that_only_a_lock_names(tmp_path: Path, certificates: Path):
    """Nor does one for any host."""
    text = "machine registry.test login me password secret\ndefault login me password secret\n"
    (tmp_path / ".netrc").write_text(text)
    said = run(tmp_path, certificates, {FILE: Answer(body=BODY.hex())}, lock(), "fetch")
    assert (said.code, said.requests) == (0, [f"- {FILE}"])


def test_a_login_goes_to_a_port_that_the_callers_configuration_names(
    tmp_path: Path, certificates: Path
):
    """`registry=` has it, and netrc the host."""
    (tmp_path / ".netrc").write_text("machine registry.test login me password secret\n")
    (tmp_path / ".npmrc").write_text(f"registry=https://registry.test:{PORT}/\n")
    said = run(tmp_path, certificates, {FILE: Answer(body=BODY.hex())}, lock(), "fetch")
    assert (said.code, said.requests) == (0, [f"{SENT} {FILE}"])
