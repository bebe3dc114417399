"""Is this shop ready to sell? Each check is a claim; what it tries is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import redis

from shop import migrate
from shop.orders import OutOfStock, Shop

SKU = "validation-only"


def checks(
    database: psycopg.Connection, cache: redis.Redis
) -> Iterator[tuple[str, Callable[[], bool]]]:
    shop = Shop(database, cache, prefix="validation")
    yield (
        "the database has every migration, unchanged",
        lambda: migrate.applied(database) == {m.number: m.sha256 for m in migrate.available()},
    )
    yield "an order goes through both stores and back", lambda: goes_through(shop)
    yield "what is not in stock is not sold", lambda: refuses_more_than_there_is(shop)


def goes_through(shop: Shop) -> bool:
    order = shop.order("validation", {SKU: 2})
    placed = (shop.total_cents(order), shop.stock(SKU))
    shop.cancel(order)
    return placed == (500, 1) and shop.stock(SKU) == 3


def refuses_more_than_there_is(shop: Shop) -> bool:
    try:
        shop.order("validation", {SKU: 4})
    except OutOfStock:
        return shop.stock(SKU) == 3
    return False


def validate(database: psycopg.Connection, cache: redis.Redis) -> bool:
    """Run all checks and say how each went; True when all held."""
    shop = Shop(database, cache, prefix="validation")
    shop.offer(SKU, "Not for sale", 250, stock=3)
    try:
        results = [(claim, check()) for claim, check in checks(database, cache)]
    finally:
        database.execute("DELETE FROM customer_order WHERE customer = 'validation'")
        database.execute("DELETE FROM product WHERE sku = %s", (SKU,))
        cache.delete(f"validation:stock:{SKU}")
    for claim, held in results:
        print("ok    " if held else "FAILED", claim)
    return all(held for _, held in results)
