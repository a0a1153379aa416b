MODEL (
  name serving.carrier_punctuality,
  description 'How punctual each carrier was in each month.',
  owner 'flight-ops',
  kind EMBEDDED,
  grain (month, carrier),
  tags (serving)
);

/* A mean of a month is that of its days, each weighted by its flights that left. */
SELECT
  DATE_TRUNC('MONTH', d.flight_date)::DATE AS month, -- First day of the month of the scheduled departures.
  d.tenant_id AS carrier, -- Carrier (two-character code).
  c.name AS carrier_name, -- Its full name; null when the lookup does not know it.
  SUM(d.flights)::BIGINT AS flights, -- Scheduled flights.
  SUM(d.cancelled)::DOUBLE / SUM(d.flights) AS cancelled_share, -- Share of them that never departed.
  SUM(d.mean_dep_delay_min * (d.flights - d.cancelled)) / NULLIF(SUM(CASE WHEN NOT d.mean_dep_delay_min IS NULL THEN d.flights - d.cancelled END), 0) AS mean_dep_delay_min, -- Mean departure delay in minutes; early departures count as negative.
  SUM(d.on_time_share * (d.flights - d.cancelled)) / NULLIF(SUM(CASE WHEN NOT d.on_time_share IS NULL THEN d.flights - d.cancelled END), 0) AS on_time_share -- Share of arrivals less than 15 minutes late, of those with a known delay.
FROM gold.carrier_day AS d
LEFT JOIN gold.dim_carrier AS c
  ON d.tenant_id = c.carrier
GROUP BY
  DATE_TRUNC('MONTH', d.flight_date)::DATE,
  d.tenant_id,
  c.name
