"""A changed project is deployed onto the tables of the old one."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import CommitTableResponse, Table

from freshdata.errors import TransformError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.settings import PROJECT, Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.runner import open_runner
from tests.bronze import append, flight_event, rows

pytestmark = pytest.mark.integration

DAY = date(2013, 1, 1)
MODEL = "gold.carrier_day"


@pytest.fixture
def copy(tmp_path: Path) -> Settings:
    """An instance of a copy of the project, whose files may be changed."""
    for folder in ("contracts", "sqlmesh_models"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
    return Settings().model_copy(update={"project": tmp_path, "home_override": tmp_path / "home"})


def test_a_column_that_a_model_gains_is_added_and_filled(copy: Settings) -> None:
    catalog = open_catalog(copy)
    append(catalog, "flight_events", [flight_event(DAY, 1), flight_event(DAY, 2, "cancelled")])
    with open_runner(copy) as runner:
        for model in runner.manifest:
            runner.run_live(model)
    file = copy.models_dir / "models" / "gold" / "carrier_day.sql"
    worst = "\n  MAX(dep_delay)::INT AS worst -- Worst departure delay.\nFROM flight\n"
    file.write_text(file.read_text().replace(" -- Share of", ", -- Share of").replace("\nFROM flight\n", worst))
    assert "worst" in load_manifest(copy)[MODEL].columns
    with open_runner(copy) as runner:
        assert load_table(catalog, MODEL).schema().column_names[-1] == "worst"
        assert "code has changed" in runner.run_live(MODEL).note
    assert [(row["flights"], row["worst"]) for row in rows(catalog, MODEL)] == [(2, 1)]


def test_a_deployment_waits_until_no_other_commit_comes_between(
    copy: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_runner(copy):  # Makes the tables.
        pass
    file = copy.models_dir / "models" / "gold" / "carrier_day.sql"
    worst = "\n  MAX(dep_delay)::INT AS worst -- Worst departure delay.\nFROM flight\n"
    file.write_text(file.read_text().replace(" -- Share of", ", -- Share of").replace("\nFROM flight\n", worst))
    real, refused = SqlCatalog.commit_table, list[str]()

    def late(catalog: SqlCatalog, table: Table, *arguments: Any) -> CommitTableResponse:
        # What a compaction that commits in the same moment does to it.
        if ".".join(table.name()) == MODEL and len(refused) < 2:
            refused.append(MODEL)
            raise CommitFailedException("Table has been updated by another process")
        return real(catalog, table, *arguments)

    monkeypatch.setattr(SqlCatalog, "commit_table", late)
    with open_runner(copy):
        pass
    assert load_table(open_catalog(copy), MODEL).schema().column_names[-1] == "worst"
    assert refused == [MODEL, MODEL]


@pytest.mark.parametrize(("right", "wrong"), [("FROM lookup", "FROMM lookup"), ("lookup.airlines", "lookup.nothing")])
def test_a_broken_model_is_refused_with_a_remedy(copy: Settings, right: str, wrong: str) -> None:
    file = copy.models_dir / "models" / "gold" / "dim_carrier.sql"
    file.write_text(file.read_text().replace(right, wrong))
    with pytest.raises(TransformError) as caught, open_runner(copy):
        pass
    assert caught.value.remedy


def test_what_a_full_disk_left_of_the_state_is_no_hindrance(copy: Settings) -> None:
    folder = copy.home / "sqlmesh"
    folder.mkdir(parents=True)
    for name in ("state.duckdb", "dev.duckdb"):
        (folder / name).touch()
    append(open_catalog(copy), "flight_events", [flight_event(DAY, 1)])
    with open_runner(copy) as runner:
        assert runner.run_live("silver.flight_events").rows == 1
