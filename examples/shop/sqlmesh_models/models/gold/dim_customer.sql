MODEL (
  name gold.dim_customer,
  description 'Customers of the shop, one row for each time that a customer was one way.',
  owner 'shop',
  kind CUSTOM (
    materialization 'scd2',
    materialization_properties (
      unique_key = id,
      valid_from = valid_from,
      version = _offset,
      deleted = (
        _op IN ('d', 't')
      ),
      compared = (email, name, tier, country, credit_limit),
      changes = TRUE
    )
  ),
  grain (id, valid_from),
  tags (gold),
  audits (
    not_null(columns := (id, email, tier, valid_from)),
    unique_combination_of_columns(columns := (id, valid_from)),
    unique_values(columns := (id), condition := is_current)
  )
);

SELECT
  id, -- Number of the customer.
  email, -- Address.
  name, -- Name.
  tier, -- Tier: basic, silver or gold.
  country, -- Country (two-letter code).
  credit_limit, -- Credit limit in dollars; null without one.
  _op, -- The change that made it so.
  _lsn, -- Its place in the database's log.
  _offset, -- Its offset in Kafka.
  _changed_at AS valid_from -- From when on, inclusive: when the change was committed, or a snapshot read the row.
FROM bronze.shop_customers
