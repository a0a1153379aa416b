AUDIT (
  name cancelled_within_flights
);

/* Counts contradict one another: a cancelled flight is a scheduled one. */
SELECT
  *
FROM @this_model
WHERE
  cancelled < 0 OR cancelled > flights OR flights < 1
