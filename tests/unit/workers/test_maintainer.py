"""The child process that maintains tables beside a worker: it does its work, and never gets in the worker's way."""

import logging
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import psutil
import pyarrow as pa
import pytest
from pyiceberg.table import Table

from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.commits import commit_batch
from freshdata.lake.files import write_data_files
from freshdata.lake.maintenance import FANOUT, Retention
from freshdata.lake.progress import PartitionProgress, Progress, read_progress
from freshdata.settings import Settings
from stream_workers import maintainer as module
from stream_workers.maintainer import COMMITS_BETWEEN, RETENTION, Maintainer, serve

NAME = "bronze.sample"
SCHEMA = pa.schema([pa.field("key", pa.string())])
AT_ONCE = Retention(keep=3, young=timedelta(0))


@pytest.fixture
def table(instance: Settings) -> Table:
    return ensure_table(open_catalog(instance), NAME, SCHEMA)


def commit(table: Table, count: int) -> None:
    for _ in range(count):
        recorded = read_progress(table.refresh())
        begin = recorded.partitions[0].offset if recorded else 0
        files = write_data_files(table, pa.table({"key": [str(begin)]}, schema=SCHEMA))
        commit_batch(table, files, {0: begin}, Progress("cluster", "topic", {0: PartitionProgress(begin + 1)}))


def until(condition, seconds=200.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_child_maintains_a_table_once_commits_have_piled_up(instance, table):
    maintainer = Maintainer(instance, AT_ONCE)
    commit(table, COMMITS_BETWEEN - 2)
    maintainer.committed(table)
    assert maintainer.pid is None
    commit(table, 4)
    maintainer.committed(table)
    until(lambda: len(table.refresh().snapshots()) == AT_ONCE.keep)
    child = maintainer.pid
    maintainer.close()
    assert not psutil.pid_exists(child)
    assert table.scan().to_arrow().num_rows == COMMITS_BETWEEN + 2


def test_the_child_ends_when_its_worker_is_killed(instance, table):
    commit(table, FANOUT)
    code = """
import sys, time
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.settings import load_settings
from stream_workers.maintainer import Maintainer
settings = load_settings()
maintainer = Maintainer(settings)
maintainer.committed(load_table(open_catalog(settings), sys.argv[1]))
print(maintainer.pid, flush=True)
time.sleep(600)
"""
    own = {**os.environ, "FRESHDATA_HOME": str(instance.home)}
    worker = subprocess.Popen([sys.executable, "-c", code, NAME], env=own, stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(worker.stdout.readline()))
    worker.kill()
    worker.wait()
    child.wait(60)


def test_a_dead_child_does_not_disturb_the_worker_and_has_a_successor(instance, table, monkeypatch):
    maintainer = Maintainer(instance, AT_ONCE)
    commit(table, FANOUT)
    maintainer.committed(table)
    first = maintainer.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: maintainer.pid is None)
    commit(table, FANOUT)
    maintainer.committed(table)
    assert maintainer.pid is None  # Not at once: a child that cannot live is not started over and over.
    monkeypatch.setattr(module, "RESTART_AFTER_SECONDS", 0.0)
    commit(table, FANOUT)
    maintainer.committed(table)
    assert maintainer.pid not in (None, first)
    until(lambda: len(table.refresh().snapshots()) == AT_ONCE.keep)
    maintainer.close()


def test_a_child_that_has_no_time_does_not_hold_the_worker_up(instance, table):
    maintainer = Maintainer(instance, AT_ONCE)
    commit(table, FANOUT)
    maintainer.committed(table)
    os.kill(maintainer.pid, signal.SIGSTOP)
    try:
        for _ in range(10_000):  # More than the pipe holds.
            maintainer._asked.clear()
            maintainer.committed(table)
    finally:
        os.kill(maintainer.pid, signal.SIGKILL)
        maintainer.close()


def test_a_failure_is_logged_and_the_next_table_is_maintained(instance, table, caplog):
    commit(table, FANOUT)
    caplog.set_level(logging.INFO)
    serve([instance.model_dump_json(), RETENTION.dump_json(AT_ONCE).decode(), "bronze.missing\n", f"{NAME}\n"])
    assert "maintenance failed table=bronze.missing" in caplog.text
    assert f"maintained table={NAME}" in caplog.text
    assert len(table.refresh().snapshots()) == AT_ONCE.keep
