"""Working copies of the project's models, changed as developers change them, beside production on a small lake."""

import shutil
from datetime import date, timedelta
from pathlib import Path

from pyiceberg.catalog import Catalog

from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.maintenance import tables
from freshdata.settings import PROJECT, Settings
from freshdata.transform.runner import open_runner
from tests.bronze import append, flight_event

DAY = date(2013, 1, 1)
FLIGHTS, CARRIERS, MONTHS, ROUTES, WEATHER = (
    "silver.flight_events", "gold.carrier_day", "gold.carrier_month", "gold.route_day", "gold.delay_by_weather"
)  # fmt: skip
PUNCTUALITY, TRAFFIC = "serving.carrier_punctuality", "serving.route_traffic"
SHARE = "  AVG(CASE WHEN arr_delay < 15 THEN 1 WHEN arr_delay >= 15 THEN 0 END)::DOUBLE AS on_time_share -- Share"
WORST = "  MAX(dep_delay)::INT AS worst, -- Worst departure delay.\n"


def checkout(folder: Path, home: Path) -> Settings:
    """A working copy of the project on an instance."""
    for name in ("contracts", "sqlmesh_models"):
        shutil.copytree(PROJECT / name, folder / name)
    return Settings().model_copy(update={"project": folder, "home_override": home})


def edit(settings: Settings, file: str, *pairs: tuple[str, str]) -> None:
    path = settings.working_models_dir / file
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, (file, old)
        text = text.replace(old, new)
    path.write_text(text)


def add_worst(settings: Settings) -> None:
    """Add a column in the middle of a Gold model, and to its unit test."""
    edit(settings, "models/gold/carrier_day.sql", (SHARE, WORST + SHARE))
    edit(
        settings,
        "tests/test_carrier_day.yaml",
        ("p90_arr_delay_min: 14.8,", "p90_arr_delay_min: 14.8, worst: 10,"),
        ("p90_arr_delay_min: null,", "p90_arr_delay_min: null, worst: null,"),
    )


def run_all(settings: Settings) -> None:
    with open_runner(settings) as runner:
        for model in runner.manifest:
            runner.run_live(model)


def heads(catalog: Catalog) -> dict[str, int | None]:
    """Each of production's tables to its current snapshot."""
    found = {name: load_table(catalog, name).current_snapshot() for name in tables(catalog) if "__" not in name}
    return {name: snapshot.snapshot_id if snapshot else None for name, snapshot in found.items()}


def own_tables(catalog: Catalog, environment: str) -> set[str]:
    return {name for name in tables(catalog) if name.startswith(f"{environment}__")}


def filled(settings: Settings) -> Settings:
    """Production with three days of flights, and an event that its Silver has not taken in yet."""
    catalog = open_catalog(settings)
    days = [DAY + timedelta(days=number) for number in range(3)]
    events = [flight_event(day, number) for day in days for number in (1, 2, 3)]
    append(catalog, "flight_events", [*events, flight_event(DAY, 4, "cancelled")])
    run_all(settings)
    append(catalog, "flight_events", [flight_event(DAY, 9)])
    return settings
