MODEL (
  name silver.weather,
  description 'Hourly weather observations, one row for each: the version ingested last.',
  owner 'weather-desk',
  kind CUSTOM (
    materialization 'merge_by_key',
    materialization_properties (
      date_column = weather_date,
      unique_key = (weather_date, tenant_id, observation_id),
      version = (_ingested_at, _offset)
    )
  ),
  partitioned_by (weather_date),
  grain (weather_date, tenant_id, observation_id),
  tags (silver),
  audits (
    not_null(columns := (observation_id, tenant_id, event_time, weather_date)),
    unique_combination_of_columns(columns := (weather_date, tenant_id, observation_id)),
    in_range(column := wind_speed, low := 0, high := 200, blocking := false)
  )
);

SELECT
  observation_id, -- Airport and hour.
  tenant_id, -- Airport of the station (FAA code).
  event_time, -- The hour observed.
  weather_date, -- Date of the hour, in the airport's local time.
  temp, -- Temperature in degrees Fahrenheit.
  dewp, -- Dew point in degrees Fahrenheit.
  humid, -- Relative humidity in percent.
  wind_dir, -- Wind direction in degrees.
  wind_speed, -- Wind speed in miles per hour.
  wind_gust, -- Wind gust in miles per hour.
  precip, -- Precipitation in inches.
  pressure, -- Sea level pressure in millibars.
  visib, -- Visibility in miles.
  _late, -- Whether the observation came behind the stream's watermark.
  _ingested_at, -- Timestamp of the Kafka record.
  _kafka_partition, -- Kafka partition of the record.
  _offset -- Kafka offset of the record.
FROM bronze.weather
WHERE
  weather_date BETWEEN @start_date AND @end_date
QUALIFY
  ROW_NUMBER() OVER (
    PARTITION BY weather_date, tenant_id, observation_id
    ORDER BY _ingested_at DESC, _offset DESC
  ) = 1
