"""What is new: which tables are behind their upstream tables, and which days that touches."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import In
from pyiceberg.table import Table

from freshdata.lake.changes import new_rows
from freshdata.lake.cursors import Cursor, behind, read_cursor, upstream_heads
from freshdata.transform.manifest import ModelInfo
from freshdata.transform.upstream import Upstream
from freshdata_assets.platform import Platform


@dataclass(frozen=True)
class News:
    """What a live run would take in.

    Attributes:
        moved: Model that is behind to the upstream tables that moved.
        days: The days its daily models would touch; None when that cannot be told.
    """

    moved: dict[str, tuple[str, ...]]
    days: frozenset[date] | None


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
    days: set[date] | None = set()
    found: dict[str, tuple[str, ...]] = {}
    for name, heads in behind(catalog, {name: model.depends_on for name, model in chosen.items()}).items():
        touched = _touched(catalog, upstream, chosen[name], tuple(heads))
        if touched == set():
            continue  # An upstream snapshot without rows (a batch of duplicates) is no news.
        found[name] = tuple(heads)
        if chosen[name].daily:
            days = None if days is None or touched is None else days | touched
    return News(found, frozenset(days) if days is not None else None)


def _touched(
    catalog: Catalog, upstream: Upstream, model: ModelInfo, moved: tuple[str, ...]
) -> AbstractSet[date] | None:
    if model.partition_column is None:
        return None
    cursor = read_cursor(catalog.load_table(model.name)) if catalog.table_exists(model.name) else None
    if cursor is not None:
        # Changed code alone starts no run: with the next news everything is rebuilt.
        return upstream.pending(model, replace(cursor, fingerprint=model.code_version)).dates
    days: set[date] = set()
    for name in moved:
        column = upstream.date_column(name)
        if column is None:
            return None
        days |= event_dates(catalog.load_table(name), column)
    return model.period.touched(days)


def event_dates(table: Table, column: str) -> set[date]:
    """The distinct values of a date column; reads that one column."""
    days: set[date] = set()
    for batch in new_rows(table, None, (column,)):
        days.update(pc.unique(batch.column(column)).to_pylist())
    return days


def row_counts(table: Table, column: str, days: Iterable[date]) -> dict[date, int]:
    """Rows of each of some days; reads one column of these days only."""
    counts = dict.fromkeys(days, 0)
    if counts:
        scan = table.scan(
            row_filter=In(column, set(counts)),  # type: ignore[call-arg]
            selected_fields=(column,),
        )
        for batch in scan.to_arrow_batch_reader():
            for entry in pc.value_counts(batch.column(column)).to_pylist():
                counts[entry["values"]] += entry["counts"]
    return counts


def rows_of_days(table: Table, column: str, days: Iterable[date] | None, fields: Iterable[str]) -> pa.Table:
    """Rows of some days, or of all when ``days`` is None, with those of the wanted columns that the table has."""
    selected = tuple(name for name in fields if name in table.schema().column_names)
    if days is None:
        return table.scan(selected_fields=selected).to_arrow()
    wanted = list(days)
    if not wanted:
        return table.schema().select(*selected).as_arrow().empty_table()
    return table.scan(
        row_filter=In(column, set(wanted)),  # type: ignore[call-arg]
        selected_fields=selected,
    ).to_arrow()
