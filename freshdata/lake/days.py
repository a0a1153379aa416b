"""The files that hold a day's rows, of tables that are partitioned by a date column: told from manifests."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import date

import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import FileScanTask, Table

from freshdata.errors import LakeError
from freshdata.intervals import ranges
from freshdata.lake.changes import partition_of


def files_of_days(table: Table, column: str, days: Iterable[date]) -> dict[date, list[FileScanTask]]:
    """The data files of some days, each with the delete files that mean it; a day without rows is left out.

    Args:
        table: The table, refreshed.
        column: The date column that it is partitioned by.
        days: The days.

    Raises:
        LakeError: some of the files are not partitioned by the column.
    """
    wanted = frozenset(days)
    found: dict[date, list[FileScanTask]] = defaultdict(list)
    for first, last in ranges(wanted):
        for task in table.scan(row_filter=f"{column} >= '{first}' and {column} <= '{last}'").plan_files():
            partition = partition_of(table, task.file)
            if column not in partition:
                raise LakeError(
                    ".".join(table.name()),
                    f"is not partitioned by {column}, so the files of a day cannot be told.",
                    remedy=f"Write `partitioned_by ({column})` in its model, and `freshdata rebuild` it.",
                )
            found[partition[column]].append(task)
    return dict(found)


def files_id(tasks: Iterable[FileScanTask]) -> str:
    """A short name of a set of files: another one as soon as a row is added, changed or deleted."""
    paths = sorted(
        path for task in tasks for path in (task.file.file_path, *(delete.file_path for delete in task.delete_files))
    )
    return hashlib.sha256("\n".join(paths).encode()).hexdigest()[:32]


def rows_of_files(table: Table, tasks: Iterable[FileScanTask], columns: Iterable[str]) -> pa.Table:
    """The rows in some of a table's files, without those that its delete files take away."""
    return ArrowScan(table.metadata, table.io, table.schema().select(*columns), AlwaysTrue()).to_table(tasks)
