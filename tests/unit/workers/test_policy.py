"""When a batch is committed: at its limits, and seldom while there is next to nothing to commit."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from freshdata.contracts.model import CommitPolicy
from freshdata.lake.progress import PartitionProgress
from stream_workers.batch import Batch
from stream_workers.policy import LONGEST_DELAY_SECONDS, CommitTrigger, Retry, table_partitions


def rules_of(contracts, *, buckets=None, granularity="day", **policy):
    rules = contracts["flight_events"].rules
    return replace(rules, tenant_buckets=buckets, granularity=granularity, commit=CommitPolicy(**policy))


def rows(count, tenants=1, day=1):
    return pa.table(
        {
            "tenant_id": [f"T{number % tenants}" for number in range(count)],
            "ingestion_date": [date(2026, 1, day)] * count,
            "ingestion_hour": [datetime(2026, 1, day, number % 2, tzinfo=UTC) for number in range(count)],
        }
    )


def batch_of(*tables, rejected=()):
    batch = Batch(rejected=list(rejected), done={0: PartitionProgress(1)})
    for table in tables:
        add(batch, table)
    return batch


def add(batch, table):
    batch.rows.append(table)
    batch.admitted.append(np.ones(table.num_rows, dtype=np.bool_))


def commit(trigger, batch, taken):
    """Take a batch, wait until it is due and commit it; returns how long its first event waited."""
    trigger.taken(batch, taken)
    waited = 0.0
    while trigger.due(taken + waited) is None:
        waited += 0.5
        assert waited < 100
    trigger.committed(taken + waited)
    return waited


def test_nothing_is_due_before_anything_was_taken(contracts):
    assert CommitTrigger(rules_of(contracts)).due(1e9) is None


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"max_rows": 300}, "rows"), ({"max_bytes": 4000}, "bytes"), ({"max_open_partitions": 6}, "partitions")],
)
def test_each_hard_limit_makes_a_commit_due_at_once(contracts, limit, reason):
    trigger = CommitTrigger(rules_of(contracts, **limit))
    batch = batch_of(rows(100, tenants=3))
    trigger.taken(batch, 0.0)
    assert trigger.due(0.0) is None
    add(batch, rows(200, tenants=3, day=2))
    trigger.taken(batch, 0.1)
    assert trigger.due(0.1) == reason
    assert trigger.due(0.1, behind=True) == reason


def test_rejected_records_count_for_the_memory_they_take(contracts):
    trigger = CommitTrigger(rules_of(contracts, max_bytes=1_000_000))
    trigger.taken(batch_of(rejected=[pa.table({"payload": [b"x" * 1_000_000]})]), 0.0)
    assert trigger.due(0.0) == "bytes"


def test_a_well_filled_batch_waits_for_its_age_and_no_longer(contracts):
    trigger = CommitTrigger(rules_of(contracts, max_age=timedelta(seconds=2)))
    for start in (0, 100, 103, 106):
        assert commit(trigger, batch_of(rows(500)), start) == 2


def test_a_lone_event_waits_the_shortest_age(contracts):
    trigger = CommitTrigger(rules_of(contracts))
    assert commit(trigger, batch_of(rows(1)), 0) == 2
    assert commit(trigger, batch_of(rows(1)), 3600) == 2


def test_a_trickle_makes_one_commit_in_the_longest_age(contracts):
    """One event a second, for ten minutes."""
    trigger, batch, commits = CommitTrigger(rules_of(contracts)), Batch(), []
    for second in range(600):
        add(batch, rows(1))
        trigger.taken(batch, second)
        if trigger.due(second):
            trigger.committed(second)
            commits.append(second)
            batch = Batch()
    gaps = [after - before for before, after in pairwise(commits)]
    assert commits[0] == 2
    assert max(gaps) <= 11
    assert len(commits) < 65


def test_load_after_a_trickle_is_fast_again(contracts):
    trigger = CommitTrigger(rules_of(contracts))
    assert [commit(trigger, batch_of(rows(1)), start) for start in (0, 3, 8, 17)] == [2, 4, 8, 10]
    assert commit(trigger, batch_of(rows(1000)), 28) == 2
    assert commit(trigger, batch_of(rows(1)), 31) == 2


def test_more_open_partitions_need_more_rows_to_be_worth_a_commit(contracts):
    trigger = CommitTrigger(rules_of(contracts, min_file_rows=10))
    trigger.taken(batch_of(rows(100, tenants=10)), 0)
    assert not trigger.small
    trigger.dropped()
    trigger.taken(batch_of(rows(100, tenants=11)), 0)
    assert trigger.small


def test_a_backlog_fills_commits_up_but_not_for_ever(contracts):
    trigger = CommitTrigger(rules_of(contracts))
    trigger.taken(batch_of(rows(5000)), 0)
    assert trigger.due(9.9, behind=True) is None
    assert trigger.due(9.9) == "age"
    assert trigger.due(10, behind=True) == "age"


class Sent:
    def __init__(self, at):
        self.at = at

    def timestamp(self):
        return 1, int(self.at.timestamp() * 1000)


@pytest.mark.parametrize(("seconds", "backlog"), [(0.2, False), (1.9, False), (2.1, True), (9_000_000, True)])
def test_full_polls_of_new_events_are_a_high_rate_and_no_backlog(contracts, seconds, backlog):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    messages = [Sent(now - timedelta(days=9)), Sent(now - timedelta(seconds=seconds))]
    assert CommitTrigger(rules_of(contracts)).is_backlog(messages, now) is backlog


def test_duplicates_are_no_rows(contracts):
    trigger, batch = CommitTrigger(rules_of(contracts, max_rows=300)), batch_of(rows(400))
    batch.admitted[0][:200] = False
    trigger.taken(batch, 0)
    assert trigger.rows == 200
    assert trigger.due(0) is None


def test_partitions_are_what_the_table_is_partitioned_by(contracts):
    table = pa.concat_tables([rows(60, tenants=3), rows(60, tenants=3, day=2)])
    assert len(set(table_partitions(table, rules_of(contracts)))) == 6
    assert len(set(table_partitions(table, rules_of(contracts, granularity="hour")))) == 12
    assert len(set(table_partitions(rows(5000, tenants=1000), rules_of(contracts, buckets=8)))) == 8
    assert list(table_partitions(rows(0), rules_of(contracts, buckets=8))) == []


def test_retries_back_off_to_a_bound_and_start_again_after_a_success():
    retry = Retry()
    assert retry.may_try(0)
    delays = [retry.failed(OSError("disk full\nSQL: SELECT 1"), now) for now in range(8)]
    assert delays[:3] == [1, 2, 4]
    assert max(delays) == LONGEST_DELAY_SECONDS
    assert retry.since == 0
    assert retry.problem == "OSError: disk full"
    assert not retry.may_try(7 + LONGEST_DELAY_SECONDS - 1)
    assert retry.may_try(7 + LONGEST_DELAY_SECONDS)
    retry.succeeded()
    assert retry.problem == ""
    assert retry.may_try(0)
    assert retry.failed(OSError(), 100) == 1
