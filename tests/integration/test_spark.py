"""Spark over a lake that DuckDB built: it reads the same rows, and continues it with the same models."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from freshdata.errors import PrerequisiteError, TransformError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.cursors import CURSOR_PROPERTY, MODEL_PROPERTY
from freshdata.lake.progress import ancestors, summary_property
from freshdata.lake.scratch import NAMESPACE
from freshdata.services.prerequisites import SPARK, find_java, resolve_jars
from freshdata.settings import Settings
from freshdata.transform.runner import open_runner
from tests.bronze import append, flight_event, rows
from tests.engines import DAY, assert_equal, assert_trades_alike, build, proceed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

# A few rows: what Spark does for millions only costs time here.
OPTIONS = {
    "spark.master": "local[2]",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[None]:
    """One Spark for all tests of this module."""
    try:
        find_java()
        OPTIONS["spark.jars"] = ",".join(str(jar) for jar in resolve_jars(Settings(), SPARK).glob("*.jar"))
    except PrerequisiteError as error:
        pytest.skip(str(error))
    yield
    from pyspark.sql import SparkSession

    if session := SparkSession.getActiveSession():
        session.stop()


def on_spark(settings: Settings) -> Settings:
    return settings.model_copy(update={"engine": "spark", "spark_config": OPTIONS})


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings().for_home(tmp_path_factory.mktemp("built"))
    build(settings)
    return settings


def read(settings: Settings, model: str) -> list[dict[str, Any]]:
    """A table's rows as Spark reads them."""
    from freshdata.transform.engines.spark import open_session

    found = open_session(on_spark(settings)).table(f"lake.{model}").toArrow().to_pylist()
    return sorted(found, key=repr)


def test_it_reads_what_duckdb_merged(built: Settings) -> None:
    catalog = open_catalog(built)
    append(catalog, "flight_events", [flight_event(DAY, 3, dep_delay=17), flight_event(DAY, 40)])
    with open_runner(built) as runner:
        for model in runner.manifest:
            runner.run_live(model)
        models = list(runner.manifest)
    assert any(task.delete_files for task in load_table(catalog, "silver.flight_events").scan().plan_files())
    for model in ("bronze.flight_events", *models):
        assert read(built, model) == rows(catalog, model)


def test_it_continues_the_lake_as_duckdb_would(tmp_path: Path) -> None:
    ours, theirs = Settings().for_home(tmp_path / "ours"), Settings().for_home(tmp_path / "theirs")
    for settings in (ours, theirs):
        build(settings)
    expected, found = proceed(ours), proceed(on_spark(theirs))
    assert found.keys() == expected.keys()
    for model, table in expected.items():
        assert_equal(found[model], table)
    catalog = open_catalog(theirs)
    assert catalog.list_tables(NAMESPACE) == []
    for snapshot in ancestors(load_table(catalog, "silver.flight_events")):
        assert summary_property(snapshot, MODEL_PROPERTY) == "silver.flight_events"
    assert summary_property(next(ancestors(load_table(catalog, "silver.flight_events"))), CURSOR_PROPERTY)
    # And back: the state and the tables are DuckDB's as well.
    with open_runner(theirs) as runner:
        assert not any(runner.pending(model).behind for model in runner.manifest)


def test_deletes_moves_and_versions_become_the_same(tmp_path: Path) -> None:
    assert_trades_alike(tmp_path, on_spark)


def test_a_failing_model_is_explained_in_one_line(built: Settings, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(built.contracts_dir, project / "contracts")
    shutil.copytree(built.models_dir, project / "sqlmesh_models")
    path = project / "sqlmesh_models" / "models" / "gold" / "carrier_day.sql"
    path.write_text(
        path.read_text().replace("COUNT(*)::BIGINT AS flights", "(1 / (COUNT(*) - COUNT(*)))::BIGINT AS flights")
    )
    settings = on_spark(built).model_copy(update={"project": project, "home_override": tmp_path / "home"})
    append(open_catalog(settings), "flight_events", [flight_event(DAY, 1)])
    with open_runner(settings) as runner:
        runner.run_live("silver.flight_events")
        with pytest.raises(TransformError) as raised:
            runner.run_live("gold.carrier_day")
    assert "DIVIDE_BY_ZERO" in str(raised.value)
    assert "\n" not in str(raised.value)
