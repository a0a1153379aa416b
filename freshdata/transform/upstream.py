"""What the tables that a model reads hold that the model has not seen."""

from collections.abc import Mapping
from datetime import date

from pyiceberg.catalog import Catalog

from freshdata.contracts import Contract
from freshdata.contracts.capture import OPERATION, TRUNCATE
from freshdata.lake.catalog import load_table
from freshdata.lake.changes import (
    appended_since,
    appends_only,
    intervals_in,
    intervals_in_files,
    is_ancestor,
    new_rows,
    touched_dates,
    was_rolled_back,
)
from freshdata.lake.cursors import Cursor, Mark, upstream_heads
from freshdata.transform.manifest import ModelInfo, sources
from freshdata.transform.results import Pending

DIMENSION_KIND, ROWS_KIND = "scd2", "current_rows"
# Tables without days of which the rows of some keys can be made anew.
KEYED_KINDS = frozenset((DIMENSION_KIND, ROWS_KIND))


class Upstream:
    """Follows the tables that models read.

    Args:
        catalog: The catalog.
        models: The models by name.
        contracts: The contracts by name.
    """

    def __init__(self, catalog: Catalog, models: Mapping[str, ModelInfo], contracts: Mapping[str, Contract]) -> None:
        self._catalog = catalog
        self._models = models
        self._streams = {contract.table: contract.stream for contract in contracts.values() if contract.stream}

    def pending(self, model: ModelInfo, seen: Cursor | None) -> Pending:
        """What a live run of a model would do now.

        Args:
            model: The model.
            seen: The cursor of its table.
        """
        # The heads are read before any row is: what is appended in between is read twice, never missed.
        cursor = Cursor.at(upstream_heads(self._catalog, model.depends_on, seen), model.code_version)
        if seen == cursor:
            return Pending(behind=False, dates=frozenset(), note="", cursor=cursor)
        if seen is None:
            return Pending(behind=True, dates=None, note="first run: everything is new", cursor=cursor)
        if seen.fingerprint != model.code_version:
            note = "the model's code has changed: everything is rebuilt"
            return Pending(behind=True, dates=None, note=note, cursor=cursor)
        if model.partition_column is None:
            if model.kind not in KEYED_KINDS:
                return Pending(behind=True, dates=None, note="", cursor=cursor)
            # Made anew for the keys of the new rows, which must be all that is new, and come from one table.
            reasons = [self._beyond_appends(name, seen.upstream.get(name)) for name in model.depends_on]
            reason = "it reads several tables" if len(reasons) > 1 else "".join(reasons)
            if not reason and model.kind == DIMENSION_KIND:
                (name,) = model.depends_on
                reason = self._truncated(name, seen.upstream[name])
            note = f"{reason}: everything is rebuilt" if reason else ""
            return Pending(behind=True, dates=None, note=note, cursor=cursor, keyed=not reason)
        return self._moved(model, seen, cursor)

    def time_column(self, table: str, model: ModelInfo) -> str | None:
        """The column by which a model finds the days or hours of a table's rows, or None when they have none."""
        if table in self._models:
            return self._models[table].partition_column
        if table not in self._streams:
            return None
        rules = self._streams[table]
        return rules.event_time_field if model.granularity == "hour" else rules.event_date_field

    def tenant_column(self, model: ModelInfo) -> str | None:
        """The column that names the tenant a model's row belongs to, or None when its rows are made from several's."""
        fields = {self._streams[name].tenant_field for name in sources(self._models, model) if name in self._streams}
        (field,) = fields if len(fields) == 1 else (None,)
        return field if field in model.columns else None

    def _moved(self, model: ModelInfo, seen: Cursor, cursor: Cursor) -> Pending:
        dates: set[date] = set()
        notes: list[str] = []
        whole = False
        for name in model.depends_on:
            if cursor.upstream.get(name) == seen.upstream.get(name):
                continue
            touched, note = self._touched(model, name, seen.upstream.get(name), seen.marks.get(name))
            if touched is None:
                return Pending(behind=True, dates=None, note=f"{note}: everything is rebuilt", cursor=cursor)
            dates |= self._models[name].period.touched(touched) if name in self._models else touched
            whole = whole or bool(self._beyond_appends(name, seen.upstream.get(name)))
            if note:
                notes.append(f"{note}: the {model.granularity or 'day'}s of its new files are rebuilt")
        note = "; ".join(notes)
        dates = model.period.touched(dates)
        return Pending(behind=True, dates=frozenset(dates), note=note, cursor=cursor, whole_days=whole)

    def _beyond_appends(self, name: str, after: int | None) -> str:
        """Why the rows added to a table since a snapshot are not all that happened; an empty string when they are."""
        table = load_table(self._catalog, name)
        if after is None:
            return f"{name} has its first rows"
        if not is_ancestor(table, after):
            return f"the snapshot of {name} seen last has expired or was rolled back"
        return "" if appends_only(table, after) else f"rows of {name} were changed or deleted"

    def _truncated(self, name: str, after: int) -> str:
        """Why the new changes of a table concern keys that they do not name; an empty string when they do not."""
        stream = self._streams.get(name)
        if stream is None or stream.capture is None:
            return ""
        operations = new_rows(load_table(self._catalog, name), after, (OPERATION,)).read_all()[OPERATION]
        return f"{stream.capture.table} was truncated" if TRUNCATE in operations.unique().to_pylist() else ""

    def _touched(
        self, model: ModelInfo, name: str, after: int | None, mark: Mark | None
    ) -> tuple[set[date] | None, str]:
        """The days or hours that an upstream table's changes since a snapshot concern; None when it cannot be told.

        Returns:
            The days or hours, and what is out of the ordinary, or an empty string.
        """
        table, column = load_table(self._catalog, name), self.time_column(name, model)
        if after is None:
            return None, f"{name} has its first rows"
        if column is None:
            return None, f"{name} has changed, and it has no days"
        if not is_ancestor(table, after):
            gone = f"the snapshot of {name} seen last has expired or was rolled back"
            files = appended_since(table, mark) if mark and not was_rolled_back(table, mark) else None
            return (None if files is None else intervals_in_files(table, files, column)), gone
        if (touched := touched_dates(table, column, after)) is not None:
            return touched, ""
        if not appends_only(table, after):
            return None, f"rows of {name} were changed or deleted"
        return {one for batch in new_rows(table, after, (column,)) for one in intervals_in(batch.column(0))}, ""
