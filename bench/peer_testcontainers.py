"""What `bench/container_peers.py` runs with the interpreter that has testcontainers-python:
one life of PostgreSQL and Redis, one after the other, as its users do.

Says as one line of JSON how long it took and where they are, waits for a line, removes them,
says how long that took.
"""

import json
import sys
import time

from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer


def main(asked):
    postgres = PostgresContainer(
        asked["postgres"],
        username=asked["user"],
        password=asked["password"],
        dbname=asked["database"],
    )
    postgres.with_kwargs(user="postgres").with_command(["sh", "-c", asked["entry"]])
    redis = RedisContainer(asked["redis"]).with_command(asked["redis_command"])
    started = []
    try:
        began = time.perf_counter()
        for container in (postgres, redis):
            container.start()
            started.append(container)
        ready = time.perf_counter() - began
        ports = {
            "postgres": int(postgres.get_exposed_port(5432)),
            "redis": int(redis.get_exposed_port(6379)),
        }
        print(json.dumps({"ready": ready, "ports": ports}), flush=True)
        sys.stdin.readline()
    finally:
        began = time.perf_counter()
        for container in reversed(started):
            container.stop()
    print(json.dumps({"removed": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
