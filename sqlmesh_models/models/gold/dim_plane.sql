MODEL (
  name gold.dim_plane,
  description 'Planes.',
  owner 'flight-ops',
  kind FULL,
  grain tailnum,
  tags (gold),
  audits (
    not_null(columns := (tailnum, manufacturer, model)),
    unique_values(columns := (tailnum)),
    in_range(column := seats, low := 1, high := 900, blocking := false)
  )
);

SELECT
  tailnum, -- Tail number.
  year, -- Year made; null when unknown.
  type, -- Type of plane.
  manufacturer, -- Manufacturer.
  model, -- Model.
  engines, -- Number of engines.
  seats, -- Number of seats.
  speed, -- Average cruising speed in miles per hour; mostly unknown.
  engine -- Type of engine.
FROM lookup.planes
