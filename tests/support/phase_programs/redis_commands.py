"""Sends each argument as one command to the key-value server of `REDIS_URL`
and prints the answers, each on a line.
"""

import os
import socket
import sys
import urllib.parse

url = urllib.parse.urlsplit(os.environ["REDIS_URL"])
with socket.create_connection((url.hostname, url.port)) as connection:
    file = connection.makefile("rwb")
    for words in (["AUTH", url.password], *(argument.split() for argument in sys.argv[1:])):
        file.write(b"*%d\r\n" % len(words))
        for word in words:
            file.write(b"$%d\r\n%s\r\n" % (len(word), word.encode()))
        file.flush()
        answer = file.readline().strip().decode()
        if answer.startswith("$") and answer != "$-1":
            answer = file.readline().strip().decode()
        if words[0] != "AUTH":
            print(answer)
