MODEL (
  name silver.flight_events,
  description 'Flight events, one row for each event: the version ingested last.',
  owner 'flight-ops',
  kind CUSTOM (
    materialization 'merge_by_key',
    materialization_properties (
      date_column = flight_date,
      unique_key = (flight_date, tenant_id, event_id),
      version = (_ingested_at, _offset)
    )
  ),
  partitioned_by (flight_date),
  grain (flight_date, tenant_id, event_id),
  tags (silver),
  audits (
    not_null(columns := (event_id, event_type, tenant_id, event_time, flight_date, flight, sched_dep_time)),
    unique_combination_of_columns(columns := (flight_date, tenant_id, event_id)),
    accepted_values(column := event_type, is_in := ('departed', 'arrived', 'cancelled')),
    flight_leads_elsewhere(blocking := false)
  )
);

SELECT
  event_id, -- Flight and change of state.
  event_type, -- What happened: departed, arrived or cancelled.
  tenant_id, -- Carrier that operates the flight (two-character code).
  carrier_name, -- Carrier's name, from the airlines lookup.
  event_time, -- When it happened.
  flight_date, -- Date of the scheduled departure, in the origin's local time.
  flight, -- Flight number.
  sched_dep_time, -- Scheduled departure as hhmm, local time.
  scheduled_departure, -- Scheduled departure.
  tailnum, -- Tail number of the plane; null when the source lacks it.
  origin, -- Origin airport (FAA code).
  dest, -- Destination airport (FAA code).
  dep_delay, -- Departure delay in minutes; negative is early.
  arr_delay, -- Arrival delay in minutes; negative is early; null when the source does not know it.
  air_time, -- Minutes in the air.
  distance, -- Distance in miles.
  _late, -- Whether the event came behind the stream's watermark.
  _ingested_at, -- Timestamp of the Kafka record.
  _kafka_partition, -- Kafka partition of the record.
  _offset -- Kafka offset of the record.
FROM bronze.flight_events
WHERE
  flight_date BETWEEN @start_date AND @end_date
QUALIFY
  ROW_NUMBER() OVER (PARTITION BY flight_date, tenant_id, event_id ORDER BY _ingested_at DESC, _offset DESC) = 1
