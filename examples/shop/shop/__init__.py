"""A small order service: orders in PostgreSQL, stock in Redis."""

__version__ = "1.0.0"
