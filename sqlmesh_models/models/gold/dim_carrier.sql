MODEL (
  name gold.dim_carrier,
  description 'Carriers.',
  owner 'flight-ops',
  kind FULL,
  grain carrier,
  tags (gold),
  audits (
    not_null(columns := (carrier, name)),
    unique_values(columns := (carrier))
  )
);

SELECT
  carrier, -- Two-character code.
  name -- Full name.
FROM lookup.airlines
