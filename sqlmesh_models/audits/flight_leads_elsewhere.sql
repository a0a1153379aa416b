AUDIT (
  name flight_leads_elsewhere
);

SELECT
  *
FROM @this_model
WHERE
  origin = dest
