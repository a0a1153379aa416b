"""Look for a person in every file of the lake: what any snapshot reaches, and what else lies in the tables' folders."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from freshdata.lake.maintenance import tables
from freshdata.lake.orphans import files_in, plain_path, referred_files

BOUND = 16  # Characters that Iceberg keeps of a text's bounds.


@dataclass(frozen=True)
class Traces:
    """What a person leaves in a table.

    Attributes:
        tenant: The tenant.
        tenants: Columns that name it.
        subjects: Columns that name the person.
        values: What stands for the person there: as it was sent, hashed, and as a token.
        made: Those of them that stand for nobody else, wherever they are.
        named_in: Whether the bytes of a rejected event name the person; None where there are none.
        before: Whom the rows before some changes were about; None where there are no changes.
    """

    tenant: str
    tenants: frozenset[str]
    subjects: frozenset[str]
    values: frozenset[str]
    made: frozenset[str]
    named_in: Callable[[bytes | None], bool] | None = None
    before: Callable[[pa.Table], pa.Array] | None = None

    def in_rows(self, rows: pa.Table) -> pa.Array:
        """Which rows are about the person, or were before a change."""
        if self.before is None:
            return self.about(rows)
        was = pc.is_in(self.before(rows), pa.array(sorted(self.values), pa.string()))
        return pc.or_(self.about(rows), self._of_tenant(rows, was))

    def about(self, rows: pa.Table) -> pa.Array:
        """Which rows are about the person."""
        found = pa.array([False] * len(rows))
        for name in rows.column_names:
            column = rows[name].combine_chunks()
            if self.named_in and name in ("key", "payload"):
                found = pc.or_(found, pa.array(map(self.named_in, column.to_pylist()), pa.bool_()))
            elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or name in self.subjects:
                wanted = self.values if name in self.subjects else self.made
                same = pc.is_in(column.cast(pa.string()), pa.array(sorted(wanted), pa.string()))
                found = pc.or_(found, same)
        return self._of_tenant(rows, found)

    def _of_tenant(self, rows: pa.Table, found: pa.Array) -> pa.Array:
        for name in self.tenants & set(rows.column_names):
            other = pc.not_equal(rows[name].combine_chunks().cast(pa.string()), self.tenant)
            found = pc.and_(found, pc.invert(pc.fill_null(other, fill_value=False)))
        return found


@dataclass
class TableProof:
    """What was looked at of a table.

    Attributes:
        table: Its name.
        snapshots: Snapshots.
        data_files: Data and delete files read.
        metadata_files: Manifests, manifest lists and metadata files read.
        unreferenced: How many of all of these no snapshot reaches.
        found: The files with a trace.
    """

    table: str
    snapshots: int
    data_files: int = 0
    metadata_files: int = 0
    unreferenced: int = 0
    found: list[str] = field(default_factory=list)


def prove(catalog: Catalog, traces: Callable[[str], Traces]) -> Iterator[TableProof]:
    """Look for a person in each table of the lake, for what it may hold."""
    for name in sorted(tables(catalog)):
        try:
            table = catalog.load_table(name)
        except NoSuchTableError:
            continue  # Dropped since it was listed.
        yield prove_table(table, traces(name))


def prove_table(table: Table, traces: Traces) -> TableProof:
    """Look for a person in one table."""
    io = PyArrowFileIO(table.io.properties)
    scheme, host, _ = io.parse_location(table.location())
    store = io.fs_by_scheme(scheme, host)
    reached = set(referred_files(table, data=True))
    proof = TableProof(".".join(table.name()), len(table.snapshots()))
    for path in sorted(reached | files_in(table).keys()):
        try:
            traced = _traced(store, path, traces)
        except FileNotFoundError:
            continue  # A writer's commit or maintenance has removed it meanwhile; or the table's own log names it.
        if path.endswith(".parquet"):
            proof.data_files += 1
        else:
            proof.metadata_files += 1
        proof.unreferenced += path not in reached
        if traced:
            proof.found.append(path)
    return proof


def _traced(store: FileSystem, path: str, traces: Traces) -> bool:
    with store.open_input_file(path) as file:
        if path.endswith(".parquet"):
            rows = pq.ParquetFile(file)
            return any(pc.any(traces.in_rows(pa.Table.from_batches([batch]))).as_py() for batch in rows.iter_batches())
        content = file.read()
    if path.endswith(".avro"):
        return any(_in_entry(store, record, traces) for record in fastavro.reader(pa.BufferReader(content)))
    return any(f'"{value}"'.encode() in content for value in traces.made)


def _in_entry(store: FileSystem, record: object, traces: Traces) -> bool:
    """Whether a manifest still says of a file that is gone what its columns went from and to."""
    described = record.get("data_file") if isinstance(record, dict) else None
    if not described or store.get_file_info(plain_path(described["file_path"])).is_file:
        return False  # The file itself is looked at.
    wanted = {value[:BOUND].encode() for value in (traces.values if traces.subjects else traces.made)}
    bounds = [*(described.get("lower_bounds") or ()), *(described.get("upper_bounds") or ())]
    return any(bound["value"][:BOUND] in wanted for bound in bounds)
