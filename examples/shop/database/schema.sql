-- What every database of the shop starts with: the place where migrations are written down.
CREATE TABLE migration (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
