MODEL (
  name gold.carrier_month,
  description 'Flights of each carrier in each month.',
  owner 'flight-ops',
  cron '@monthly',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions',
    materialization_properties (date_column = flight_month)
  ),
  partitioned_by (flight_month),
  grain (flight_month, tenant_id),
  tags (gold),
  audits (
    not_null(columns := (flight_month, tenant_id, flights, cancelled)),
    unique_combination_of_columns(columns := (flight_month, tenant_id)),
    cancelled_within_flights
  )
);

SELECT
  DATE_TRUNC('MONTH', flight_date)::DATE AS flight_month, -- First day of the month of the scheduled departures.
  tenant_id, -- Carrier (two-character code).
  SUM(flights)::BIGINT AS flights, -- Scheduled flights.
  SUM(cancelled)::BIGINT AS cancelled, -- Flights that never departed.
  COUNT(*)::BIGINT AS days, -- Days with a scheduled flight.
  MAX(flights)::BIGINT AS busiest_day_flights -- Scheduled flights on the busiest day.
FROM gold.carrier_day
WHERE
  flight_date BETWEEN @start_date AND @end_date
GROUP BY
  DATE_TRUNC('MONTH', flight_date)::DATE,
  tenant_id
