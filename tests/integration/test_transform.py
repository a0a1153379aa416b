"""Bronze to Gold on real tables. One instance serves all tests: each works on a day of its own."""

import dataclasses
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from freshdata.contracts import load_contracts
from freshdata.errors import TransformError
from freshdata.lake.catalog import ensure_table, load_table
from freshdata.lake.cursors import COMMIT_PROPERTY, CURSOR_PROPERTY, behind, read_cursor
from freshdata.lake.progress import ancestors, summary_property
from freshdata.lake.query import connect
from freshdata.settings import PROJECT, Settings
from freshdata.transform.runner import Runner
from freshdata.transform.stamps import code_properties
from tests.bronze import append, flight_event, head, observation, rows
from tests.runs import CARRIERS, FLIGHTS, WEATHER, follow, of_day

pytestmark = pytest.mark.integration


def test_live_and_partition_runs_leave_the_same_rows(runner: Runner, catalog: Catalog, day: date) -> None:
    next_day = day + timedelta(days=1)
    append(catalog, "flight_events", [flight_event(day, number) for number in range(1, 6)])
    append(catalog, "weather", [observation(day, precip=0.2)])
    follow(runner)
    again = [flight_event(day, 1, _ingested_at=datetime(2014, 1, 1, tzinfo=UTC), dep_delay=50)]
    append(catalog, "flight_events", [flight_event(day, 1, "arrived"), flight_event(next_day, 9, "cancelled"), *again])
    append(catalog, "weather", [observation(next_day)])
    runs = follow(runner)
    assert set(runs[FLIGHTS].partitions) == set(runs[CARRIERS].partitions) == {day, next_day}
    assert runs[FLIGHTS].partitions[day] == 6
    daily = [model for model, info in runner.manifest.items() if info.daily]
    live = {model: rows(catalog, model) for model in daily}
    for model in daily:
        run = runner.run_partitions(model, day, next_day)
        assert set(run.partitions) == {day, next_day}
        assert run.rows == len(live[model])
    assert {model: rows(catalog, model) for model in daily} == live
    (carrier,) = of_day(catalog, CARRIERS, day)
    assert (carrier["flights"], carrier["cancelled"], carrier["mean_dep_delay_min"]) == (5, 0, 12.8)


def test_a_row_that_shows_up_late_still_reaches_gold(runner: Runner, catalog: Catalog, day: date) -> None:
    append(catalog, "flight_events", [flight_event(day, 1), flight_event(day + timedelta(days=2), 1)])
    follow(runner)
    # Ingested before the rows above by its Kafka timestamp, but committed after them: its worker was held up.
    held_up = flight_event(day, 2, _ingested_at=datetime(2012, 12, 31, tzinfo=UTC))
    append(catalog, "flight_events", [held_up])
    runs = follow(runner)
    assert runs[FLIGHTS].partitions == {day: 2}
    assert set(runs[CARRIERS].partitions) == {day}
    assert of_day(catalog, CARRIERS, day)[0]["flights"] == 2


def test_an_older_version_of_an_event_does_not_undo_a_newer_one(runner: Runner, catalog: Catalog, day: date) -> None:
    newer = flight_event(day, 1, dep_delay=30, _ingested_at=datetime(2013, 12, 2, tzinfo=UTC))
    append(catalog, "flight_events", [newer])
    follow(runner)
    append(catalog, "flight_events", [flight_event(day, 1, dep_delay=5)])
    follow(runner)
    assert [row["dep_delay"] for row in of_day(catalog, FLIGHTS, day)] == [30]


def test_nothing_new_makes_no_snapshot(runner: Runner, catalog: Catalog, day: date) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    before = {model: load_table(catalog, model).current_snapshot() for model in runner.manifest}
    runs = follow(runner)
    assert {model: load_table(catalog, model).current_snapshot() for model in runner.manifest} == before
    assert runs[FLIGHTS].note == "up to date"
    assert not runs[FLIGHTS].audits


def test_a_batch_without_news_moves_the_cursor_only(runner: Runner, catalog: Catalog, day: date) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    snapshot = append(catalog, "flight_events", [])
    upstreams = {model.name: model.depends_on for model in runner.manifest.values()}
    assert behind(catalog, upstreams) == {FLIGHTS: {"bronze.flight_events": snapshot}}
    stored = rows(catalog, FLIGHTS)
    runs = follow(runner)
    assert runs[CARRIERS].partitions == {}
    assert rows(catalog, FLIGHTS) == stored
    assert behind(catalog, upstreams) == {}


