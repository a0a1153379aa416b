"""Compare the Silver tables of captured tables with the database that they come from, row by row."""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.table import Table
from sqlglot import exp

from freshdata.cdc.source import Source, connect, make_source, read_sources
from freshdata.contracts import Column, Contract, load_contracts
from freshdata.contracts.capture import CHANGED_AT, LSN, OPERATION, TRANSACTION, TRUNCATE, UNAVAILABLE
from freshdata.errors import CaptureError, LakeError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.cursors import behind, read_cursor
from freshdata.lake.duck import MEMORY_LIMIT
from freshdata.lake.progress import read_progress
from freshdata.lake.publication import followed_contract
from freshdata.services.kafka import end_offsets, local_broker
from freshdata.settings import Settings
from freshdata.transform.change_versions import gone, newest
from freshdata.transform.exchange import column
from freshdata.transform.manifest import ModelInfo, load_manifest
from freshdata.verify.report import Finding, Report
from freshdata.verify.source_rows import Moment, column_types, read_rows, read_type

if TYPE_CHECKING:
    import duckdb
    import psycopg2.extensions

KIND = "current_rows"
# How long nothing may move before what is waited for is thought to be stopped.
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.2
# By how much the database's clock may have been set back.
CLOCK = timedelta(minutes=1)
SLOT = "SELECT (confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots WHERE slot_name = %s"
Step = Callable[[str], None]


@dataclass(frozen=True)
class _Captured:
    """A captured table and what is made of it."""

    contract: Contract
    model: ModelInfo

    @property
    def table(self) -> str:
        """The table, with its schema."""
        capture = self.contract.rules.capture
        return capture.table if capture else ""


def verify_source(settings: Settings, dsn: str, *, step: Step = lambda _: None) -> Report:
    """Compare each captured table of a database with its Silver table.

    The database is looked at in one consistent state. Changes that were committed later may be in Silver already: the
    rows that they concern are judged by the changes before.

    Args:
        settings: The instance.
        dsn: libpq address of the database.
        step: Called with what is being done.

    Raises:
        CaptureError: the database does not answer, none of its tables is captured, or its capture stands still.
        LakeError: the stream workers or the Silver models stand still.
    """
    asked = make_source(dsn, None)
    place = ("host", "port", "dbname")
    sources = [
        source
        for source in read_sources(settings).values()
        if [source.address.get(name) for name in place] == [asked.address.get(name) for name in place]
    ]
    catalog = open_catalog(settings)
    chosen = [(source, one) for source in sources for one in _captured(settings, catalog, source)]
    if not chosen:
        raise CaptureError(
            asked.name,
            ["no contract names a table of this database that has a Silver model"],
            remedy="Follow its tables: `freshdata cdc add`. Or name the database as it was named there.",
        )
    findings: list[Finding] = []
    with connect(asked) as looking, connect(asked) as reading, local_broker(settings):
        moment = Moment.of(reading)
        for source in sources:
            step(f"waiting for the capture of {source.name}")
            _wait_for_capture(looking, source, moment)
        for source, one in chosen:
            step(f"waiting for {one.model.name}")
            seen = _wait_for_silver(settings, catalog, one)
            step(f"{one.table} → {one.model.name}")
            findings += _compare(reading, moment, source.without, one, seen)
    return Report(findings, {})


def _captured(settings: Settings, catalog: Catalog, source: Source) -> Iterator[_Captured]:
    models = load_manifest(settings)
    for contract in load_contracts(settings.contracts_dir).values():
        capture = contract.rules.capture if contract.stream else None
        if capture is None or capture.source != source.name or not catalog.table_exists(contract.table):
            continue
        followed = followed_contract(catalog.load_table(contract.table), contract)
        for model in models.values():
            if model.kind == KIND and model.depends_on == (contract.table,):
                yield _Captured(followed, model)


def _wait_for_capture(connection: "psycopg2.extensions.connection", source: Source, moment: Moment) -> None:
    """Wait until all that was committed by a moment is in Kafka."""

    def position() -> int:
        with connection.cursor() as cursor:
            cursor.execute(SLOT, (source.slot,))
            found = cursor.fetchone()
        if found is None:
            raise CaptureError(
                source.name,
                [f"the database has no replication slot {source.slot}"],
                remedy="What it would have told is lost; `freshdata cdc status` says how to go on.",
            )
        return int(found[0] or 0)

    if not _moves_past(position, lambda found: found >= moment.lsn):
        raise CaptureError(
            source.name, ["its capture stands still"], remedy="See why: `freshdata cdc status`, `freshdata status`."
        )


