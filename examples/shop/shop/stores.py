"""Connections to the two stores, from the variables the surroundings give:
DATABASE_URL and REDIS_URL.
"""

from __future__ import annotations

import os

import psycopg
import redis


def database() -> psycopg.Connection:
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, connect_timeout=5)


def cache() -> redis.Redis:
    return redis.Redis.from_url(
        os.environ["REDIS_URL"], decode_responses=True, socket_connect_timeout=5
    )
