"""Dagster's storages for warm runs write what its own write, into the same files."""

import json
import threading
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME

from freshdata.services.platform import WARM_STORAGES
from freshdata_assets.warm import storage

CHECK = dg.AssetCheckKey(dg.AssetKey("table"), "rows")


@dg.asset(check_specs=[dg.AssetCheckSpec("rows", asset="table")])
def table() -> dg.MaterializeResult:
    return dg.MaterializeResult(
        metadata={"dagster/row_count": 3}, check_results=[dg.AssetCheckResult(check_name="rows", passed=True)]
    )


def open_instance(home: Path, *, warm: bool) -> dg.DagsterInstance:
    parts = {
        part: {"module": storage.__name__, "class": name, "config": {"base_dir": str(home / folder)}}
        for part, (name, folder) in WARM_STORAGES.items()
    }
    (home / "dagster.yaml").write_text(json.dumps({"telemetry": {"enabled": False}} | (parts if warm else {})))
    return dg.DagsterInstance.from_config(str(home))


def told(instance: dg.DagsterInstance, run_id: str) -> list[tuple[object, ...]]:
    events = [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event]
    return [(event.event_type_value, event.step_key, event.asset_key) for event in events]


@pytest.mark.parametrize("warm", [False, True])
def test_either_reads_what_the_other_wrote(tmp_path: Path, *, warm: bool) -> None:
    runs = []
    for writer in (warm, not warm):
        with open_instance(tmp_path, warm=writer) as instance:
            runs.append(dg.materialize([table], instance=instance).run_id)
    with open_instance(tmp_path, warm=warm) as instance:
        first, second = (told(instance, run_id) for run_id in runs)
        assert first == second
        assert ("ASSET_MATERIALIZATION", "table", dg.AssetKey("table")) in first
        assert {run.run_id for run in instance.get_runs()} == set(runs)
        materializations = instance.fetch_materializations(dg.AssetKey("table"), limit=9).records
        assert [record.run_id for record in materializations] == runs[::-1]
        checks = instance.event_log_storage.get_asset_check_execution_history(CHECK, 9)
        assert [(record.run_id, record.status.value) for record in checks] == [(run, "SUCCEEDED") for run in runs[::-1]]


@pytest.fixture
def log(tmp_path: Path) -> storage.WarmEventLogStorage:
    return storage.WarmEventLogStorage(str(tmp_path / "events"))


def materialized(instance: dg.DagsterInstance, run_id: str) -> list[EventLogEntry]:
    """The events of a run that tell of an asset."""
    found = [entry for entry in instance.all_logs(run_id) if entry.dagster_event and entry.dagster_event.asset_key]
    assert len(found) > 1
    return found


@pytest.fixture
def events(tmp_path: Path) -> list[EventLogEntry]:
    with open_instance(tmp_path, warm=False) as instance:
        return materialized(instance, dg.materialize([table], instance=instance).run_id)


def test_of_events_that_belong_together_all_or_none_are_stored(
    log: storage.WarmEventLogStorage, events: list[EventLogEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = events[0].run_id
    stored = []

    def fail_at_the_last(*_: object) -> None:
        stored.append(1)
        if len(stored) == len(events):
            raise OSError("no space left on device")

    monkeypatch.setattr(log, "_store_asset_event", fail_at_the_last)
    monkeypatch.setattr(log, "store_asset_check_event", fail_at_the_last)
    with pytest.raises(OSError, match="no space"):
        log.store_event_batch(events)
    assert not log.get_logs_for_run(run_id)
    monkeypatch.undo()
    log.store_event_batch(events)
    assert log.get_logs_for_run(run_id) == events
    assert log.has_asset_key(dg.AssetKey("table"))


def test_threads_and_processes_write_side_by_side(
    log: storage.WarmEventLogStorage, events: list[EventLogEntry], tmp_path: Path
) -> None:
    other = storage.WarmEventLogStorage(str(tmp_path / "events"))  # As another process has it: with files of its own.
    writers = [threading.Thread(target=each.store_event_batch, args=(events,)) for each in (log, other) * 4]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(log.get_logs_for_run(events[0].run_id)) == 8 * len(events)


def test_few_files_are_open_however_many_runs_there_are(
    log: storage.WarmEventLogStorage, events: list[EventLogEntry]
) -> None:
    runs = [f"run-{number}" for number in range(2 * storage.MOST_FILES)]
    for run_id in runs:
        log.store_event(events[0]._replace(run_id=run_id))
    assert len(log._engines) == storage.MOST_FILES
    assert INDEX_SHARD_NAME in log._engines
    assert all(len(log.get_logs_for_run(run_id)) == 1 for run_id in runs)
    log.dispose()
    assert not log._engines
