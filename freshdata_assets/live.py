"""What is new: which tables are behind their upstream tables, and which days and hours that touches."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysFalse, And, BooleanExpression, GreaterThanOrEqual, LessThanOrEqual, Or
from pyiceberg.table import Table

from freshdata.intervals import Granularity, ranges
from freshdata.lake.changes import intervals_in, new_rows
from freshdata.lake.cursors import Cursor, behind, read_cursor, upstream_heads
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.upstream import Upstream
from freshdata_assets.platform import Platform


@dataclass(frozen=True)
class News:
    """What a live run would take in.

    Attributes:
        moved: Model that is behind to the upstream tables that moved.
        touched: The days that its daily models would touch, and the hours that its hourly ones would; None when that
            cannot be told.
    """

    moved: dict[str, tuple[str, ...]]
    touched: Mapping[Granularity, frozenset[date] | None]


def up_to_date(catalog: Catalog, model: ModelInfo) -> bool:
    """Whether a model's table has seen all of its upstream tables, with today's code."""
    try:
        cursor = read_cursor(catalog.load_table(model.name))
    except NoSuchTableError:
        return False
    return cursor == Cursor.at(upstream_heads(catalog, model.depends_on, cursor), model.code_version)


def news(platform: Platform, catalog: Catalog, models: Iterable[ModelInfo]) -> News:
    """What the upstream tables of some models gained that the models have not seen."""
    chosen = {model.name: model for model in models}
    upstream = Upstream(catalog, platform.models, platform.contracts)
    intervals: dict[Granularity, frozenset[date] | None] = {"hour": frozenset(), "day": frozenset()}
    found: dict[str, tuple[str, ...]] = {}
    for name, heads in behind(catalog, {name: model.depends_on for name, model in chosen.items()}).items():
        touched = _touched(catalog, upstream, chosen[name], tuple(heads))
        if touched == set():
            continue  # An upstream snapshot without rows (a batch of duplicates) is no news.
        found[name] = tuple(heads)
        if granularity := chosen[name].granularity:
            known = intervals[granularity]
            intervals[granularity] = None if known is None or touched is None else known | touched
    return News(found, intervals)


def _touched(
    catalog: Catalog, upstream: Upstream, model: ModelInfo, moved: tuple[str, ...]
) -> AbstractSet[date] | None:
    if model.partition_column is None:
        return None
    cursor = read_cursor(catalog.load_table(model.name)) if catalog.table_exists(model.name) else None
    if cursor is not None:
        # Changed code alone starts no run: with the next news everything is rebuilt.
        touched = upstream.pending(model, replace(cursor, fingerprint=model.code_version)).dates
        if touched is not None or model.granularity != "hour":
            return touched
        moved = model.depends_on  # There are too many hours to report on those without a row.
    found: set[date] = set()
    for name in moved:
        column = upstream.time_column(name, model)
        if column is None:
            return None
        for batch in new_rows(catalog.load_table(name), None, (column,)):
            found |= intervals_in(batch.column(column))
    return model.period.touched(found)


def row_counts(table: Table, column: str, intervals: Iterable[date]) -> dict[date, int]:
    """Rows of each of some days or hours; reads one column of these only."""
    counts = dict.fromkeys(intervals, 0)
    if counts:
        scan = table.scan(row_filter=_within(column, ranges(counts)), selected_fields=(column,))
        for batch in scan.to_arrow_batch_reader():
            for entry in pc.value_counts(batch.column(column)).to_pylist():
                counts[entry["values"]] += entry["counts"]
    return counts


def rows_of_days(table: Table, model: ModelInfo, days: Iterable[date] | None, fields: Iterable[str]) -> pa.Table:
    """Rows of a model's table, of some days or of all when ``days`` is None, with those of some columns that it has."""
    selected = tuple(name for name in fields if name in table.schema().column_names)
    if days is None:
        return table.scan(selected_fields=selected).to_arrow()
    wanted = [model.period.whole(*pair) for pair in ranges(days)]
    if not wanted:
        return table.schema().select(*selected).as_arrow().empty_table()
    return table.scan(row_filter=_within(str(model.partition_column), wanted), selected_fields=selected).to_arrow()


def _within(column: str, pairs: Iterable[tuple[date, date]]) -> BooleanExpression:
    """That a column lies in one of some ranges of days or hours, inclusive."""
    each = (
        And(GreaterThanOrEqual(column, first.isoformat()), LessThanOrEqual(column, last.isoformat()))  # type: ignore[call-arg]
        for first, last in pairs
    )
    return Or(AlwaysFalse(), AlwaysFalse(), *each)  # Three or more make a balanced tree.
