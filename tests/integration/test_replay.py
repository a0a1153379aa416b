"""Rebuild Bronze from Kafka beside a live worker, and go on after a topic or a cluster was created anew."""

import json
import signal
import subprocess
import sys
import threading

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from freshdata.errors import OffsetLostError
from freshdata.lake.catalog import open_catalog
from freshdata.lake.progress import ancestors
from freshdata.lake.replace import fork_table
from freshdata.replay import check_position
from freshdata.replay_topic import TopicReader
from freshdata.services.kafka import client_config, cluster_id, ensure_topics, local_broker
from freshdata.settings import Settings
from freshdata.transform.runner import open_runner
from freshdata.verify.ingest import verify_ingest
from stream_workers.rebuild import Replay, Request
from tests.streams import (
    disorderly,
    flight_contract,
    flight_event,
    owners,
    progress,
    send,
    wait_for,
    wait_until_caught_up,
    worker,
)

pytestmark = pytest.mark.integration

BRONZE, QUARANTINE = "bronze.flight_events", "quarantine.flight_events"


def replay(settings, environment, *options, **extra):
    """Run the command on the flight stream; returns its exit code and everything it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "stream_workers.replay", "flight_events", *options],
        env={**environment(settings), **extra},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    return done.returncode, done.stdout + done.stderr


def contents(settings, *tables):
    """Every column of every row, in Kafka's order."""
    catalog = open_catalog(settings)
    rows = [catalog.load_table(name).scan().to_arrow().to_pylist() for name in tables or (BRONZE, QUARANTINE)]
    return [
        sorted(
            found,
            key=lambda row: (
                [row.get(n) for n in ("_kafka_partition", "_offset") if n in row] or [row["partition"], row["offset"]]
            ),
        )
        for found in rows
    ]


def assert_exact(settings, accepted):
    findings, counts = verify_ingest(settings, open_catalog(settings), flight_contract(settings))
    assert [finding for finding in findings if not finding.ok] == []
    assert counts["accepted"] == accepted


def assert_only_live_tables(settings):
    catalog = open_catalog(settings)
    assert [".".join(name) for space in ("bronze", "quarantine") for name in catalog.list_tables(space)] == [
        BRONZE,
        QUARANTINE,
    ]


def ingest(settings, environment, records):
    send(settings, records)
    with worker(settings, environment(settings)):
        wait_until_caught_up(settings)


def delete_topic(settings):
    admin = AdminClient(client_config(settings))
    contract = flight_contract(settings)
    for future in admin.delete_topics([contract.rules.topic]).values():
        future.result(30)
    wait_for(lambda: contract.rules.topic not in admin.list_topics(timeout=30).topics, "deletion of the topic")


def test_lost_rows_come_back_while_the_worker_goes_on(streaming, environment):
    send(streaming, disorderly(1500, seed=1))
    with worker(streaming, environment(streaming)) as process:
        wait_until_caught_up(streaming)
        before = contents(streaming)
        for name, lost in ((BRONZE, "tenant_id = 'UA'"), (QUARANTINE, "partition = 0")):
            open_catalog(streaming).load_table(name).delete(lost)
        stop = threading.Event()

        def flow():
            first = 1500
            while not stop.is_set():
                send(streaming, disorderly(100, seed=first, first=first))
                first += 100
            sent.append(first)

        sent = []
        producer = threading.Thread(target=flow)
        producer.start()
        code, printed = replay(streaming, environment)
        stop.set()
        producer.join(60)
        assert code == 0, printed
        assert "no difference" in printed
        wait_until_caught_up(streaming)
        assert process.poll() is None
    [accepted] = sent
    assert_exact(streaming, accepted)
    # What was ingested before the replay is the same in every column; so is what was rejected.
    for found, expected, names in zip(
        contents(streaming), before, (("_kafka_partition", "_offset"), ("partition", "offset")), strict=True
    ):
        known = {tuple(row[name] for name in names) for row in expected}
        assert [row for row in found if tuple(row[name] for name in names) in known] == expected
    assert_only_live_tables(streaming)


def test_readers_never_see_a_row_go_away(streaming, environment):
    send(streaming, disorderly(800, seed=2))
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
        before = {row["event_id"] for row in contents(streaming, BRONZE)[0]}
        assert replay(streaming, environment)[0] == 0
        send(streaming, disorderly(200, seed=3, first=800))
        wait_until_caught_up(streaming)
    table = open_catalog(streaming).load_table(BRONZE)
    swapped = False
    for snapshot in ancestors(table):
        assert before <= {
            row["event_id"] for row in table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist()
        }
        if snapshot.summary.operation.value == "overwrite":
            swapped = True
            break
    assert swapped


