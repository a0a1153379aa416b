AUDIT (
  name in_range,
  defaults (
    low = 0,
    high = 1
  )
);

/* Rows whose column lies outside the closed range; nulls pass. */
SELECT
  *
FROM @this_model
WHERE
  NOT @column BETWEEN @low AND @high
