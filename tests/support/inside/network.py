"""Rows of names and addresses."""

from __future__ import annotations

from support.inside.row import Row, python_program

_LISTENING = {"root High": "a port to listen on is declared with `ports`"}
NETWORK = (
    Row(
        "network-localhost",
        "a server at localhost is reached at once, by 127.0.0.1 and by ::1",
        "true",
        (
            python_program(
                "import socket",
                "found = {f: a[0] for f, *_, a in socket.getaddrinfo('localhost', 80)}",
                "assert found[socket.AF_INET] == '127.0.0.1', found",
                "for host in ('127.0.0.1', '::1', 'localhost'):",
                "    family = socket.AF_INET6 if ':' in host else socket.AF_INET",
                "    with socket.create_server((host, 0), family=family) as server:",
                "        with socket.create_connection(server.getsockname()[:2], 5) as client:",
                "            end, _ = server.accept()",
                "            end.sendall(b'here'); end.close()",
                "            assert client.recv(4) == b'here', host",
            ),
        ),
        "true",
        _LISTENING,
    ),
    Row(
        "network-invalid",
        "names below .invalid and .test are nobody's",
        "true",
        (
            python_program(
                "import socket",
                "for name in ('a.invalid', 'b.c.test'):",
                "    try: print(socket.getaddrinfo(name, 80)); raise SystemExit(1)",
                "    except socket.gaierror as error:",
                "        assert error.errno in (socket.EAI_NONAME, socket.EAI_AGAIN), error",
            ),
        ),
        "true",
    ),
    Row(
        "network-below-localhost",
        "a name below .localhost is this machine",
        "true",
        (
            python_program(
                "import os, socket",
                "try: assert socket.gethostbyname('shop.localhost') == '127.0.0.1'",
                "except socket.gaierror:  # not each machine's resolver knows it",
                "    assert 'CLEANROOM_RUN_ID' not in os.environ",
            ),
        ),
        "true",
    ),
    Row(
        "network-own-address",
        "connecting a datagram socket tells one's own address, and sends nothing",
        "true",
        (
            python_program(
                "import errno, os, socket",
                "away = ((socket.AF_INET, '8.8.8.8'), (socket.AF_INET6, '2001:db8::1'))",
                "for family, host in away:",
                "    with socket.socket(family, socket.SOCK_DGRAM) as it:",
                "        try: it.connect((host, 80)); assert it.getsockname()[0]",
                "        except OSError as error:  # a machine without a network",
                "            assert 'CLEANROOM_RUN_ID' not in os.environ, error",
                "            assert error.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL), error",
            ),
        ),
        "true",
    ),
    Row(
        "network-no-socket",
        "sockets that are not there (D-Bus, X11) are looked for in vain, and that is all",
        "true",
        (
            python_program(
                "import socket",
                "paths = ('/run/dbus/no-such', '/var/run/no-such/socket', '/tmp/.X11-unix/X97')",
                "for path in paths:",
                "    try: socket.socket(socket.AF_UNIX).connect(path); raise SystemExit(1)",
                "    except (FileNotFoundError, ConnectionRefusedError): pass",
            ),
        ),
        "true",
    ),
)
