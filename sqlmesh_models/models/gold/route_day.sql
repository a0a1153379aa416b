MODEL (
  name gold.route_day,
  description 'Performance of each route on each day, all carriers together.',
  owner 'flight-ops',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions',
    materialization_properties (date_column = flight_date)
  ),
  partitioned_by (flight_date),
  grain (flight_date, origin, dest),
  tags (gold),
  audits (
    not_null(columns := (flight_date, origin, dest, flights, cancelled, arrivals, distance)),
    unique_combination_of_columns(columns := (flight_date, origin, dest)),
    cancelled_within_flights,
    in_range(column := on_time_share)
  )
);

/* A flight is one row, whichever of its events have come in. */
WITH flight AS (
  SELECT
    flight_date,
    tenant_id,
    flight,
    sched_dep_time,
    MAX(origin) AS origin,
    MAX(dest) AS dest,
    MAX(distance) AS distance,
    MAX(CASE WHEN event_type = 'departed' THEN dep_delay END) AS dep_delay,
    MAX(CASE WHEN event_type = 'arrived' THEN arr_delay END) AS arr_delay,
    MAX(CASE WHEN event_type = 'cancelled' THEN 1 ELSE 0 END) AS cancelled
  FROM silver.flight_events
  WHERE
    flight_date BETWEEN @start_date AND @end_date
  GROUP BY
    flight_date,
    tenant_id,
    flight,
    sched_dep_time
)
SELECT
  flight_date, -- Date of the scheduled departure, in the origin's local time.
  origin, -- Origin airport (FAA code).
  dest, -- Destination airport (FAA code).
  COUNT(*)::BIGINT AS flights, -- Scheduled flights.
  SUM(cancelled)::BIGINT AS cancelled, -- Flights that never departed.
  COUNT(arr_delay)::BIGINT AS arrivals, -- Flights whose arrival delay is known.
  AVG(dep_delay)::DOUBLE AS mean_dep_delay_min, -- Mean departure delay in minutes; early departures count as negative.
  AVG(arr_delay)::DOUBLE AS mean_arr_delay_min, -- Mean arrival delay in minutes, of the flights whose delay is known.
  AVG(CASE WHEN arr_delay < 15 THEN 1 WHEN arr_delay >= 15 THEN 0 END)::DOUBLE AS on_time_share, -- Share of arrivals less than 15 minutes late, of those with a known delay.
  MAX(distance)::INT AS distance -- Distance in miles.
FROM flight
GROUP BY
  flight_date,
  origin,
  dest
