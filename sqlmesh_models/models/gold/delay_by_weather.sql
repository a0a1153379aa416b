MODEL (
  name gold.delay_by_weather,
  description 'Departure delays on each day at each origin by the weather at the hour of the scheduled departure.',
  owner 'weather-desk',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions',
    materialization_properties (date_column = flight_date)
  ),
  partitioned_by (flight_date),
  grain (flight_date, origin, condition),
  tags (gold),
  audits (
    not_null(columns := (flight_date, origin, condition, flights, cancelled)),
    unique_combination_of_columns(columns := (flight_date, origin, condition)),
    accepted_values(
      column := condition,
      is_in := ('precipitation', 'low visibility', 'strong wind', 'clear', 'unknown')
    ),
    cancelled_within_flights
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
    DATE_TRUNC('HOUR', MAX(scheduled_departure)) AS departure_hour,
    MAX(CASE WHEN event_type = 'departed' THEN dep_delay END) AS dep_delay,
    MAX(CASE WHEN event_type = 'cancelled' THEN 1 ELSE 0 END) AS cancelled
  FROM silver.flight_events
  WHERE
    flight_date BETWEEN @start_date AND @end_date
  GROUP BY
    flight_date,
    tenant_id,
    flight,
    sched_dep_time
), observed AS (
  SELECT
    weather_date,
    tenant_id AS origin,
    DATE_TRUNC('HOUR', event_time) AS observed_hour,
    /* Several observations in one hour count as the worst of them. */
    MAX(precip) AS precip,
    MIN(visib) AS visib,
    MAX(wind_speed) AS wind_speed
  FROM silver.weather
  WHERE
    weather_date BETWEEN @start_date AND @end_date
  GROUP BY
    weather_date,
    tenant_id,
    DATE_TRUNC('HOUR', event_time)
), condition AS (
  SELECT
    weather_date,
    origin,
    observed_hour,
    CASE
      WHEN precip > 0
      THEN 'precipitation'
      WHEN visib < 3
      THEN 'low visibility'
      WHEN wind_speed >= 20
      THEN 'strong wind'
      WHEN NOT COALESCE(precip, visib, wind_speed) IS NULL
      THEN 'clear'
      ELSE 'unknown'
    END AS condition
  FROM observed
)
SELECT
  flight.flight_date, -- Date of the scheduled departure, in the origin's local time.
  flight.origin, -- Origin airport (FAA code).
  COALESCE(condition.condition, 'unknown')::TEXT AS condition, -- Weather at that hour: precipitation, else low visibility (under 3 miles), else strong wind (20 mph or more), else clear; unknown without an observation.
  COUNT(*)::BIGINT AS flights, -- Scheduled flights.
  SUM(flight.cancelled)::BIGINT AS cancelled, -- Flights that never departed.
  AVG(flight.dep_delay)::DOUBLE AS mean_dep_delay_min -- Mean departure delay in minutes; early departures count as negative.
FROM flight
LEFT JOIN condition
  ON condition.origin = flight.origin
  AND condition.weather_date = flight.flight_date
  AND condition.observed_hour = flight.departure_hour
GROUP BY
  flight.flight_date,
  flight.origin,
  COALESCE(condition.condition, 'unknown')
