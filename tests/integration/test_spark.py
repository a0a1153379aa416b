"""Spark over a lake that DuckDB built: it reads the same rows, and continues it with the same models."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts
from freshdata.errors import PrerequisiteError, QueryError, TransformError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.cursors import CURSOR_PROPERTY, MODEL_PROPERTY
from freshdata.lake.progress import ancestors, summary_property
from freshdata.lake.query import run_query
from freshdata.lake.scratch import NAMESPACE
from freshdata.quality.report import SAMPLE
from freshdata.quality.spark import in_spark
from freshdata.services.prerequisites import SPARK, find_java, resolve_jars
from freshdata.serving import select_of
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata.transform.runner import open_runner
from freshdata_assets.defs.quality import checks
from freshdata_assets.defs.quality.checks import quality_checks
from freshdata_assets.platform import Platform, asset_key
from freshdata_assets.scope import PARTITION
from tests.bronze import append, flight_event, rows
from tests.engines import DAY, NEXT, assert_captures_alike, assert_equal, assert_trades_alike, build, proceed

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


FLIGHTS = "silver.flight_events"
OWN = [
    {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "carrier_name", "regex": "^United"}},
    {"type": "unexpected_rows_expectation",
     "kwargs": {"unexpected_rows_query": "SELECT * FROM {batch} WHERE flight > 9999"}, "severity": "warning"},
    {"type": "expect_column_max_to_be_between", "kwargs": {"column": "distance", "max_value": 5000}},
]  # fmt: skip


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


@pytest.mark.parametrize("view", ["serving.carrier_punctuality", "serving.route_traffic"])
def test_it_reads_serving_views_by_the_select_that_is_told(built: Settings, view: str) -> None:
    from freshdata.transform.engines.spark import open_session

    found = open_session(on_spark(built)).sql(select_of(built, view, "spark")).toArrow().to_pylist()
    expected = run_query(built, f"FROM {view}").to_pylist()
    assert expected
    assert_equal(sorted(found, key=repr), sorted(expected, key=repr))


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


def test_captured_tables_and_their_history_become_the_same(tmp_path: Path) -> None:
    assert_captures_alike(tmp_path, on_spark)


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


def judged(settings: Settings, day: date) -> dict[str, dict[str, Any]]:
    """What the checks of Silver's rules say of a day, by rule."""
    instance_clock(settings.home).set(start=DAY, now=datetime(2013, 3, 1, tzinfo=UTC))
    platform = Platform(settings, load_contracts(settings.contracts_dir), load_manifest(settings))
    check = next(check for check in quality_checks(platform) if asset_key(FLIGHTS) in check.keys_by_input_name.values())
    result = dg.materialize(
        [dg.AssetsDefinition(specs=[dg.AssetSpec(asset_key(FLIGHTS))]), check],
        selection=dg.AssetSelection.all_asset_checks(),
        tags={PARTITION: day.isoformat()},
        raise_on_error=False,
    )
    (verdict,) = result.get_asset_check_evaluations()
    assert verdict.metadata["freshdata/extent"].value == "the run's days"
    return {record.data["rule"]: dict(record.data) for record in verdict.metadata["freshdata/rules"].records}


def test_rules_are_judged_where_the_rows_are(built: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    shutil.copytree(built.contracts_dir, project / "contracts")
    shutil.copytree(built.models_dir, project / "sqlmesh_models")
    (project / "expectations").mkdir()
    (project / "expectations" / "flight_events.json").write_text(json.dumps({"expectations": OWN}))
    settings = built.model_copy(update={"project": project})
    bad: list[dict[str, Any]] = [
        {"tailnum": "n 1"}, {"flight": 20_000}, {"dest": "EWR"}, {"dep_delay": None}, {"event_type": "exploded"},
        {"carrier_name": "Unfriendly"}, *({"tailnum": None} for _ in range(9)),
    ]  # fmt: skip
    append(open_catalog(settings), "flight_events", [flight_event(DAY, 60 + at, **row) for at, row in enumerate(bad)])
    with open_runner(settings) as runner:
        runner.run_live(FLIGHTS)
    expected = {day: judged(settings, day) for day in (DAY, NEXT)}

    def refuse(*_: Any) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(checks, "rows_of_days", refuse)
    found = {day: judged(on_spark(settings), day) for day in (DAY, NEXT)}
    for day in (DAY, NEXT):
        assert found[day].keys() == expected[day].keys()
        for rule, verdict in expected[day].items():
            there = found[day][rule]
            samples = [json.loads(each.pop("sample") or "[]") for each in (there, verdict)]
            if verdict["bad"] < SAMPLE:  # Which of more rows are shown is up to the engine.
                ours, theirs = (sorted(json.dumps(row, sort_keys=True) for row in sample) for sample in samples)
                assert ours == theirs
            assert len(samples[0]) == len(samples[1]) <= SAMPLE
            assert there == verdict
    assert all(verdict["outcome"] == "passed" for verdict in found[NEXT].values())
    assert {rule for rule, verdict in found[DAY].items() if verdict["outcome"] == "failed"} == {
        "tailnum.pattern", "flight.range", "origin_not_dest", "departed_has_delay", "event_type.enum",
        "tailnum.tailnum_nulls", "carrier_name.values_to_match_regex", "unexpected_rows_expectation",
    }  # fmt: skip


def test_a_rules_query_sees_the_rows_alone() -> None:
    assert (
        in_spark("WITH x AS (SELECT * FROM rows) SELECT count(*) FROM x")
        == "WITH x AS (SELECT * FROM rows) SELECT COUNT(*) FROM x"
    )
    for query in ("SELECT count(*) FROM lake.bronze.weather", "SELECT count(*) FROM 'people.csv'", "SELECT * FROM y"):
        with pytest.raises(QueryError, match="cannot be read"):
            in_spark(query)
