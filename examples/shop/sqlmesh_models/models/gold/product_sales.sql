MODEL (
  name gold.product_sales,
  description 'What each product of the shop has sold in the orders that stand.',
  owner 'shop',
  kind FULL,
  grain sku,
  tags (gold),
  audits (
    not_null(columns := (sku, orders, quantity, revenue)),
    unique_values(columns := (sku))
  )
);

SELECT
  order_lines.sku, -- Product.
  COUNT(DISTINCT order_lines.order_id)::BIGINT AS orders, -- Orders with it that were not cancelled.
  SUM(order_lines.quantity)::BIGINT AS quantity, -- Pieces in these.
  SUM(order_lines.quantity * order_lines.unit_price)::DECIMAL(18, 2) AS revenue -- Dollars, before discounts.
FROM silver.shop_order_lines AS order_lines
JOIN silver.shop_orders AS orders
  ON orders.id = order_lines.order_id
WHERE
  orders.state <> 'cancelled'
GROUP BY
  order_lines.sku
