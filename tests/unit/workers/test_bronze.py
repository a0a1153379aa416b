"""The writer's two tables are fenced alike, and it follows the contract that is published."""

import json

import pytest

from freshdata.contracts import load_contract
from freshdata.errors import FencedError, RegistryDownError
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.registry import Schema, framed
from stream_workers import bronze
from stream_workers.batch import BEGINNING_OF_TIME, Batch, PartitionState, SchemasWaitError
from tests.streams import START, flight_event


class Broken:
    """A record at offset 0 that is no event."""

    def key(self):
        return b"k"

    def value(self):
        return b"{"

    def partition(self):
        return 0

    def offset(self):
        return 0

    def timestamp(self):
        return 1, 1357387200000


def test_the_first_broken_record_of_a_partition_is_kept_once_whoever_commits_first(instance, contracts, monkeypatch):
    writers = [
        bronze.BronzeWriter(open_catalog(instance), contracts["flight_events"], contracts, "cluster") for _ in range(2)
    ]
    batches = [Batch(), Batch()]
    for writer, batch in zip(writers, batches, strict=True):
        state = PartitionState(0, BEGINNING_OF_TIME, writer.empty_index())
        writer.processor([Broken()], {0: state}, batch)
    write, others = bronze.write_data_files, [lambda: writers[1].commit(batches[1])]

    def write_second(table, rows, **options):
        files = write(table, rows, **options)
        if others:  # The other owner commits while this one has not yet.
            others.pop()()
        return files

    monkeypatch.setattr(bronze, "write_data_files", write_second)
    with pytest.raises(FencedError):
        writers[0].commit(batches[0])
    assert open_catalog(instance).load_table("quarantine.flight_events").scan().to_arrow()["offset"].to_pylist() == [0]


class Event:
    """A departure at an offset of partition 0."""

    def __init__(self, offset, **fields):
        self._offset = offset
        self._event = flight_event(offset, **fields)

    def key(self):
        return self._event["event_id"].encode()

    def value(self):
        return json.dumps(self._event).encode()

    def partition(self):
        return 0

    def offset(self):
        return self._offset

    def timestamp(self):
        return 1, int(START.timestamp() * 1000) + 3_600_000


@pytest.fixture
def newer(instance, contracts, tmp_path):
    """The flight contract with a further field, not published."""
    path = tmp_path / "flight_events.odcs.yaml"
    text = (instance.contracts_dir / "flight_events.odcs.yaml").read_text().replace("version: 1.0.0", "version: 1.1.0")
    field = "      - {name: gate, physicalType: string}\n      - name: distance\n"
    path.write_text(text.replace("      - name: distance\n", field))
    return load_contract(path)


def taken(writer, *events, state=None):
    """A batch of events, and the state after them."""
    batch, state = Batch(), state or PartitionState(0, BEGINNING_OF_TIME, writer.empty_index())
    writer.processor(events, {0: state}, batch)
    return batch, state


def test_a_writer_follows_what_is_published_and_keeps_its_state_and_its_open_batch(instance, contracts, newer):
    writer = bronze.BronzeWriter(open_catalog(instance), contracts["flight_events"], contracts, "cluster")
    batch, state = taken(writer, Event(0), Event(1))
    assert not writer.follow(refresh=True)
    ensure_stream_tables(open_catalog(instance), newer, contracts)
    assert not writer.follow()  # It has not looked at the catalog since.
    assert writer.follow(refresh=True)
    assert writer.contract == newer
    writer.processor([Event(1), Event(2, gate="C2")], {0: state}, batch)
    writer.processor([replace_offset(Event(0), 3)], {0: state}, batch)
    writer.commit(batch)
    assert writer.accepted(batch)["gate"].to_pylist() == [None, None, "C2"]
    rows = open_catalog(instance).load_table("bronze.flight_events").scan().to_arrow().to_pylist()
    assert {row["_offset"]: row["gate"] for row in rows} == {0: None, 1: None, 2: "C2"}
    assert batch.done[0].duplicates == 1


def test_a_batch_that_is_open_while_its_column_is_renamed_loses_no_value(instance, contracts, tmp_path):
    writer = bronze.BronzeWriter(open_catalog(instance), contracts["flight_events"], contracts, "cluster")
    batch, state = taken(writer, Event(0), Event(1, tailnum="NEW1"))
    path = tmp_path / "flight_events.odcs.yaml"
    text = (instance.contracts_dir / "flight_events.odcs.yaml").read_text().replace("version: 1.0.0", "version: 1.1.0")
    alias = "id: tailnum\n        customProperties: [{property: aliases, value: [tailnum]}]\n"
    for old, new in (
        ("      - name: tailnum\n", f"      - name: tail_number\n        {alias}"),
        ("value: [tailnum]}\n      - {property: tenantIdle", "value: [tail_number]}\n      - {property: tenantIdle"),
    ):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    ensure_stream_tables(open_catalog(instance), load_contract(path), contracts)
    writer.bronze.refresh()  # As a rebalance does.
    writer.commit(batch)
    assert writer.follow()
    batch, _ = taken(writer, Event(2), Event(3, tail_number="NEW3", tailnum=None), state=state)
    writer.commit(batch)
    rows = open_catalog(instance).load_table("bronze.flight_events").scan().to_arrow().to_pylist()
    assert {row["_offset"]: row["tail_number"] for row in rows} == {0: "N000", 1: "NEW1", 2: "N002", 3: "NEW3"}
    assert "tailnum" not in rows[0]