@pytest.mark.parametrize("point", ["after-quarantine-commit", "after-commit", "between-swaps", "after-swap"])
def test_a_killed_replay_is_repeated(streaming, environment, point):
    ingest(streaming, environment, disorderly(400, seed=4))
    before = contents(streaming)
    code, _ = replay(streaming, environment, FRESHDATA_KILL_AT=point)
    assert code == -signal.SIGKILL
    assert contents(streaming, BRONZE) == before[:1]
    # The worker goes on over whatever the killed replay has left.
    ingest(streaming, environment, disorderly(100, seed=5, first=400))
    assert_exact(streaming, 500)
    before = contents(streaming)
    code, printed = replay(streaming, environment)
    assert code == 0, printed
    assert "Continuing" in printed
    assert contents(streaming) == before
    assert_only_live_tables(streaming)


def test_the_result_can_be_left_beside_the_live_table(streaming, environment):
    ingest(streaming, environment, disorderly(300, seed=6))
    head = open_catalog(streaming).load_table(BRONZE).current_snapshot()
    code, printed = replay(streaming, environment, "--to-table", "flights_again")
    assert code == 0, printed
    assert contents(streaming, "bronze.flights_again", "quarantine.flights_again") == contents(streaming)
    assert open_catalog(streaming).load_table(BRONZE).current_snapshot() == head
    # Part of the topic may be looked at, but never swapped in.
    assert replay(streaming, environment, "--to-table", "a_part", "--from-offset", "20")[0] == 0
    assert {row["_offset"] >= 20 for row in contents(streaming, "bronze.a_part")[0]} == {True}
    code, printed = replay(streaming, environment, "--from-offset", "20")
    assert code == 1
    assert "would lack the records before" in printed
    assert replay(streaming, environment, "--to-table", "weather")[0] == 1


def test_what_kafka_has_deleted_is_given_up_only_when_told(streaming, environment):
    ingest(streaming, environment, disorderly(300, seed=7))
    topic = flight_contract(streaming).rules.topic
    admin = AdminClient(client_config(streaming))
    for future in admin.delete_records([TopicPartition(topic, 0, 10)]).values():
        future.result(30)
    before = contents(streaming)
    code, printed = replay(streaming, environment)
    assert code == 1
    assert "does not hold the records before offset 10 of partition 0" in printed
    assert contents(streaming) == before
    code, printed = replay(streaming, environment, "--allow-missing")
    assert code == 0, printed
    gone = {row["event_id"] for row in before[0] if row["_kafka_partition"] == 0 and row["_offset"] < 10}
    # Some of them had been sent twice: the repeat is the first of its key that Kafka still has.
    lost = {row["event_id"] for row in before[0]} - {row["event_id"] for row in contents(streaming, BRONZE)[0]}
    assert set() < lost <= gone
    assert f"{len(lost)} keys of the live table are given up" in printed


def test_silver_and_gold_follow(streaming, environment):
    ingest(streaming, environment, disorderly(200, seed=8))

    def layers():
        with open_runner(streaming) as runner:
            runs = [runner.run_live(name) for name in runner.manifest]
            names = list(runner.manifest)
        catalog = open_catalog(streaming)
        return [sorted(map(repr, catalog.load_table(name).scan().to_arrow().to_pylist())) for name in names], runs

    before, _ = layers()
    assert any(before)
    assert replay(streaming, environment)[0] == 0
    after, runs = layers()
    assert after == before
    assert any("rebuilt" in run.note for run in runs)
    assert {run.note for run in layers()[1]} == {"up to date", "its upstream tables are empty"}


def test_a_topic_created_anew_is_explained_and_bridged(streaming, environment):
    records = disorderly(300, seed=9)
    ingest(streaming, environment, records)
    offsets = {partition: done.offset for partition, done in progress(streaming).partitions.items()}
    delete_topic(streaming)
    send(streaming, records[-60:])
    with TopicReader(streaming, flight_contract(streaming).rules.topic) as reader:
        bounds = reader.bounds()
    partition = max(offsets, key=lambda number: offsets[number] - bounds[number][1])
    with pytest.raises(OffsetLostError, match=r"created anew.*freshdata replay flight_events --keep"):
        check_position(BRONZE, partition, offsets[partition], *bounds[partition])
    # Rebuilt from what the new topic holds, the table would lack rows.
    code, printed = replay(streaming, environment)
    assert code == 1
    assert "are not in the rebuilt table" in printed
    before = {row["event_id"] for row in contents(streaming, BRONZE)[0]}
    code, printed = replay(streaming, environment, "--keep")
    assert code == 0, printed
    assert "continues at offset 0 of partition 0" in printed
    assert {row["event_id"] for row in contents(streaming, BRONZE)[0]} == before
    send(streaming, disorderly(50, seed=10, first=300))
    with worker(streaming, environment(streaming)):
        done = wait_until_caught_up(streaming).total()
    # The keys of the former topic are still known.
    ids = [row["event_id"] for row in contents(streaming, BRONZE)[0]]
    assert len(ids) == len(set(ids)) == 350
    assert done.accepted == 50
    assert done.duplicates >= 30
    code, printed = replay(streaming, environment, "--keep")
    assert code == 1
    assert "nothing to bridge" in printed


