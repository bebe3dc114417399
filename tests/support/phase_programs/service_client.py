"""A client of `asked_service.py`.

Usage: service_client.py PORT half-close|last-word|waves MANY|MANY TURNS

MANY connections are open at once, and then TURNS follow one another.
With "waves" the first half is answered and closed before the last is read.
"""

import socket
import sys
import time

PORT = int(sys.argv[1])


def connected(first=b"echo\n"):
    end = socket.create_connection(("127.0.0.1", PORT), timeout=60)
    end.sendall(first)
    return end


def rest(end):
    """All that the service sends until it ends its side."""
    with end:
        return b"".join(iter(lambda: end.recv(65536), b""))


def half_close():
    """The service still answers a client that has ended its side."""
    end = connected()
    end.sendall(b"x" * 300_000)
    end.shutdown(socket.SHUT_WR)
    time.sleep(0.2)
    assert rest(end) == b"x" * 300_000 + b"end"


def last_word():
    """The client still sends to a service that has ended its side."""
    end = connected(b"last\n")
    assert end.recv(1) == b""
    for _ in range(3):
        end.sendall(b"y" * 100_000)
        time.sleep(0.1)
    end.close()
    until = time.monotonic() + 20
    while (kept := rest(connected(b"kept\n"))) != b"y" * 300_000:
        assert time.monotonic() < until, len(kept)
        time.sleep(0.1)


def many(at_once, in_turn):
    ends = [connected() for _ in range(at_once)]
    for number, end in enumerate(ends):
        end.sendall(b"%06d" % number)
    for number, end in enumerate(ends):
        assert end.recv(6, socket.MSG_WAITALL) == b"%06d" % number
    for end in ends:
        end.close()
    for number in range(in_turn):
        with connected() as end:
            end.sendall(b"%06d" % number)
            assert end.recv(6, socket.MSG_WAITALL) == b"%06d" % number


def waves(many):
    ends = [connected() for _ in range(many)]
    for end in ends:
        end.sendall(b"here")
    for wave in (ends[: many // 2], ends[many // 2 :]):
        for end in wave:
            assert end.recv(4, socket.MSG_WAITALL) == b"here"
        time.sleep(0.5)
        for end in wave:
            end.close()


if sys.argv[2] == "half-close":
    half_close()
elif sys.argv[2] == "last-word":
    last_word()
elif sys.argv[2] == "waves":
    waves(int(sys.argv[3]))
else:
    many(int(sys.argv[2]), int(sys.argv[3]))
