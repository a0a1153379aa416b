"""Read when each tenant's events came in: from the data files' bounds, else from three columns, once for each file."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table
from pyiceberg.types import DateType, IntegerType, LongType, PrimitiveType, StringType, TimestamptzType
from pyiceberg.utils.datetime import micros_to_timestamptz

from freshdata.contracts import Contract
from freshdata.errors import LakeError
from freshdata.freshness.judge import Arrival
from freshdata.lake.changes import EPOCH


class DataFiles:
    """What data files hold, kept from one look to the next: a file never changes.

    An event that a delete file or a newer version has taken away counts all the same: it came in.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[str, tuple[Arrival, ...]]] = {}

    def recent(self, table: Table, contract: Contract, since: datetime) -> list[Arrival]:
        """What a table holds of the time since a moment, and what else is in the same files.

        Args:
            table: The stream's Bronze or Silver table.
            contract: The stream's contract.
            since: The moment.

        Raises:
            LakeError: the table has no tenant or no event time.
        """
        time = contract.rules.event_time_field
        for column in (contract.rules.tenant_field, time):
            if column not in table.schema().column_names:
                raise LakeError(
                    ".".join(table.name()),
                    f"lacks the column {column}, by which its freshness is judged.",
                    remedy="Select it in the model.",
                )
        # A Silver model may have cast the zone away; then every file is looked at.
        zoned = isinstance(table.schema().find_field(time).field_type, TimestamptzType)
        scan = table.scan(row_filter=f"{time} >= '{since.isoformat()}'" if zoned else AlwaysTrue())
        return self.of(table, contract, [task.file for task in scan.plan_files()])

    def of(self, table: Table, contract: Contract, files: Iterable[DataFile]) -> list[Arrival]:
        """What some of a table's files hold; what is known of its others is forgotten.

        Args:
            table: The stream's Bronze or Silver table.
            contract: The stream's contract.
            files: The files.
        """
        name = ".".join(table.name())
        known = self._known.setdefault(name, {})
        found: dict[str, tuple[Arrival, ...]] = {}
        for file in files:
            if file.file_path not in known:
                # Kept at once: a look that is cut off has not been in vain.
                known[file.file_path] = _by_bounds(table, contract, file) or _by_rows(table, contract, file)
            found[file.file_path] = known[file.file_path]
        self._known[name] = found
        return [arrival for arrivals in found.values() for arrival in arrivals]


def _by_bounds(table: Table, contract: Contract, file: DataFile) -> tuple[Arrival, ...]:
    """What a file of one tenant and one day holds, by its statistics; nothing when it is of several."""
    rules = contract.rules
    tenants = _bounds(table, file, rules.tenant_field, StringType, IntegerType, LongType)
    days = _bounds(table, file, rules.event_date_field, DateType)
    times = _bounds(table, file, rules.event_time_field, TimestamptzType)
    # Bounds of long text are cut off, the upper one's last character raised: such are never equal.
    if len(set(tenants)) != 1 or len(set(days)) != 1 or not times:
        return ()
    first, last = (micros_to_timestamptz(value) for value in times)
    return (Arrival(str(tenants[0]), EPOCH + timedelta(days=days[0]), first, last),)


def _bounds(table: Table, file: DataFile, column: str, *kinds: type[PrimitiveType]) -> list[Any]:
    """The least and the greatest value of a column; nothing when the file does not say, or the type is another."""
    field = table.schema().find_field(column) if column in table.schema().column_names else None
    if field is None or not isinstance(field.field_type, kinds):
        return []
    values = [(bounds or {}).get(field.field_id) for bounds in (file.lower_bounds, file.upper_bounds)]
    return [from_bytes(field.field_type, value) for value in values if value is not None] if None not in values else []


def _by_rows(table: Table, contract: Contract, file: DataFile) -> tuple[Arrival, ...]:
    rules = contract.rules
    # A Silver model may leave the event date out.
    named = [name for name in (rules.event_date_field,) if name in table.schema().column_names]
    columns = table.schema().select(rules.tenant_field, rules.event_time_field, *named)
    rows = ArrowScan(table.metadata, table.io, columns, AlwaysTrue()).to_table([FileScanTask(file)])
    times = pc.cast(rows[rules.event_time_field], pa.timestamp("us", "UTC"))
    days = rows[rules.event_date_field] if named else pc.cast(times, pa.date32())
    grouped = (
        pa.table({"tenant": rows[rules.tenant_field], "day": days, "time": times})
        .drop_null()
        .group_by(["tenant", "day"])
        .aggregate([("time", "min"), ("time", "max")])
    )
    values: Iterable[tuple[Any, date, datetime, datetime]] = zip(
        *(grouped[name].to_pylist() for name in ("tenant", "day", "time_min", "time_max")), strict=True
    )
    return tuple(Arrival(str(tenant), day, first, last) for tenant, day, first, last in values)
