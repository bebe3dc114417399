"""Taking and cancelling orders.

The stock is counted in Redis, where many tills can take from it at once;
what was ordered is kept in PostgreSQL.
Stock is taken first and given back if the order cannot be written, so that nothing is sold twice.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
import redis

# Takes all of it or nothing, in one step that no other till can come between.
TAKE = """
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') < tonumber(ARGV[i]) then return key end
end
for i, key in ipairs(KEYS) do redis.call('DECRBY', key, ARGV[i]) end
return false
"""


class OutOfStock(Exception):
    """There is less of it than was asked for."""


class UnknownProduct(Exception):
    """The catalogue has no such product."""


class Shop:
    """The service. `prefix` keeps the keys of several shops in one Redis apart."""

    def __init__(
        self, database: psycopg.Connection, cache: redis.Redis, prefix: str = "shop"
    ) -> None:
        self.database, self.cache, self.prefix = database, cache, prefix

    def offer(self, sku: str, name: str, price_cents: int, stock: int) -> None:
        """Put a product into the catalogue, or change it, and set its stock."""
        self.database.execute(
            (
                "INSERT INTO product VALUES (%s, %s, %s) ON CONFLICT (sku) DO UPDATE SET name = "
                "excluded.name, price_cents = excluded.price_cents"
            ),
            (sku, name, price_cents),
        )
        self.cache.set(self._key(sku), stock)

    def stock(self, sku: str) -> int:
        return int(self.cache.get(self._key(sku)) or 0)

    def order(self, customer: str, lines: Mapping[str, int]) -> int:
        """Take the stock and write the order; its number."""
        self.reserve(lines)
        try:
            return self._write(customer, lines)
        except BaseException:
            self.release(lines)
            raise

    def cancel(self, order: int) -> None:
        """Give back what was ordered. Cancelling twice does nothing."""
        with self.database.transaction():
            found = self.database.execute(
                "UPDATE customer_order SET cancelled = true WHERE id = %s AND NOT cancelled",
                (order,),
            )
            lines = dict(
                self.database.execute(
                    "SELECT sku, quantity FROM order_line WHERE order_id = %s", (order,)
                ).fetchall()
            )
        if found.rowcount:
            self.release(lines)

    def total_cents(self, order: int) -> int | None:
        """What the order costs; None where there is none, or it was cancelled."""
        row = self.database.execute(
            "SELECT total_cents FROM order_total WHERE id = %s", (order,)
        ).fetchone()
        return row[0] if row else None

    def reserve(self, lines: Mapping[str, int]) -> None:
        """Take all of it from the stock, or nothing."""
        lacking = self.cache.eval(TAKE, len(lines), *map(self._key, lines), *lines.values())
        if lacking:
            raise OutOfStock(lacking.removeprefix(self._key("")))

    def release(self, lines: Mapping[str, int]) -> None:
        """Put it back."""
        with self.cache.pipeline() as pipeline:
            for sku, quantity in lines.items():
                pipeline.incrby(self._key(sku), quantity)
            pipeline.execute()

    def _write(self, customer: str, lines: Mapping[str, int]) -> int:
        with self.database.transaction():
            (order,) = self.database.execute(
                "INSERT INTO customer_order (customer) VALUES (%s) RETURNING id", (customer,)
            ).fetchone()
            for sku, quantity in lines.items():
                written = self.database.execute(
                    (
                        "INSERT INTO order_line SELECT %s, sku, %s, price_cents FROM product "
                        "WHERE sku = %s"
                    ),
                    (order, quantity, sku),
                )
                if not written.rowcount:
                    raise UnknownProduct(sku)
        return order

    def _key(self, sku: str) -> str:
        return f"{self.prefix}:stock:{sku}"
