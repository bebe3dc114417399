"""A company's network of the test's own: run as a program it serves what lies behind the devices.

`WORLD` gives a command a network with one other machine, which is a network namespace behind a pair
of devices. It has private addresses, a public one, and one that only its proxy reaches.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

NEXUS, PROXY, PUBLIC, FAR = "10.1.2.3", "10.1.2.4", "93.184.216.34", "93.184.217.34"
HOSTS = f"""127.0.0.1 localhost
{NEXUS} nexus.corp
{PROXY} proxy.corp
10.1.2.1 self.corp
192.0.2.7 sample.corp
169.254.169.254 metadata.corp
{PUBLIC} a.example.org b.example.org example.org
{FAR} far.example.net
"""
WORLD = f"""
ip link set lo up
unshare --net sh -ec '
  ip link set lo up
  until ip link set there up 2>/dev/null; do sleep 0.05; done
  for address in {NEXUS}/24 {PROXY}/24 192.0.2.7/24 {PUBLIC}/24; do
    ip address add $address dev there
  done
  ip address add {FAR}/32 dev lo
  exec /usr/bin/python3 "$0" "$1"' "$1" "$0/proxied" >/dev/null 2>"$0/world.err" &
echo $! > "$0/world.pid"
until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
ip link add here type veth peer name there netns $!
for address in 10.1.2.1/24 192.0.2.1/24 93.184.216.1/24; do ip address add $address dev here; done
ip link set here up
mount --bind "$0/hosts" /etc/hosts
until [ -e "$0/proxied" ]; do sleep 0.05; done
shift
exec "$@"
"""


@contextlib.contextmanager
def company_network(folder: Path) -> Iterator[list[str]]:
    """The words before a command that runs in this network."""
    (folder / "hosts").write_text(HOSTS)
    world = ["unshare", "--mount", "--net", "--propagation", "slave", "sh", "-ec", WORLD]
    try:
        yield [*world, str(folder), __file__]
    finally:
        pid = folder / "world.pid"
        if pid.exists():
            subprocess.run(["kill", pid.read_text().strip()], check=True)


def proxied(folder: Path) -> list[str]:
    """What the proxy was asked to connect to."""
    return (folder / "proxied").read_text().split()


def _serve(address: str, port: int, answer: bytes) -> None:
    listening = socket.create_server((address, port))
    while True:
        end, _ = listening.accept()
        with end:
            end.recv(1000)
            length = len(answer)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            end.sendall(head.encode() + answer)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def _connect(end: socket.socket, log: str) -> None:
    with end:
        name = end.recv(1000).split()[1].decode()
        with open(log, "a") as file:
            file.write(f"{name}\n")
        host, _, port = name.rpartition(":")
        with socket.create_connection((host, int(port))) as outside:
            end.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            there = threading.Thread(target=_copy, args=(end, outside))
            there.start()
            _copy(outside, end)
            there.join()


def _main(log: str) -> None:
    for address, port in (
        (NEXUS, 443),
        (NEXUS, 8443),
        (PUBLIC, 443),
        ("192.0.2.7", 443),
        (FAR, 80),
    ):
        answer = f"hello from {address}".encode()
        threading.Thread(target=_serve, args=(address, port, answer), daemon=True).start()
    listening = socket.create_server((PROXY, 3128))
    Path(log).touch()
    while True:
        end, _ = listening.accept()
        threading.Thread(target=_connect, args=(end, log), daemon=True).start()


if __name__ == "__main__":
    import sys

    _main(sys.argv[1])
