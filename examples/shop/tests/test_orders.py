"""Orders change both stores, or neither."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from shop.orders import OutOfStock, Shop, UnknownProduct


def orders(shop: Shop) -> int:
    return shop.database.execute("SELECT count(*) FROM customer_order").fetchone()[0]


def test_an_order_takes_stock_and_has_a_total(shop: Shop):
    order = shop.order("Ada", {"tea": 3, "cup": 1})
    assert shop.total_cents(order) == 3 * 500 + 850
    assert (shop.stock("tea"), shop.stock("cup")) == (7, 1)


def test_more_than_there_is_takes_nothing_at_all(shop: Shop):
    with pytest.raises(OutOfStock, match="cup"):
        shop.order("Ada", {"tea": 1, "cup": 3})
    assert (shop.stock("tea"), shop.stock("cup"), orders(shop)) == (10, 2, 0)


def test_an_order_that_cannot_be_written_gives_its_stock_back(shop: Shop):
    shop.cache.set(f"{shop.prefix}:stock:ghost", 5)
    with pytest.raises(UnknownProduct):
        shop.order("Ada", {"tea": 2, "ghost": 1})
    with pytest.raises(psycopg.errors.CheckViolation):
        shop.order("", {"tea": 2})
    assert (shop.stock("tea"), shop.stock("ghost"), orders(shop)) == (10, 5, 0)


def test_cancelling_gives_back_once(shop: Shop):
    order = shop.order("Ada", {"tea": 4})
    shop.cancel(order)
    shop.cancel(order)
    assert (shop.stock("tea"), shop.total_cents(order)) == (10, None)


def test_a_later_price_does_not_change_an_order(shop: Shop):
    order = shop.order("Ada", {"tea": 1})
    shop.offer("tea", "Tea", 9900, stock=9)
    assert shop.total_cents(order) == 500


def test_two_tills_cannot_sell_the_same_cup(shop: Shop):
    def take(_: int) -> bool:
        try:
            shop.reserve({"cup": 1})
        except OutOfStock:
            return False
        return True

    with ThreadPoolExecutor(4) as tills:
        assert sum(tills.map(take, range(20))) == 2
    assert shop.stock("cup") == 0