class Named:
    """A message that names its schema."""

    def __init__(self, partition, offset, schema):
        self._place, self._schema = (partition, offset), schema

    def key(self):
        return flight_event(self._place[1])["event_id"].encode()

    def value(self):
        return framed(self._schema, json.dumps(flight_event(self._place[1])).encode())

    def partition(self):
        return self._place[0]

    def offset(self):
        return self._place[1]

    def timestamp(self):
        return 1, int(START.timestamp() * 1000) + 3_600_000


def test_a_partition_waits_where_a_schema_is_unknown_and_others_go_on(instance, contracts):
    known, down = {1}, []

    def schemas(number):
        if number not in known:
            down.append(number)
            raise RegistryDownError("http://registry", "refused")
        return Schema(number, "JSON", "{}")

    writer = bronze.BronzeWriter(open_catalog(instance), contracts["flight_events"], contracts, "cluster", schemas)
    states = {number: PartitionState(0, BEGINNING_OF_TIME, writer.empty_index()) for number in range(3)}
    messages = [
        *(Named(0, offset, 1 if offset < 2 else 9 if offset % 2 else 8) for offset in range(5)),
        *(Named(1, offset, 1) for offset in range(10, 13)),
        *(Named(2, offset, 9) for offset in range(20, 22)),
    ]
    batch = Batch()
    with pytest.raises(SchemasWaitError) as waits:
        writer.processor(messages, states, batch)
    assert waits.value.partitions == {0, 2}
    assert [states[number].offset for number in range(3)] == [2, 13, 0]
    assert {number: done.accepted for number, done in batch.done.items()} == {0: 2, 1: 3}
    known |= {8, 9}
    writer.processor(messages, states, batch)
    assert [states[number].offset for number in range(3)] == [5, 13, 22]
    writer.commit(batch)
    rows = open_catalog(instance).load_table("bronze.flight_events").scan().to_arrow()
    assert sorted(rows["_offset"].to_pylist()) == [0, 1, 2, 3, 4, 10, 11, 12, 20, 21]


class Keyed(Named):
    """Event 0, whose key names its schema at odd offsets."""

    def key(self):
        key = flight_event(0)["event_id"]
        return framed(1, json.dumps(key).encode()) if self.offset() % 2 else key.encode()

    def value(self):
        return json.dumps(flight_event(0)).encode()


def test_repeats_are_known_by_what_a_key_says_however_it_is_written(instance, contracts):
    def schemas(number):
        return Schema(number, "JSON", "{}")

    writer = bronze.BronzeWriter(open_catalog(instance), contracts["flight_events"], contracts, "cluster", schemas)
    batch, _ = taken(writer, Keyed(0, 1, 1), Keyed(0, 2, 1), Keyed(0, 3, 1))
    done = batch.done[0]
    assert (done.accepted, done.duplicates, done.rejected) == (1, 2, 0)


def replace_offset(event, offset):
    """The same event once more, at another offset."""
    event._offset = offset
    return event


def test_what_is_in_the_quarantine_already_stays_there_whatever_the_contract_says_by_now(instance, contracts, newer):
    writer = bronze.BronzeWriter(open_catalog(instance), contracts["flight_events"], contracts, "cluster")
    batch, state = taken(writer, Event(0))
    writer.commit(batch)
    batch, _ = taken(writer, Event(1, gate="C1"), Event(2), state=state)
    writer._commit_rejected(batch)  # And here it is killed.
    successor = bronze.BronzeWriter(open_catalog(instance), newer, contracts, "cluster")
    batch, _ = taken(successor, Event(1, gate="C1"), Event(2), Event(3, gate="C3"), state=successor.restore(0))
    successor.commit(batch)
    rows, rejected = (
        open_catalog(instance).load_table(f"{name}.flight_events").scan().to_arrow()
        for name in ("bronze", "quarantine")
    )
    assert sorted(rows["_offset"].to_pylist()) == [0, 2, 3]
    assert rejected["offset"].to_pylist() == [1]
    assert rejected["contract_version"].to_pylist() == ["1.0.0"]
    assert (batch.done[0].accepted, batch.done[0].rejected) == (2, 1)