def test_repeated_rows_change_nothing_and_are_passed(runner: Runner, catalog: Catalog, day: date) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    offset = of_day(catalog, FLIGHTS, day)[0]["_offset"]
    append(catalog, "flight_events", [flight_event(day, 1, _offset=offset)])
    runs = follow(runner)
    assert runs[FLIGHTS].partitions == {day: 1}
    assert runs[CARRIERS].partitions == {}
    cursor = read_cursor(load_table(catalog, FLIGHTS))
    assert cursor is not None
    assert cursor.upstream == {"bronze.flight_events": head(catalog, "bronze.flight_events")}


def test_partition_runs_leave_the_cursor_where_it_was(runner: Runner, catalog: Catalog, day: date) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    cursor = read_cursor(load_table(catalog, FLIGHTS))
    append(catalog, "flight_events", [flight_event(day, 2), flight_event(day + timedelta(days=1), 3)])
    runner.run_partitions(FLIGHTS, day, day)
    assert read_cursor(load_table(catalog, FLIGHTS)) == cursor
    assert runner.pending(CARRIERS).dates == {day}
    runs = follow(runner)
    assert set(runs[FLIGHTS].partitions) == {day, day + timedelta(days=1)}


def test_days_whose_rows_are_gone_are_emptied(runner: Runner, catalog: Catalog, day: date) -> None:
    append(catalog, "flight_events", [flight_event(day, 1), flight_event(day + timedelta(days=1), 1)])
    follow(runner)
    load_table(catalog, "bronze.flight_events").delete(f"flight_date = '{day}'")
    runs = follow(runner)
    assert "changed or deleted" in runs[FLIGHTS].note
    assert of_day(catalog, FLIGHTS, day) == of_day(catalog, CARRIERS, day) == []
    assert of_day(catalog, CARRIERS, day + timedelta(days=1))


def test_after_a_rollback_of_bronze_everything_is_rebuilt(runner: Runner, catalog: Catalog, day: date) -> None:
    kept = append(catalog, "flight_events", [flight_event(day, 1)])
    append(catalog, "flight_events", [flight_event(day, 2)])
    follow(runner)
    load_table(catalog, "bronze.flight_events").manage_snapshots().rollback_to_snapshot(kept).commit()
    runs = follow(runner)
    assert "rolled back" in runs[FLIGHTS].note
    assert of_day(catalog, CARRIERS, day)[0]["flights"] == 1


def test_after_the_cursor_expired_only_the_days_of_newer_files_are_rebuilt(
    runner: Runner, catalog: Catalog, day: date
) -> None:
    other = day + timedelta(days=2)
    append(catalog, "flight_events", [flight_event(day, 1), flight_event(other, 1)])
    follow(runner)
    untouched = files_of_day(catalog, FLIGHTS, other)
    append(catalog, "flight_events", [flight_event(day, 2)])
    append(catalog, "flight_events", [flight_event(day + timedelta(days=1), 1)])
    bronze = load_table(catalog, "bronze.flight_events")
    bronze.maintenance.expire_snapshots().older_than(datetime.now() + timedelta(days=1)).commit()  # noqa: DTZ005 - its own clock.
    assert len(load_table(catalog, "bronze.flight_events").snapshots()) == 1
    runs = follow(runner)
    assert "expired" in runs[FLIGHTS].note
    assert "the days of its new files are rebuilt" in runs[FLIGHTS].note
    assert runs[FLIGHTS].partitions == {day: 2, day + timedelta(days=1): 1}
    assert files_of_day(catalog, FLIGHTS, other) == untouched
    assert of_day(catalog, CARRIERS, day)[0]["flights"] == 2
    assert runner.run_live(FLIGHTS).note == "up to date"


def files_of_day(catalog: Catalog, model: str, day: date) -> set[str]:
    tasks = load_table(catalog, model).scan(f"flight_date = '{day}'").plan_files()
    return {task.file.file_path for task in tasks}


