MODEL (
  name serving.carrier_punctuality,
  description 'How punctual each carrier was on each day.',
  owner 'flight-ops',
  kind EMBEDDED,
  grain (flight_date, carrier),
  tags (serving)
);

SELECT
  d.flight_date, -- Date of the scheduled departure, in the origin's local time.
  d.tenant_id AS carrier, -- Carrier (two-character code).
  c.name AS carrier_name, -- Its full name; null when the lookup does not know it.
  d.flights, -- Scheduled flights.
  d.cancelled::DOUBLE / d.flights AS cancelled_share, -- Share of them that never departed.
  d.mean_dep_delay_min, -- Mean departure delay in minutes; early departures count as negative.
  d.on_time_share -- Share of arrivals less than 15 minutes late, of those with a known delay.
FROM gold.carrier_day AS d
LEFT JOIN gold.dim_carrier AS c
  ON d.tenant_id = c.carrier
