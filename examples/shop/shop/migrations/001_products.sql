CREATE TABLE product (
    sku         text PRIMARY KEY CHECK (sku ~ '^[a-z0-9-]+$'),
    name        text NOT NULL,
    price_cents integer NOT NULL CHECK (price_cents > 0)
);