def _wait_for_silver(settings: Settings, catalog: Catalog, one: _Captured) -> "_Seen":
    """Silver when it has all that Kafka holds now, and the changes that it has seen then."""
    ends = {number: end for number, end in end_offsets(settings, one.contract.rules.topic).items() if end}

    def progress() -> dict[int, int]:
        done = read_progress(load_table(catalog, one.contract.table))
        return {number: part.offset for number, part in done.partitions.items()} if done else {}

    if not _moves_past(progress, lambda found: all(found.get(number, 0) >= end for number, end in ends.items())):
        raise LakeError(
            one.contract.table, "does not get what Kafka holds.", remedy=f"Run `freshdata worker {one.contract.name}`."
        )
    bronze = load_table(catalog, one.contract.table)
    head = bronze.current_snapshot()
    needed = head.sequence_number or 0 if head else 0

    def seen() -> int | None:
        cursor = read_cursor(load_table(catalog, one.model.name))
        return cursor.upstream.get(one.contract.table) if cursor else None

    def enough(snapshot_id: int | None) -> bool:
        if not behind(catalog, {one.model.name: (one.contract.table,)}):
            return True  # Also where the rows that it has seen are in other files by now.
        snapshot = load_table(catalog, one.contract.table).snapshot_by_id(snapshot_id) if snapshot_id else None
        return snapshot is not None and (snapshot.sequence_number or 0) >= needed

    if not _moves_past(seen, enough):
        raise LakeError(
            one.model.name,
            f"does not take up what {one.contract.table} holds.",
            remedy="Materialize it in Dagster, where you see why; `freshdata up` does it by itself.",
        )
    silver = load_table(catalog, one.model.name)
    cursor = read_cursor(silver)
    bronze = load_table(catalog, one.contract.table)
    return _Seen(silver, bronze, cursor.upstream.get(one.contract.table) if cursor else None)


def _moves_past(look: Callable[[], Any], enough: Callable[[Any], bool]) -> bool:
    """Whether something gets far enough, however long that takes, as long as it moves."""
    before, since = look(), time.monotonic()
    while not enough(before):
        time.sleep(LOOK_SECONDS)
        now = look()
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > PATIENCE_SECONDS:
            return False
    return True


def _compare(
    connection: "psycopg2.extensions.connection", moment: Moment, without: Sequence[str], one: _Captured, seen: "_Seen"
) -> list[Finding]:
    types = column_types(connection, one.table)
    stored = seen.silver.schema().as_arrow().names
    columns = [each for each in one.contract.columns if each.source_name in types and each.name in stored]
    known = {each.source_name for each in columns}
    known |= {name.rpartition(".")[2] for name in without if name.startswith(f"{one.table}.")}
    lacking = [name for name in types if name not in known]
    key = _names(one.contract.primary_key)
    with _database() as database:
        _load(database, "source", columns, read_rows(connection, one.table, columns, types))
        _load(database, "stored", columns, _present(seen.silver, columns))
        _as_of(database, moment, one.contract, columns, seen)
        counts = [database.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in ("source", "stored")]  # noqa: S608

        def finding(check: str, sql: str, compared: int) -> Finding:
            return Finding.of_query(database, one.model.name, f"{check} {one.table}", sql, compared)

        # Names of a contract's columns are identifiers.
        lost = f"SELECT {key} FROM source ANTI JOIN stored USING ({key}) ORDER BY ALL"  # noqa: S608
        extra = f"SELECT {key} FROM stored ANTI JOIN source USING ({key}) ORDER BY ALL"  # noqa: S608
        return [
            finding("has every row of", lost, counts[0]),
            finding("has no row but those of", extra, counts[1]),
            finding("has the values of", _differing(one.contract, columns), counts[0]),
            Finding(one.model.name, f"has every column of {one.table}", len(types), len(lacking), lacking),
        ]


