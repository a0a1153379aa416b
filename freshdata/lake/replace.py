"""Put the files of a rebuilt table in place of a live one's, in one snapshot.

The rebuilt table is forked from the live one: it has the same columns under the same field ids, the same partitions and
the same sort order, so that its files can change hands as they are. The live table keeps its identity, its history and
its readers, and as long as the snapshot before is kept, a roll back to it undoes the exchange.
"""

import time
import uuid
from collections.abc import Callable

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update.snapshot import UpdateSnapshot

from freshdata.errors import LakeError
from freshdata.lake.commits import ATTEMPTS, COMMIT_ID_PROPERTY, FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS
from freshdata.lake.files import write_data_files
from freshdata.lake.progress import ancestors, summary_property
from freshdata.lake.transaction import LakeTransaction

# Ends the name of a table that is rebuilt beside the live one, and is dropped when its files have changed hands.
SHADOW = "__rebuild"
# Begins a snapshot whose summary has these properties.
Update = Callable[[dict[str, str]], UpdateSnapshot]
# They would put the files of both tables into one folder.
OWN_PATHS = ("write.data.path", "write.metadata.path")


def fork_table(catalog: Catalog, live: Table, name: str, properties: dict[str, str], *, within: bool = True) -> Table:
    """Create an empty table of the same schemas, partition specs and sort orders as another, ids included.

    ``create_table`` would number the columns anew, in their order; a live table that has gained a column numbers it
    last, and a reader finds a column in a file by its number.

    Args:
        catalog: The catalog.
        live: The table to fork.
        name: Identifier of the new table, in an existing namespace.
        properties: Table properties, beside the live table's.
        within: Whether its files are kept inside the live table's folder. Then the live table's maintenance removes
            what is left of them when neither table refers to them any more; else they lie in a folder of their own.
    """
    identity = uuid.uuid4()
    location = f"{live.location()}{'/replay-' if within else '-'}{identity.hex}"
    empty = {
        "table_uuid": identity,
        "location": location,
        "last_updated_ms": time.time_ns() // 1_000_000,
        "last_sequence_number": 0,
        "current_snapshot_id": None,
        "properties": {key: value for key, value in live.properties.items() if key not in OWN_PATHS} | properties,
        "refs": {},
    } | {field: [] for field in ("snapshots", "snapshot_log", "metadata_log", "statistics", "partition_statistics")}
    path = f"{location}/metadata/00000-{identity}.metadata.json"
    ToOutputFile.table_metadata(live.metadata.model_copy(update=empty), live.io.new_output(path))
    return catalog.register_table(name, path)


def take_over(
    live: Table,
    rebuilt: Table,
    properties: dict[str, str],
    *,
    kept: Callable[[], tuple[list[DataFile], dict[str, str]]] = lambda: ([], {}),
    within: Callable[[DataFile], bool] = lambda _: True,
    admit: Callable[[], None] = lambda: None,
) -> Snapshot:
    """Put a rebuilt table's files in place of the live table's, in one snapshot.

    Args:
        live: The live table; refreshed in place.
        rebuilt: A table of :func:`fork_table`; left as it is.
        properties: Properties of the snapshot's summary.
        kept: Called at each attempt, when the live table was refreshed: new files of rows that the live table has and
            shall keep, and the properties that account for them.
        within: Which of the live table's files are replaced; the others stay.
        admit: Called before each attempt, when the live table was refreshed; what it raises ends the exchange.

    Returns:
        The live table's new snapshot.

    Raises:
        LakeError: the live table's columns, partitions or sort order have changed since the fork, or the catalog kept
            refusing.
    """
    rebuilt.refresh()
    new = _data_files(rebuilt)

    def change(update: Update) -> None:
        old = {path: file for path, file in _data_files(live).items() if within(file)}
        files, more = kept()
        with update(properties | more).overwrite() as overwrite:
            for file in files:
                overwrite.append_data_file(file)
            for path in old.keys() - new.keys():
                overwrite.delete_data_file(old[path])
            for path in new.keys() - old.keys():
                overwrite.append_data_file(new[path])

    def admitted() -> None:
        _refuse_another_shape(live, rebuilt)
        admit()

    return _commit(live, change, admitted)


def append_nothing(table: Table, properties: dict[str, str], *, admit: Callable[[], None] = lambda: None) -> Snapshot:
    """Add a snapshot with the same rows and other properties.

    Args:
        table: The table; refreshed in place.
        properties: Properties of the snapshot's summary.
        admit: Called before each attempt, when the table was refreshed; what it raises ends it.

    Raises:
        LakeError: the catalog kept refusing.
    """

    def change(update: Update) -> None:
        with update(properties).fast_append():
            pass

    return _commit(table, change, admit)


def append_rows(table: Table, rows: pa.Table) -> Snapshot:
    """Append rows in one snapshot, once, whoever else writes.

    Args:
        table: The table; refreshed in place.
        rows: Rows with the table's columns.

    Raises:
        LakeError: the catalog kept refusing.
    """
    files = write_data_files(table, rows)

    def change(update: Update) -> None:
        with update({}).fast_append() as append:
            for file in files:
                append.append_data_file(file)

    return _commit(table, change, lambda: None)


def _commit(table: Table, change: Callable[[Update], None], admit: Callable[[], None]) -> Snapshot:
    commit_id = uuid.uuid4().hex
    delay = FIRST_DELAY_SECONDS
    failure: Exception | None = None
    for _ in range(ATTEMPTS):
        table.refresh()
        # An error's answer may hide a commit that did happen: only the table tells.
        for snapshot in ancestors(table) if failure else ():
            if summary_property(snapshot, COMMIT_ID_PROPERTY) == commit_id:
                return snapshot
        admit()
        try:
            with LakeTransaction(table) as transaction:
                change(
                    lambda properties, to=transaction: to.update_snapshot(  # type: ignore[misc]
                        snapshot_properties=properties | {COMMIT_ID_PROPERTY: commit_id}
                    )
                )
        except Exception as error:  # noqa: BLE001 - see above.
            failure = error
            time.sleep(delay)
            delay = min(delay * 2, LONGEST_DELAY_SECONDS)
        else:
            return next(ancestors(table))
    raise LakeError(
        ".".join(table.name()),
        f"the catalog refused a commit {ATTEMPTS} times, last with: {failure}.",
        remedy="Check that the catalog is reachable, and run the command again.",
    ) from failure


def _refuse_another_shape(live: Table, rebuilt: Table) -> None:
    shapes = [(table.schema().fields, table.spec().fields, table.sort_order().fields) for table in (live, rebuilt)]
    if shapes[0] != shapes[1]:
        raise LakeError(
            ".".join(live.name()),
            "its columns, partitions or sort order have changed since the rebuild began.",
            remedy="Run the command again: it starts over with the table as it is now.",
        )


def _data_files(table: Table) -> dict[str, DataFile]:
    """The data files of the current snapshot, by path."""
    snapshot = table.current_snapshot()
    return {
        entry.data_file.file_path: entry.data_file
        for manifest in (snapshot.manifests(table.io) if snapshot else ())
        if manifest.content == ManifestContent.DATA
        for entry in manifest.fetch_manifest_entry(table.io)
    }
