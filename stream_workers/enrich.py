"""Add lookup columns to rows; an event whose key has no match gets null, and is counted, never lost.

Of a lookup whose rows are valid for a time, an event gets the row that was valid at its own event time.
"""

import logging
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from freshdata.contracts import Contract, Enrichment
from freshdata.errors import LakeError

Integers = npt.NDArray[np.int64]

# Arrow's index_in hashes the lookup at every call: 1 to 2 µs an event at 100,000 keys, where a dictionary that is made
# once takes 0.03 to 0.8, by how many keys of the events are distinct. Up to this size Arrow's takes at most 0.2.
HASHED_EACH_TIME = 16_384  # keys
STALE_SECONDS = 2.0  # A batch that begins later than this after the last refresh begins with one.
NEVER = np.iinfo(np.int64).max

logger = logging.getLogger(__name__)


class Enricher:
    """Joins the lookups that a contract names, and follows their tables as they change.

    They change between two commits only: after one, or when the next batch begins after a silence. All events of a
    commit have seen the same lookups.
    """

    def __init__(self, catalog: Catalog, contract: Contract, contracts: dict[str, Contract]) -> None:
        self._catalog = catalog
        self._contracts = contracts
        self._enrichments = contract.rules.enrichments
        self._time = contract.rules.event_time_field
        self._columns: dict[str, dict[str, None]] = {}
        for enrichment in self._enrichments:
            self._columns.setdefault(enrichment.lookup, {}).update(dict.fromkeys(enrichment.columns))
        self._lookups: dict[str, _Lookup] = {}
        self._used: dict[str, _Lookup] = {}
        self._refreshed = 0.0
        self._batch_is_open = False

    def refresh(self) -> None:
        """Read again the lookups whose table has a new snapshot; a table that is gone has no rows.

        To be called at the start and after each commit. What fails is logged, and the rows that are there stay in use:
        no trouble with a lookup may make a commit that has succeeded look as if it had failed.

        Raises:
            LakeError: a table does not fit its contract, and has not been read before. So do the catalog's and the
                warehouse's own errors surface at the first time, and only then.
        """
        self._refreshed, self._batch_is_open = time.monotonic(), False
        self._used = dict(self._lookups)
        for name in self._columns:
            try:
                self._refresh(self._contracts[name])
            except Exception as error:
                if name not in self._lookups:
                    raise
                logger.warning("lookup not refreshed table=%s error=%r", self._contracts[name].table, error)

    def dropped(self) -> None:
        """The open batch was given up: the next one may see newer lookups."""
        self._batch_is_open = False

    def _refresh(self, contract: Contract) -> None:
        known = self._lookups.get(contract.name)
        schema = self._schema(contract)
        try:
            table = self._catalog.load_table(contract.table)
        except NoSuchTableError:
            if known is None or known.exists:
                logger.warning("lookup missing table=%s: its columns are null until it is there", contract.table)
                self._lookups[contract.name] = _Lookup(contract, schema.empty_table(), None, exists=False)
            return
        snapshot = table.current_snapshot()
        version = snapshot.snapshot_id if snapshot else None
        if known and known.exists and known.version == version:
            return
        try:
            rows = table.scan(selected_fields=tuple(schema.names)).to_arrow().select(schema.names).cast(schema)
        except (ValueError, KeyError) as error:  # Arrow's errors are ValueErrors.
            raise LakeError(
                contract.table,
                f"does not fit its contract: {error}.",
                remedy=f"Write {', '.join(schema.names)} to it with the types and the required fields of its contract.",
            ) from error
        self._lookups[contract.name] = lookup = _Lookup(contract, rows, version)
        logger.info("lookup table=%s rows=%d snapshot=%s", contract.table, lookup.rows.num_rows, version)

    def _schema(self, contract: Contract) -> pa.Schema:
        """What is read of a lookup: its key, when its rows are valid, and the columns asked for."""
        valid = contract.validity
        names = [contract.primary_key[0], *((valid.begin, valid.end) if valid else ()), *self._columns[contract.name]]
        return pa.schema([contract.arrow_schema.field(name) for name in dict.fromkeys(filter(None, names))])

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The rows with the enrichment columns appended."""
        if not self._batch_is_open and time.monotonic() - self._refreshed > STALE_SECONDS:
            self.refresh()
        self._batch_is_open = True
        for enrichment in self._enrichments:
            lookup = self._lookups[enrichment.lookup]
            match = lookup.find(rows[enrichment.key], rows[self._time])
            for column, name in enrichment.columns.items():
                rows = rows.append_column(name, lookup.rows[column].take(match))
        return rows

    def misses(
        self, tables: Sequence[pa.Table], admitted: Sequence[npt.NDArray[np.bool_]]
    ) -> dict[tuple[str, str], int]:
        """How many events of the batch that has just been committed have a key that its lookup did not hold.

        An event without a key misses nothing. To be called after the :meth:`refresh` that followed the commit.

        Args:
            tables: Tables of the batch's enriched rows.
            admitted: Which rows of each table were committed.

        Returns:
            Lookup and key column to the number of events.
        """
        counts = {(enrichment.lookup, enrichment.key): 0 for enrichment in self._enrichments}
        for enrichment in self._enrichments:
            for rows, kept in zip(tables, admitted, strict=True):
                counts[enrichment.lookup, enrichment.key] += self._missed(enrichment, rows, kept)
        return counts

    def _missed(self, enrichment: Enrichment, rows: pa.Table, kept: npt.NDArray[np.bool_]) -> int:
        names = list(enrichment.columns.values())
        if not {enrichment.key, *names} <= set(rows.column_names):
            return 0  # Taken before the contract had this enrichment.
        added = [rows[name] for name in names]
        if not all(column.null_count for column in added):
            return 0
        # A null may have come from the lookup, too: such rows, mostly few, are looked up once more.
        doubtful = pc.and_(pa.array(kept), pc.is_valid(rows[enrichment.key]))
        for column in added:
            doubtful = pc.and_(doubtful, pc.is_null(column))
        rows = rows.select([enrichment.key, self._time]).filter(doubtful)
        lookup = self._used.get(enrichment.lookup, self._lookups[enrichment.lookup])
        return int(lookup.find(rows[enrichment.key], rows[self._time]).null_count)


class _Lookup:
    """The rows of a lookup in one version of its table, ready to be searched.

    There is one row for each key, or for each key and begin of validity. Of several the greatest counts, by the end of
    validity (an open one is the last) and then the columns: so it does not depend on how the table's files lie.

    Attributes:
        rows: The rows that count, sorted by key and begin of validity.
        version: Snapshot they come from; None when there is none.
        exists: Whether there is a table.
    """

    def __init__(self, contract: Contract, rows: pa.Table, version: int | None, *, exists: bool = True) -> None:
        self.version = version
        self.exists = exists
        key, valid = contract.primary_key[0], contract.validity
        if valid and valid.end:
            # A row that ends when it begins was never valid.
            rows = rows.filter(pc.fill_null(pc.less(rows[valid.begin], rows[valid.end]), fill_value=True))
        names = [key, *((valid.begin, valid.end) if valid else ()), *rows.schema.names]
        rows = rows.take(
            pc.sort_indices(rows, sort_keys=[(n, "ascending") for n in dict.fromkeys(filter(None, names))])
        )
        new_key = _changes(rows[key])
        last = np.append((new_key | _changes(rows[valid.begin]) if valid else new_key)[1:], True)[: rows.num_rows]
        if not last.all():
            logger.warning(
                "lookup table=%s has several rows for one key: %d are left out", contract.table, int((~last).sum())
            )
        rows, codes = rows.filter(pa.array(last)), np.cumsum(new_key)[last] - 1
        self.rows = rows.combine_chunks()
        first = _changes(self.rows[key])
        self._keys = pa.concat_arrays(self.rows[key].filter(pa.array(first)).chunks or [pa.array([], rows[key].type)])
        large = len(self._keys) > HASHED_EACH_TIME
        self._places = {value: place for place, value in enumerate(self._keys.to_pylist())} if large else None
        self._timeline = None
        if valid:
            end = _microseconds(self.rows[valid.end]) if valid.end else np.full(len(codes), NEVER)
            self._timeline = _Timeline(codes, _microseconds(self.rows[valid.begin]), end)

    def find(self, keys: pa.ChunkedArray, times: pa.ChunkedArray) -> pa.Array:
        """The row of each key that was valid at the time (UTC), null where there is none."""
        if self._places is None:
            codes = pc.index_in(keys, value_set=self._keys)
        else:
            encoded = keys.combine_chunks().dictionary_encode()
            # Each distinct key once.
            places = [self._places.get(key) for key in encoded.dictionary.to_pylist()]
            codes = pa.array(places, pa.int32()).take(encoded.indices)
        return codes if self._timeline is None else self._timeline.find(codes, _microseconds(times))


class _Timeline:
    """Which row of a key is valid when: the last that has begun, if it has not ended.

    A row so ends where the next of its key begins, at the latest.

    Args:
        codes: Number of each row's key, ascending.
        begins: When each row becomes valid, in microseconds, ascending for each key.
        ends: When it is no longer valid.
    """

    def __init__(self, codes: Integers, begins: Integers, ends: Integers) -> None:
        self._codes = codes
        self._ends = ends
        # Key and time do not fit into one number, key and rank of the time do: one binary search finds both.
        self._moments = np.unique(begins)
        self._places = self._place(codes, begins)

    def _place(self, codes: Integers, times: Integers) -> Integers:
        return codes * (len(self._moments) + 1) + np.searchsorted(self._moments, times, side="right")

    def find(self, codes: pa.Array, times: Integers) -> pa.Array:
        """The row of each key number (null: unknown key) at a time in microseconds, null where there is none."""
        if not len(self._codes):
            return pa.nulls(len(times), pa.int64())
        mine: Integers = pc.fill_null(codes.cast(pa.int64()), -1).to_numpy()
        rows = np.searchsorted(self._places, self._place(mine, times), side="right") - 1
        valid = (rows >= 0) & (self._codes[rows] == mine) & (times < self._ends[rows])
        return pa.array(rows, mask=~valid)


def _changes(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Where a sorted column has another value than the row before."""
    changes = np.ones(len(column), dtype=np.bool_)
    if len(column):
        changes[1:] = pc.not_equal(column[1:], column[:-1]).to_numpy()
    return changes


def _microseconds(moments: pa.ChunkedArray) -> Integers:
    """Timestamps or dates (their midnight UTC) since the epoch; null is never."""
    if not pa.types.is_timestamp(moments.type):
        moments = moments.cast(pa.timestamp("us"))
    numbers: Integers = pc.fill_null(moments.cast(pa.int64()), NEVER).to_numpy()
    return numbers
