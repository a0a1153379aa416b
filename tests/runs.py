"""Run the models of an instance, and look at what they made of a day."""

from datetime import date
from typing import Any

from pyiceberg.catalog import Catalog

from freshdata.transform.runner import ModelRun, Runner
from tests.bronze import rows

FLIGHTS, CARRIERS, WEATHER = "silver.flight_events", "gold.carrier_day", "gold.delay_by_weather"


def follow(runner: Runner) -> dict[str, ModelRun]:
    """Run every model live, upstream first."""
    return {model: runner.run_live(model) for model in runner.manifest}


def of_day(catalog: Catalog, model: str, day: date) -> list[dict[str, Any]]:
    """The rows of a day that a model made."""
    return [row for row in rows(catalog, model) if row.get("flight_date", row.get("weather_date")) == day]
