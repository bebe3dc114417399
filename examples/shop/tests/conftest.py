"""Each test has a shop of its own: a schema in the database, a prefix in Redis,
both removed afterwards.

Without the stores tests fail.

Where somebody takes spans, each test is one, and so is each of its SQL statements (a project that
has the engine's pytest plugin says `--cleanroom-spans`).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from shop import migrate, stores
from shop.orders import Shop

SCHEMA = Path(__file__).parent.parent / "database/schema.sql"


@pytest.fixture(scope="session")
def tracer() -> Iterator[Any]:
    if "OTEL_EXPORTER_OTLP_ENDPOINT" not in os.environ:
        yield None
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    PsycopgInstrumentor().instrument()
    yield provider.get_tracer("shop.tests")
    provider.shutdown()


@pytest.fixture(autouse=True)
def span(request: pytest.FixtureRequest, tracer: Any) -> Iterator[None]:
    if tracer is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    pipeline = TraceContextTextMapPropagator().extract(
        {"traceparent": os.environ.get("TRACEPARENT", "")}
    )
    with tracer.start_as_current_span(
        request.node.nodeid, context=pipeline, attributes={"test.case.name": request.node.name}
    ):
        yield


@pytest.fixture(scope="session")
def connection(tracer: Any) -> Iterator[psycopg.Connection]:
    with stores.database() as database:
        yield database


@pytest.fixture(scope="session")
def cache() -> Iterator[redis.Redis]:
    with stores.cache() as client:
        client.ping()
        yield client


@pytest.fixture
def database(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    name = f"test_{secrets.token_hex(6)}"
    connection.execute(f"CREATE SCHEMA {name}")
    connection.execute(f"SET search_path TO {name}")
    try:
        connection.execute(SCHEMA.read_text())
        migrate.migrate(connection)
        yield connection
    finally:
        connection.execute("RESET search_path")
        connection.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def shop(database: psycopg.Connection, cache: redis.Redis) -> Iterator[Shop]:
    shop = Shop(database, cache, prefix=f"test-{secrets.token_hex(6)}")
    shop.offer("tea", "Tea", 500, stock=10)
    shop.offer("cup", "Cup", 850, stock=2)
    try:
        yield shop
    finally:
        for key in list(cache.scan_iter(f"{shop.prefix}:*")):
            cache.delete(key)
