"""Everyday services by their names: each with the real server, where this machine has it.

CLEANROOM_TEST_SERVERS names further folders of programs, and CLEANROOM_TEST_LIBRARIES their
libraries.
"""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from cleanroom.project.everyday_services import everyday_services
from support.command_harness import Project
from support.required_tools import require_or_skip

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

PATH = os.pathsep.join(
    filter(None, [os.environ.get("CLEANROOM_TEST_SERVERS"), os.environ["PATH"], "/usr/sbin"])
)
LIBRARIES = os.environ.get("CLEANROOM_TEST_LIBRARIES", "")

MAIL = """
import json, os, smtplib, urllib.request
with smtplib.SMTP(os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"])) as server:
    server.sendmail("a@x.test", ["b@x.test"], "Subject: hello\\n\\nbody")
(mail,) = json.load(urllib.request.urlopen(os.environ["MAILBOX_URL"]))
assert (mail["to"], mail["subject"], mail["text"].strip()) == (["b@x.test"], "hello", "body")
"""
S3 = """
import os, urllib.request
def ask(method, path, body=None):
    headers = {"Content-Type": "text/plain"}
    url = os.environ["AWS_ENDPOINT_URL"] + path
    request = urllib.request.Request(url, body, headers, method=method)
    return urllib.request.urlopen(request).read()
ask("PUT", "/bucket")
ask("PUT", "/bucket/key?x-id=PutObject", b"hello")
assert b"<Name>bucket</Name>" in ask("GET", "/")
"""
TALK = """
import socket, sys, time
server = socket.create_connection(("127.0.0.1", {port}))
server.sendall({words!r})
heard = b""
until = time.monotonic() + 10
while {answer!r} not in heard:
    assert time.monotonic() < until, heard
    heard += server.recv(4096)
"""
PROGRAMS = {
    "mail": MAIL,
    "s3": S3,
    # The server's greeting, in protocol 10.
    "mariadb": TALK.format(port=3306, words=b"", answer=b"MariaDB"),
    "nats": TALK.format(
        port=4222,
        words=b'CONNECT {"verbose":false}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\nPING\r\n',
        answer=b"MSG a 1 2\r\nhi\r\nPONG",
    ),
    "mosquitto": TALK.format(
        port=1883,
        words=b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a",
        answer=b"\x20\x02\x00\x00",
    ),
    "memcached": TALK.format(
        port=11211, words=b"set a 0 0 1\r\n7\r\nget a\r\n", answer=b"VALUE a 0 1\r\n7"
    ),
}


def test_each_everyday_service_is_tried():
    """Those of the file are those of this test."""
    assert set(PROGRAMS) == set(everyday_services())


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_phase_that_names_it_can_use_it(project: Project, name: str):
    """Without a table of its own in make.toml; it is ready when the phase's command starts."""
    service = everyday_services()[name]
    if shutil.which(service.needs, path=PATH) is None:
        require_or_skip(service.needs, f"{service.needs} is not installed: {service.install}")
    (project.root / "use.py").write_text(PROGRAMS[name])
    project.write({"test": "/usr/bin/python3 use.py"}, containers=f'["{name}"]')
    if LIBRARIES:
        project.add(
            f'[cleanroom.services.{name}]\nvariables = {{ LD_LIBRARY_PATH = "{LIBRARIES}" }}\n'
        )
    project.caller["PATH"] = PATH
    answer = project.call("run", "test")
    assert answer.result["outcome"] == "passed", answer.err


def test_a_server_that_is_not_there_is_said_with_how_it_comes(project: Project):
    """Before any phase, with a stable code."""
    project.write({"test": "true"}, containers='["s3"]')
    project.caller["PATH"] = "/nowhere"
    answer = project.call("run", "test")
    assert answer.code == 5
    assert "CR-SERVICE-001" in answer.err
    assert "pip install 'moto[server,s3]'" in answer.err


def test_a_name_that_is_no_service_has_the_close_one(project: Project):
    """Everyday services are among the names that were meant."""
    project.write({"test": "true"}, containers='["memcache"]')
    answer = project.call("run", "test")
    assert answer.code == 2
    assert "'memcached'" in answer.err
