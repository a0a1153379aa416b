"""The right answers: Gold figures computed from the source's flights, by another way than the platform's."""

import pyarrow as pa

from freshdata.sample.source import YEAR, month_days, read_source


def expected_carrier_day(months: int) -> pa.Table:
    """``gold.carrier_day`` as it must be after the first months of 2013, whatever the disorder.

    Args:
        months: 1 to 12.

    Returns:
        ``flight_date``, ``tenant_id``, ``flights``, ``cancelled``, ``mean_dep_delay_min``,
        ``mean_arr_delay_min``, ``p90_arr_delay_min`` (linearly interpolated) and ``on_time_share`` (arrivals less than
        15 minutes late, of those with an arrival delay), ordered by date and carrier. A figure without any flight
        behind it is null.
    """
    import pandas as pd  # type: ignore[import-untyped]

    columns = ["year", "month", "day", "carrier", "dep_delay", "arr_delay"]
    flights = read_source("flights").select(columns).to_pandas()
    last = month_days(months)[1].month - 1 or 12
    flights = flights[(flights["year"] == YEAR) & (flights["month"] <= last)]
    flights["flight_date"] = pd.to_datetime(flights[["year", "month", "day"]]).dt.date
    # Nulls must stay nulls: a comparison would count them as late.
    flights["on_time"] = (flights["arr_delay"] < 15).where(flights["arr_delay"].notna()).astype("Float64")
    groups = flights.groupby(["flight_date", "carrier"], sort=True)
    answer = pd.DataFrame(
        {
            "flights": groups.size(),
            "cancelled": groups["dep_delay"].apply(lambda delays: delays.isna().sum()),
            "mean_dep_delay_min": groups["dep_delay"].mean(),
            "mean_arr_delay_min": groups["arr_delay"].mean(),
            "p90_arr_delay_min": groups["arr_delay"].quantile(0.9),
            "on_time_share": groups["on_time"].mean().astype("Float64"),
        }
    ).reset_index()
    schema = pa.schema(
        [
            ("flight_date", pa.date32()),
            ("tenant_id", pa.string()),
            ("flights", pa.int64()),
            ("cancelled", pa.int64()),
            ("mean_dep_delay_min", pa.float64()),
            ("mean_arr_delay_min", pa.float64()),
            ("p90_arr_delay_min", pa.float64()),
            ("on_time_share", pa.float64()),
        ]
    )
    return pa.Table.from_pandas(answer.rename(columns={"carrier": "tenant_id"}), schema=schema, preserve_index=False)
