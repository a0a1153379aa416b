"""Hourly weather observations as events, known at the hour observed."""

import pyarrow as pa
import pyarrow.compute as pc

from freshdata.sample.source import read_source

STREAM = "weather"


def weather_events() -> pa.Table:
    """All observations of the source year: the contract's columns without ``observation_id``."""
    weather = read_source("weather")
    local = pc.local_timestamp(weather["time_hour"].cast(pa.timestamp("s", "America/New_York")))
    columns = {
        "tenant_id": weather["origin"],
        "event_time": weather["time_hour"],
        "weather_date": local.cast(pa.date32()),
    }
    measured = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    return pa.table(columns | {name: weather[name] for name in measured})
