CREATE VIEW order_total AS
SELECT id, customer, coalesce(sum(quantity * price_cents), 0)::bigint AS total_cents
FROM customer_order LEFT JOIN order_line ON order_id = id
WHERE NOT cancelled
GROUP BY id, customer;