def test_changed_model_code_rebuilds_everything(
    runner: Runner, catalog: Catalog, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    changed = dataclasses.replace(runner.manifest[CARRIERS], code_version="next")
    monkeypatch.setitem(runner.manifest, CARRIERS, changed)
    run = runner.run_live(CARRIERS)
    assert "code has changed" in run.note
    assert run.partitions[day] == 1
    assert not runner.pending(CARRIERS).behind


def test_every_snapshot_says_what_it_was_made_from(runner: Runner, catalog: Catalog, day: date) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    append(catalog, "flight_events", [flight_event(day, 1, _ingested_at=datetime(2014, 1, 1, tzinfo=UTC))])
    runner.run_live(FLIGHTS)
    runner.run_live(CARRIERS)
    for model in (FLIGHTS, CARRIERS):
        snapshot = next(ancestors(load_table(catalog, model)))
        assert summary_property(snapshot, CURSOR_PROPERTY)
        assert summary_property(snapshot, "freshdata.mode") == "live"
        assert summary_property(snapshot, "freshdata.model") == model
        assert summary_property(snapshot, "freshdata.interval") == f"{day}/{day}"
        assert summary_property(snapshot, "freshdata.fingerprint") == runner.manifest[model].code_version
        assert summary_property(snapshot, COMMIT_PROPERTY) == code_properties(Settings()).get(COMMIT_PROPERTY)


def test_either_upstream_table_moves_the_weather_model(runner: Runner, catalog: Catalog, day: date) -> None:
    append(catalog, "flight_events", [flight_event(day, 1)])
    follow(runner)
    assert [row["condition"] for row in of_day(catalog, WEATHER, day)] == ["unknown"]
    append(catalog, "weather", [observation(day, visib=0.5)])
    follow(runner)
    assert [row["condition"] for row in of_day(catalog, WEATHER, day)] == ["low visibility"]


def test_audits_count_the_rows_that_fail(runner: Runner, catalog: Catalog, day: date) -> None:
    circles = [flight_event(day, number, dest="EWR") for number in (1, 2)]
    append(catalog, "flight_events", [*circles, flight_event(day, 3, event_type="lost")])
    audits = {audit.name: audit for audit in runner.run_live(FLIGHTS).audits}
    assert (audits["flight_leads_elsewhere"].count, audits["flight_leads_elsewhere"].blocking) == (2, False)
    assert (audits["accepted_values"].count, audits["accepted_values"].blocking) == (1, True)
    assert not audits["accepted_values"].passed
    assert audits["not_null"].passed


def test_dimensions_follow_their_lookups(runner: Runner, catalog: Catalog) -> None:
    contract = load_contracts(PROJECT / "contracts")["airlines"]
    table = ensure_table(catalog, contract.table, contract.arrow_schema)
    table.append(pa.Table.from_pylist([{"carrier": "UA", "name": "United"}], schema=table.schema().as_arrow()))
    assert runner.run_live("gold.dim_carrier").rows == 1
    table.overwrite(pa.Table.from_pylist([{"carrier": "AA", "name": "American"}], schema=table.schema().as_arrow()))
    assert runner.run_live("gold.dim_carrier").audits
    assert rows(catalog, "gold.dim_carrier") == [{"carrier": "AA", "name": "American"}]
    assert runner.run_live("gold.dim_carrier").note == "up to date"
    assert runner.run_full("gold.dim_carrier").rows == 1


def test_the_rendered_sql_recomputes_the_whole_table(
    runner: Runner, catalog: Catalog, settings: Settings, day: date
) -> None:
    append(catalog, "flight_events", [flight_event(day, number, "arrived") for number in range(1, 8)])
    follow(runner)
    for model in (FLIGHTS, CARRIERS, WEATHER):
        with connect(settings) as connection:
            expected = connection.execute(runner.render_full(model)).to_arrow_table().to_pylist()
        assert sorted(expected, key=repr) == rows(catalog, model)


def test_wrong_requests_name_the_remedy(runner: Runner, day: date) -> None:
    with pytest.raises(TransformError, match=r"Use one of .*gold\.carrier_day"):
        runner.run_live("gold.nothing")
    with pytest.raises(TransformError, match="no partitions"):
        runner.run_partitions("gold.dim_carrier", day, day)


def test_tables_carry_the_column_descriptions(runner: Runner, catalog: Catalog) -> None:
    table = load_table(catalog, CARRIERS)
    described = {field.name: field.doc for field in table.schema().fields}
    assert described == runner.manifest[CARRIERS].column_descriptions
    assert table.properties["comment"] == runner.manifest[CARRIERS].description
    assert [field.name for field in table.spec().fields] == ["flight_date"]
