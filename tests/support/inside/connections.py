"""Rows of connections to services."""

from __future__ import annotations

from support.inside.row import Row, python_program

_PORT = 7117
_ASKED_SERVICE = ("python3", "asked_service.py", str(_PORT))
_CLIENT = f"python3 service_client.py {_PORT}"
CONNECTIONS = (
    Row(
        "socket-flags",
        "a socket that is set non-blocking stays so when it is bound, listens and connects",
        "true",
        (
            python_program(
                "import socket, os, fcntl",
                "a, b = socket.socket(), socket.socket()",
                "def blocks():",
                "    return [not fcntl.fcntl(e, fcntl.F_GETFL) & os.O_NONBLOCK for e in (a, b)]",
                "a.setblocking(False); b.setblocking(False)",
                "a.bind(('127.0.0.1', 0)); a.listen()",
                "b.connect_ex(a.getsockname())",
                "assert blocks() == [False, False], blocks()",
                "c = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)",
                "fcntl.fcntl(c, fcntl.F_SETFL, os.O_RDWR); b = c",
                "c.bind(('127.0.0.1', 0))",
                "assert blocks() == [False, True], blocks()",
            ),
        ),
        "true",
        {"root High": "a port to listen on is declared with `ports`"},
    ),
    Row(
        "service-half-close",
        "a client ends its side, and the service still answers",
        "true",
        (f"{_CLIENT} half-close",),
        "true",
        service=_ASKED_SERVICE,
        port=_PORT,
    ),
    Row(
        "service-last-word",
        "a service ends its side, and the client still sends",
        "true",
        (f"{_CLIENT} last-word",),
        "true",
        service=_ASKED_SERVICE,
        port=_PORT,
    ),
    Row(
        "service-many",
        "1,000 connections to a service at once, then 10,000 in turn, and 1,000 again",
        "true",
        (f"ulimit -Sn 1024; {_CLIENT} 1000 10000 && {_CLIENT} 1000 1",),
        "true",
        service=_ASKED_SERVICE,
        port=_PORT,
        slow=True,
    ),
)