def _differing(contract: Contract, columns: Sequence[Column]) -> str:
    """The rows whose values differ: the key, and of each such column what the source has and what is stored."""
    key = _names(contract.primary_key)
    parts = [
        f"CASE WHEN s.{name} IS DISTINCT FROM t.{name} "
        f"THEN printf('{one.name}: %s, stored %s', coalesce(s.{name}::VARCHAR, 'null'), "
        f"coalesce(t.{name}::VARCHAR, 'null')) END"
        for one in columns
        for name in [f'"{one.name}"']
        if one.name not in contract.primary_key
    ]
    differences = f"concat_ws('; ', {', '.join(parts)})" if parts else "''"
    return (
        f"SELECT * FROM (SELECT {key}, {differences} AS differences FROM source s JOIN stored t USING ({key})) "  # noqa: S608
        "WHERE differences <> '' ORDER BY ALL"
    )


def _present(silver: Table, columns: Sequence[Column]) -> Iterator[pa.Table]:
    """Silver's rows without those that are flagged as deleted."""
    kept = "_is_deleted = false" if "_is_deleted" in silver.schema().as_arrow().names else AlwaysTrue()
    names = [one.name for one in columns]
    for batch in silver.scan(row_filter=kept, selected_fields=tuple(names)).to_arrow_batch_reader():
        yield pa.table(batch).select(names)


def _as_of(
    database: "duckdb.DuckDBPyConnection", moment: Moment, contract: Contract, columns: Sequence[Column], seen: "_Seen"
) -> None:
    """Take the stored rows back to a moment: those that later changes concern are made from the changes before."""
    told = (*contract.primary_key, OPERATION, LSN, TRANSACTION)
    late = seen.bronze.scan(
        f"{CHANGED_AT} >= '{(moment.at - CLOCK).isoformat()}'", selected_fields=told, snapshot_id=seen.snapshot_id
    ).to_arrow()
    unseen = late.filter(pc.invert(moment.saw(late)))
    if not unseen.num_rows:
        return
    names = [one.name for one in columns]
    selected = (*names, OPERATION, LSN, "_offset", UNAVAILABLE, TRANSACTION)
    scan = seen.bronze.scan(selected_fields=selected, snapshot_id=seen.snapshot_id).to_arrow_batch_reader()
    before = (batch.filter(moment.saw(batch)) for batch in scan)
    database.register("unseen", unseen)
    database.register("before", pa.RecordBatchReader.from_batches(scan.schema, before))
    # A truncation concerns every row; in the changes it has no key.
    touched = f"EXISTS (SELECT 1 FROM unseen u WHERE u.{OPERATION} = '{TRUNCATE}' OR {{}})"  # noqa: S608
    same = " AND ".join(f'u."{name}" = r."{name}"' for name in contract.primary_key)
    database.execute(f"DELETE FROM stored r WHERE {touched.format(same)}")  # noqa: S608
    of_them = f"r.{OPERATION} = '{TRUNCATE}' OR {touched.format(same)}"
    database.execute(f"CREATE TEMP TABLE changes AS SELECT * FROM before r WHERE {of_them}")  # noqa: S608
    query = exp.select(*map(column, (*names, OPERATION, LSN, "_offset"))).from_("changes")
    rows = newest(query, contract.primary_key, query.named_selects, [n for n in names if n not in contract.primary_key])
    present = exp.select(*map(column, names)).from_(rows.subquery("r")).where(exp.not_(gone()))
    database.execute(f"INSERT INTO stored {present.sql('duckdb')}")


@dataclass(frozen=True)
class _Seen:
    """A Silver table, and the changes that it has seen.

    Attributes:
        silver: The table.
        bronze: The table that holds them.
        snapshot_id: Its snapshot; None when it has none.
    """

    silver: Table
    bronze: Table
    snapshot_id: int | None


@contextmanager
def _database() -> Iterator["duckdb.DuckDBPyConnection"]:
    """A database for rows that need not fit into memory."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder, duckdb.connect(Path(folder, "rows.duckdb")) as connection:
        for option, value in (("TimeZone", "UTC"), ("memory_limit", MEMORY_LIMIT), ("temp_directory", folder)):
            connection.execute(f"SET {option} = ?", [value])
        yield connection


def _load(
    database: "duckdb.DuckDBPyConnection", name: str, columns: Sequence[Column], parts: Iterable[pa.Table]
) -> None:
    """Put rows, some at a time, into a table."""
    empty = pa.schema([pa.field(one.name, read_type(one.type)) for one in columns]).empty_table()
    database.register("part", empty)
    database.execute(f"CREATE TABLE {name} AS FROM part")  # The two names are those in this module.
    for part in parts:
        database.register("part", part)
        database.execute(f"INSERT INTO {name} FROM part")


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)
