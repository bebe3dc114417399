"""The service's command: version, migrate, stock FILE, validate."""

from __future__ import annotations

import csv
import sys

from shop import __version__


def main(arguments: list[str]) -> int:
    match arguments:
        case ["version"]:
            print(f"shop {__version__}")
            return 0
        case ["migrate"]:
            return migrate_database()
        case ["stock", path]:
            return stock(path)
        case ["validate"]:
            return validate()
    print(__doc__, file=sys.stderr)
    return 2


def migrate_database() -> int:
    from shop import migrate, stores

    with stores.database() as database:
        for migration in migrate.migrate(database):
            print(f"applied {migration.number:03} {migration.name}")
        print(f"database at version {max(migrate.applied(database), default=0):03}")
    return 0


def stock(path: str) -> int:
    from shop import stores
    from shop.orders import Shop

    with (
        open(path, encoding="utf-8") as file,
        stores.database() as database,
        stores.cache() as cache,
    ):
        rows = list(csv.DictReader(file))
        for row in rows:
            Shop(database, cache).offer(
                row["sku"], row["name"], int(row["price_cents"]), int(row["stock"])
            )
    print(f"{len(rows)} products in stock")
    return 0


def validate() -> int:
    from shop import stores
    from shop.validate import validate as all_hold

    with stores.database() as database, stores.cache() as cache:
        return 0 if all_hold(database, cache) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
