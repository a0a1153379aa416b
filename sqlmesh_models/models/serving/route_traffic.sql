MODEL (
  name serving.route_traffic,
  description 'Traffic and punctuality of each route in each month, all carriers together.',
  owner 'flight-ops',
  kind EMBEDDED,
  grain (month, origin, dest),
  tags (serving)
);

SELECT
  DATE_TRUNC('MONTH', r.flight_date)::DATE AS month, -- First day of the month of the scheduled departures.
  r.origin, -- Origin airport (FAA code).
  o.name AS origin_name, -- Its name; null when the lookup does not know it.
  r.dest, -- Destination airport (FAA code).
  d.name AS dest_name, -- Its name; null when the lookup does not know it.
  MAX(r.distance)::INT AS distance, -- Distance in miles.
  SUM(r.flights)::BIGINT AS flights, -- Scheduled flights.
  SUM(r.cancelled)::BIGINT AS cancelled, -- Flights that never departed.
  SUM(r.mean_arr_delay_min * r.arrivals) / NULLIF(SUM(r.arrivals), 0) AS mean_arr_delay_min, -- Mean arrival delay in minutes, of the flights whose delay is known.
  SUM(r.on_time_share * r.arrivals) / NULLIF(SUM(r.arrivals), 0) AS on_time_share -- Share of arrivals less than 15 minutes late, of those with a known delay.
FROM gold.route_day AS r
LEFT JOIN gold.dim_airport AS o
  ON r.origin = o.faa
LEFT JOIN gold.dim_airport AS d
  ON r.dest = d.faa
GROUP BY
  DATE_TRUNC('MONTH', r.flight_date)::DATE,
  r.origin,
  o.name,
  r.dest,
  d.name
