"""Take rows, or values in them, out of a table's files for good, beside its writers.

Files that hold them are written anew without them, as a compaction writes files anew: the snapshot is one of operation
REPLACE, so nobody who follows the table sees news, and it carries what the one before says. Rows that a delete file
hides are still in their file, and are taken out, too.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from freshdata.errors import LakeError
from freshdata.lake.clustering import Clustering
from freshdata.lake.compaction import Compaction, Rewritten
from freshdata.lake.files import DataFileWriter, file_schema
from freshdata.lake.health import FileGroup, Thresholds
from freshdata.lake.inventory import LiveFile
from freshdata.lake.progress import PROGRESS_PROPERTY, Progress

ROUNDS = 20

# Told rows, says which of them are meant.
Meant = Callable[[pa.Table], "pa.Array"]


def erase(table: Table, meant: Meant, blank: tuple[str, ...] = ()) -> int:
    """Take rows out of a table, or values out of rows.

    Args:
        table: The table; refreshed in place.
        meant: Which rows.
        blank: Columns that become null in these rows; without any, the rows go.

    Returns:
        The number of rows meant, those that a delete file hid left out.

    Raises:
        LakeError: other writers came first again and again, or another engine's equality deletes are in the way.
    """
    total = 0
    for _ in range(ROUNDS):
        erasure = _Erasure(table, meant, blank)
        if not erasure.found():
            return total
        total += erasure.commit_all()
    raise LakeError(
        ".".join(table.name()),
        f"other writers came first {ROUNDS} times: {'; '.join(erasure.done.skipped)}.",
        remedy="Run the command again: it goes on where it stopped.",
    )


class _Erasure(Compaction):
    """One round."""

    def __init__(self, table: Table, meant: Meant, blank: tuple[str, ...]) -> None:
        super().__init__(table, Clustering(), Thresholds(), lambda: None)
        self.meant, self.blank = meant, blank
        self.counts: dict[str, Counter[tuple[int, bool]]] = {}
        self.rewritten: list[Rewritten] = []

    def found(self) -> bool:
        """Write anew the files that hold such rows; whether there are any."""
        self.began = time.time()
        self.table.refresh()
        inventory = self.reader.inventory()
        for partition, files in inventory.partitions.items():
            for file in files.data:
                group = FileGroup(partition, (file,))
                raw = pa.Table.from_batches(self.rows(group, {}, self.table.schema()), file_schema(self.table))
                if not any(self.meant(raw).to_pylist()):
                    continue
                if inventory.equality or partition[0] != self.table.spec().spec_id:
                    raise LakeError(
                        ".".join(self.table.name()),
                        "it has equality deletes, or files of another partitioning, which are not rewritten.",
                        remedy="Let the engine that wrote them rewrite the table, and run the command again.",
                    )
                means = self.reader.deletes_of(file, files.deletes)
                self.rewritten.append(self._without(group, file, means))
        return bool(self.rewritten)

    def _without(self, group: FileGroup, file: LiveFile, means: dict[str, pa.ChunkedArray]) -> Rewritten:
        positions = {file.path: list(means.values())}
        live = pa.Table.from_batches(self.rows(group, positions, self.table.schema()), file_schema(self.table))
        mask = self.meant(live)
        self._tally(file, live.filter(mask))
        if self.blank:
            for name in self.blank:
                at, field = live.schema.get_field_index(name), live.schema.field(name)
                values = pa.chunked_array([pa.array([None], field.type).take(pa.array([0] * len(live)))])
                kept = pc.if_else(mask, values.combine_chunks(), live[name].combine_chunks())
                live = live.set_column(at, field, kept)
        else:
            live = live.filter(pc.invert(mask))
        outputs = []
        if live.num_rows:
            outputs = [DataFileWriter(self.table, live).write([live.combine_chunks()], self.values(group))]
        return Rewritten(group, outputs, {file.path: frozenset(means)})

    def _tally(self, file: LiveFile, rows: pa.Table) -> None:
        parts = rows["_kafka_partition"].to_pylist() if "_kafka_partition" in rows.column_names else [-1] * len(rows)
        late = rows["_late"].to_pylist() if "_late" in rows.column_names else [False] * len(rows)
        self.counts[file.path] = Counter(zip(parts, late, strict=True))

    def commit_all(self) -> int:
        """Commit; returns how many rows were meant in what was."""
        before = self.done.snapshots
        self.committed = 0
        self.commit(self.rewritten, self.began)
        return self.committed if self.done.snapshots > before else 0

    def state(self, rewritten: list[Rewritten]) -> dict[str, str]:
        """What the snapshot before says; events whose rows go were as if they had come before."""
        state = super().state(rewritten)
        counts: Counter[tuple[int, bool]] = Counter()
        for item in rewritten:
            for path in item.applied:
                counts.update(self.counts[path])
        self.committed = counts.total()
        if PROGRESS_PROPERTY in state and not self.blank:
            progress = Progress.from_json(state[PROGRESS_PROPERTY])
            partitions = dict(progress.partitions)
            for (number, late), count in counts.items():
                done = partitions[number]
                partitions[number] = replace(
                    done,
                    accepted=done.accepted - count,
                    duplicates=done.duplicates + count,
                    late=done.late - count * late,
                )
            state[PROGRESS_PROPERTY] = replace(progress, partitions=partitions).to_json()
        return state
