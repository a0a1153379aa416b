"""The clean topic against Bronze, row by row: whatever dies when, readers see each event once, in order, and all."""

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from confluent_kafka.admin import AdminClient

from freshdata.contracts import load_contracts
from freshdata.services.kafka import client_config
from freshdata.settings import PROJECT
from stream_workers import clean
from stream_workers.clean import clean_group
from tests.clean import PARTITIONS, STREAM, Stream, batch

pytestmark = pytest.mark.integration


@contextmanager
def child(environment, settings, **extra):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.clean"],
        cwd=PROJECT,
        env={**environment(settings), **extra},
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


@pytest.fixture
def stream(streaming):
    """The weather stream with two partitions, and a topic of its own."""
    path = streaming.contracts_dir / f"{STREAM}.odcs.yaml"
    path.write_text(re.sub(r"(topicPartitions, value: )\d+", rf"\g<1>{PARTITIONS}", path.read_text()))
    return Stream(streaming)


def run_child(environment, settings, **extra):
    with child(environment, settings, **extra) as process:
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors.decode()


@pytest.mark.parametrize("point", ["between-commits", "in-clean-transaction", "after-clean-commit"])
def test_a_killed_worker_repeats_and_loses_nothing(stream, environment, point):
    stream.send(range(100))
    code, errors = run_child(environment, stream.settings)
    assert code == 0, errors
    stream.assert_clean_is_bronze(100)
    stream.send(range(100, 200))
    code, errors = run_child(environment, stream.settings, FRESHDATA_KILL_AT=point)
    assert code == -signal.SIGKILL, errors
    stream.send(range(200, 220))
    code, errors = run_child(environment, stream.settings)
    assert code == 0, errors
    stream.assert_clean_is_bronze(220)


def test_a_killed_worker_s_rows_are_published_by_its_successor_without_any_news(stream, environment):
    stream.send(range(50))
    code, errors = run_child(environment, stream.settings, FRESHDATA_KILL_AT="between-commits")
    assert code == -signal.SIGKILL, errors
    events = stream.bronze.refresh().scan().count()
    assert 0 < events <= 50
    publisher = stream.publisher()
    publisher.assign(range(PARTITIONS))
    stream.assert_clean_is_bronze(events)
    publisher.close()


def test_of_two_publishers_of_a_partition_the_older_is_fenced(stream):
    old, new = stream.publisher(), stream.publisher()
    old.assign([0])
    rows, end = batch(stream, range(10), 0)
    stream.commit(rows, {}, {0: end})
    new.assign([0])  # Publishes what the old one has committed to Bronze, and fences it.
    stream.assert_clean_is_bronze(10)
    old.publish(rows, {0: 0}, {0: end})
    assert old.behind() == {0: end}
    stream.assert_clean_is_bronze(10)
    # The zombie wins one more commit to Bronze. Its successor finds its own next batch behind that, and fills the gap.
    more, after = batch(stream, range(10, 15), end)
    stream.commit(more, {0: end}, {0: after})
    last, finally_ = batch(stream, range(15, 20), after)
    stream.commit(last, {0: after}, {0: finally_})
    new.publish(last, {0: after}, {0: finally_})
    assert new.behind() == {0: 0}
    stream.assert_clean_is_bronze(20)
    old.revoke([0])
    old.settle()
    stream.assert_clean_is_bronze(20)
    old.close()
    new.close()


def test_a_fenced_publisher_takes_back_a_partition_that_is_still_its_own(stream):
    owner, passer_by = stream.publisher(), stream.publisher()
    owner.assign([0])
    passer_by.assign([0])
    rows, end = batch(stream, range(5), 0)
    stream.commit(rows, {}, {0: end})
    owner.publish(rows, {0: 0}, {0: end})
    assert owner.behind() == {0: end}
    deadline = time.monotonic() + 60
    while owner.behind() != {0: 0}:
        assert time.monotonic() < deadline
        owner.settle()
    stream.assert_clean_is_bronze(5)
    owner.close()
    passer_by.close()


def test_a_long_gap_is_published_in_pieces_and_in_order(stream, monkeypatch):
    monkeypatch.setattr(clean, "CATCH_UP_OFFSETS", 7)
    monkeypatch.setattr(clean, "CATCH_UP_SECONDS", 0.0)
    begin = 1000  # Kafka had deleted the offsets before when Bronze was created.
    for first in range(0, 60, 20):
        rows, end = batch(stream, range(first, first + 20), begin + first)
        stream.commit(rows, {} if first == 0 else {0: begin + first}, {0: end})
    publisher = stream.publisher()
    publisher.assign([0])
    assert 0 < publisher.behind()[0] < 60
    rounds = 0
    while publisher.behind()[0]:
        publisher.settle()
        rounds += 1
    assert 5 <= rounds <= 10
    stream.assert_clean_is_bronze(60)
    publisher.close()


def test_a_mark_that_kafka_forgot_is_read_from_the_last_event(stream):
    publisher = stream.publisher()
    publisher.assign([0])
    rows, end = batch(stream, range(10), 0)
    stream.commit(rows, {}, {0: end})
    publisher.publish(rows, {0: 0}, {0: end})
    publisher.close()
    stream.commit(rows.slice(0, 0), {0: end}, {0: end + 5})
    admin = AdminClient(client_config(stream.settings))
    [deleted] = admin.delete_consumer_groups([clean_group(stream.contract)]).values()
    deleted.result(30)
    successor = stream.publisher()
    successor.assign([0])
    assert successor.behind() == {0: 0}
    stream.assert_clean_is_bronze(10)
    successor.close()


def test_what_bronze_ingests_again_after_a_rollback_is_not_published_again(stream):
    publisher = stream.publisher()
    publisher.assign([0])
    first, middle = batch(stream, range(5), 0)
    stream.commit(first, {}, {0: middle})
    publisher.publish(first, {0: 0}, {0: middle})
    snapshot = stream.bronze.refresh().current_snapshot().snapshot_id
    second, end = batch(stream, range(5, 10), middle)
    stream.commit(second, {0: middle}, {0: end})
    publisher.publish(second, {0: middle}, {0: end})
    stream.bronze.manage_snapshots().set_current_snapshot(snapshot).commit()
    stream.commit(second, {0: middle}, {0: end})
    publisher.publish(second, {0: middle}, {0: end})
    stream.assert_clean_is_bronze(10)
    publisher.close()


@pytest.mark.parametrize(("option", "events"), [("beginning", 10), ("now", 5)])
def test_switched_on_for_an_existing_table(stream, option, events):
    rows, end = batch(stream, range(5), 0)
    stream.commit(rows, {}, {0: end})
    path = stream.settings.contracts_dir / f"{STREAM}.odcs.yaml"
    wanted = {"publishClean": "true", "publishCleanFrom": option}
    added = "".join(f"      - {{property: {name}, value: {value}}}\n" for name, value in wanted.items())
    path.write_text(path.read_text().replace("customProperties:\n", f"customProperties:\n{added}", 1))
    assert not stream.contract.rules.publish_clean
    stream.contract = load_contracts(stream.settings.contracts_dir)[STREAM]
    assert stream.contract.rules.publish_clean
    publisher = stream.publisher()
    publisher.assign([0])
    # A worker that dies before its first batch is published must not make "now" a later moment.
    more, after = batch(stream, range(5, 10), end)
    stream.commit(more, {0: end}, {0: after})
    publisher.close()
    successor = stream.publisher()
    successor.assign([0])
    published = [value["observation_id"] for _, _, value in stream.published()[0]]
    assert published == [f"X-{number}" for number in range(10 - events, 10)]
    successor.close()
