MODEL (
  name gold.carrier_day,
  description 'On-time performance of each carrier on each day.',
  owner 'flight-ops',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions',
    materialization_properties (date_column = flight_date)
  ),
  partitioned_by (flight_date),
  grain (flight_date, tenant_id),
  tags (gold),
  audits (
    not_null(columns := (flight_date, tenant_id, flights, cancelled)),
    unique_combination_of_columns(columns := (flight_date, tenant_id)),
    cancelled_within_flights,
    in_range(column := on_time_share)
  )
);

/* A flight is one row, whichever of its events have come in: the departure may be still ahead, or its event rejected. */
WITH flight AS (
  SELECT
    flight_date,
    tenant_id,
    flight,
    sched_dep_time,
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
  tenant_id, -- Carrier (two-character code).
  COUNT(*)::BIGINT AS flights, -- Scheduled flights.
  SUM(cancelled)::BIGINT AS cancelled, -- Flights that never departed.
  AVG(dep_delay)::DOUBLE AS mean_dep_delay_min, -- Mean departure delay in minutes; early departures count as negative.
  AVG(arr_delay)::DOUBLE AS mean_arr_delay_min, -- Mean arrival delay in minutes, of the flights whose delay is known.
  QUANTILE_CONT(arr_delay, 0.9)::DOUBLE AS p90_arr_delay_min, -- Ninetieth percentile of the arrival delay in minutes, interpolated.
  AVG(CASE WHEN arr_delay < 15 THEN 1 WHEN arr_delay >= 15 THEN 0 END)::DOUBLE AS on_time_share -- Share of arrivals less than 15 minutes late, of those with a known delay.
FROM flight
GROUP BY
  flight_date,
  tenant_id
