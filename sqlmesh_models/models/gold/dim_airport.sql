MODEL (
  name gold.dim_airport,
  description 'Airports.',
  owner 'flight-ops',
  kind FULL,
  grain faa,
  tags (gold),
  audits (
    not_null(columns := (faa, name)),
    unique_values(columns := (faa)),
    in_range(column := lat, low := -90, high := 90),
    in_range(column := lon, low := -180, high := 180)
  )
);

SELECT
  faa, -- FAA code.
  name, -- Name.
  lat, -- Latitude in degrees.
  lon, -- Longitude in degrees.
  alt, -- Altitude in feet.
  tz, -- Hours from UTC.
  dst, -- Daylight saving zone.
  tzone -- IANA time zone.
FROM lookup.airports