def test_another_cluster_is_explained_and_rebuilt_from(streaming, environment, tmp_path):
    records = disorderly(200, seed=11)
    ingest(streaming, environment, records)
    former = cluster_id(streaming)
    with local_broker(Settings().for_home(tmp_path / "another")) as address:
        moved = streaming.model_copy(update={"kafka_bootstrap": address})
        send(moved, records)
        refused = subprocess.run(
            [sys.executable, "-m", "stream_workers", "flight_events"],
            env=environment(moved),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert refused.returncode == 1
        assert former in refused.stderr
        assert "freshdata replay flight_events --from-offset 0" in refused.stderr
        assert "freshdata replay flight_events --keep" in refused.stderr
        before = {row["event_id"] for row in contents(moved, BRONZE)[0]}
        code, printed = replay(moved, environment)
        assert code == 0, printed
        ingest(moved, environment, disorderly(50, seed=12, first=200))
        assert progress(moved).cluster_id == cluster_id(moved) != former
        assert_exact(moved, 250)
        assert {row["event_id"] for row in contents(moved, BRONZE)[0]} > before
        # Back to the former cluster, whose topic lacks the newest rows: keep them, and continue there.
        assert "are not in the rebuilt table" in replay(streaming, environment)[1]
        assert replay(streaming, environment, "--keep")[0] == 0
        ingest(streaming, environment, [(k, v, at) for k, v, at in disorderly(10, seed=13, first=250)])
        assert len({row["event_id"] for row in contents(streaming, BRONZE)[0]}) == 260
        assert len(contents(streaming, BRONZE)[0]) == 260


def test_a_table_that_gained_a_column_keeps_its_field_numbers(streaming, environment):
    ingest(streaming, environment, disorderly(100, seed=14))
    catalog = open_catalog(streaming)
    table = catalog.load_table(BRONZE)
    # As after a contract that lost a column in the middle and gained another: the numbers have a gap and an order.
    with table.update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("distance")
    with table.update_schema() as update:
        update.move_first("tailnum")
    numbers = {field.name: field.field_id for field in table.schema().fields}
    fork = fork_table(catalog, table, "bronze.fork", {})
    assert {field.name: field.field_id for field in fork.schema().fields} == numbers
    assert fork.current_snapshot() is None
    # Its maintenance is the live table's.
    assert fork.location().startswith(f"{table.location()}/")
    catalog.drop_table("bronze.fork")
    code, printed = replay(streaming, environment)
    assert code == 0, printed
    assert {
        field.name: field.field_id for field in catalog.load_table(BRONZE).schema().fields if field.name in numbers
    } == numbers
    rows = {row["event_id"]: row for row in contents(streaming, BRONZE)[0]}
    event = flight_event(7)
    assert {name: rows[event["event_id"]][name] for name in ("tailnum", "dest", "distance")} == {
        name: event[name] for name in ("tailnum", "dest", "distance")
    }
    assert json.dumps(sorted(rows)) == json.dumps(sorted({flight_event(n)["event_id"] for n in range(100)}))


def test_two_workers_share_a_stream_that_is_replayed(streaming, environment):
    send(streaming, disorderly(600, seed=15))
    with worker(streaming, environment(streaming)), worker(streaming, environment(streaming)):
        wait_for(lambda: len([o for o in owners(streaming) if o]) == 2, "both owning partitions")
        wait_until_caught_up(streaming)
        assert replay(streaming, environment)[0] == 0
        send(streaming, disorderly(300, seed=16, first=600))
        wait_until_caught_up(streaming)
    assert_exact(streaming, 900)
    ensure_topics(streaming, [flight_contract(streaming)])


def test_a_worker_that_stays_ahead_is_set_back_and_loses_nothing(streaming, environment, monkeypatch):
    send(streaming, disorderly(200, seed=17))
    with worker(streaming, environment(streaming)):
        wait_until_caught_up(streaming)
        check = Replay._check

        def run_ahead(self, **options):
            check(self, **options)
            send(streaming, disorderly(200, seed=18, first=200))
            wait_until_caught_up(streaming)

        monkeypatch.setattr(Replay, "_check", run_ahead)
        monkeypatch.setattr("stream_workers.rebuild.ROUNDS", 0)
        Replay(streaming, Request("flight_events")).run()
        assert_exact(streaming, 400)
        send(streaming, disorderly(100, seed=19, first=400))
        wait_until_caught_up(streaming)
    assert_exact(streaming, 500)
