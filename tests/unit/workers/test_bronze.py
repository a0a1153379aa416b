"""The writer's two tables are fenced alike."""

import pytest

from freshdata.errors import FencedError
from freshdata.lake.catalog import open_catalog
from stream_workers import bronze
from stream_workers.batch import BEGINNING_OF_TIME, Batch, PartitionState


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
