CREATE TABLE customer_order (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer  text NOT NULL CHECK (customer <> ''),
    placed_at timestamptz NOT NULL DEFAULT now(),
    cancelled boolean NOT NULL DEFAULT false
);

CREATE TABLE order_line (
    order_id    bigint NOT NULL REFERENCES customer_order ON DELETE CASCADE,
    sku         text NOT NULL REFERENCES product,
    quantity    integer NOT NULL CHECK (quantity > 0),
    price_cents integer NOT NULL,
    PRIMARY KEY (order_id, sku)
);
