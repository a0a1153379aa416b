"""Engines outside this process, that commit by themselves and know nothing of cursors.

They read a stream's news from a scratch table that holds the very files that Bronze gained, and write the rows of
replaced days into a fork of the live table, whose files PyIceberg then puts in place, in one stamped snapshot. No row
passes through this process. Only merges they commit themselves; the cursor follows in a snapshot of its own.
"""

from __future__ import annotations

import warnings
from contextlib import suppress

from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import BooleanExpression
from pyiceberg.table import Table
from sqlglot import exp

from freshdata.lake.catalog import CATALOG_NAME, load_table
from freshdata.lake.changes import new_files
from freshdata.lake.scratch import create_scratch_table
from freshdata.lake.snapshots import SnapshotWriter
from freshdata.lake.transaction import LakeTransaction
from freshdata.transform.engines.base import NOTHING_DELETED, LakeAdapter
from freshdata.transform.retry import retry


class ForkingAdapter(LakeAdapter):
    """An adapter of an engine that reads and writes the lake through its own Iceberg library."""

    def stage(self, table: Table, after: int | None, until: int | None) -> str:
        """Refer to the files with the rows from a table of their own; none is copied."""
        scratch = create_scratch_table(self.face.catalog, table)
        if files := new_files(table, after, until):
            writer = SnapshotWriter(scratch)
            writer.append([writer.added(files)], files, {})
        return _relation(scratch)

    def unstage(self, relation: str) -> None:
        """Drop the table, not its files."""
        with suppress(NoSuchTableError):
            self.face.catalog.drop_table(relation.removeprefix(f"{CATALOG_NAME}."))

    def append(self, table: Table, query: exp.Query) -> None:
        """Have the engine write a query's rows into a table."""
        self.execute(exp.insert(query, _relation(table), columns=query.named_selects))

    def _replace(self, identifier: str, query: exp.Query, within: BooleanExpression) -> None:
        fork = create_scratch_table(self.face.catalog, load_table(self.face.catalog, identifier))
        try:
            self.append(fork, query)
            files = new_files(fork.refresh(), None, None)

            def commit() -> None:
                live = load_table(self.face.catalog, identifier)
                properties = self.face.stamped(live)
                with warnings.catch_warnings(), LakeTransaction(live) as change:
                    warnings.filterwarnings("ignore", NOTHING_DELETED)
                    change.delete(within, snapshot_properties=properties)
                    with change.update_snapshot(snapshot_properties=properties).fast_append() as append:
                        for file in files:
                            append.append_data_file(file)

            retry(commit, identifier)
        finally:
            self.unstage(_relation(fork))


def _relation(table: Table) -> str:
    return ".".join((CATALOG_NAME, *table.name()))
