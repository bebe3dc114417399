"""Counts in the server that REDIS_URL names, with nothing but sockets."""

import os
import socket
from urllib.parse import urlsplit

url = urlsplit(os.environ["REDIS_URL"])
with (
    socket.create_connection((url.hostname, url.port)) as server,
    server.makefile("rwb", buffering=0) as lines,
):
    for command in (f"AUTH {url.password}", "INCR count", "INCR count", "INCR count"):
        lines.write(f"{command}\r\n".encode())
        answer = lines.readline().decode().strip()
        print(command.partition(" ")[0], answer, flush=True)
    assert answer == ":3", answer
