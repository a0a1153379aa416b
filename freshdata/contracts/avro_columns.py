"""Read Avro payloads of one schema into columns at once, faster than record by record.

As the parser of JSON it is sound, not complete: what it takes the row decoder takes too, with equal values; what it is
not sure of it leaves to the row decoder. What costs is Python's object for each date and time: here they stay the
numbers that they are written as, until Arrow has them.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from freshdata.contracts.columnar import ColumnarParser, Mask, outside_calendar
from freshdata.contracts.model import Column, Contract
from freshdata.registry.schemas import Schema, avro_reader

UTC, LOCAL = pa.timestamp("us", "UTC"), pa.timestamp("us")
# Column type to the Avro types, with what they mean, that are written as it, and how Arrow reads those.
READS: dict[pa.DataType, dict[tuple[str, str | None], pa.DataType]] = {
    pa.string(): {("string", None): pa.string(), ("string", "uuid"): pa.string(), ("enum", None): pa.string()},
    pa.int32(): {("int", None): pa.int64()},
    pa.int64(): {("int", None): pa.int64(), ("long", None): pa.int64()},
    pa.float64(): {("float", None): pa.float64(), ("double", None): pa.float64()},
    pa.bool_(): {("boolean", None): pa.bool_()},
    pa.date32(): {("int", "date"): pa.date32()},
    UTC: {
        ("long", f"timestamp-{unit}s"): pa.timestamp(short, "UTC") for unit, short in (("milli", "ms"), ("micro", "us"))
    },
    LOCAL: {
        ("long", f"local-timestamp-{unit}s"): pa.timestamp(short) for unit, short in (("milli", "ms"), ("micro", "us"))
    },
}


class AvroColumns:
    """Reads payloads of one schema; none at all when its fields are written otherwise than the contract's columns."""

    def __init__(self, contract: Contract, parser: ColumnarParser | None, schema: Schema) -> None:
        self._contract = contract
        self._parser = parser
        self._types = _types(contract, schema) if parser else None
        self._read = avro_reader(schema, logical=False)

    def __call__(self, payloads: Sequence[bytes | None]) -> tuple[pa.Table, Mask] | None:
        """Read payloads.

        Args:
            payloads: At least one.

        Returns:
            The contract's columns for those that certainly fulfil it, and which of them those are; None when some
            cannot be read.
        """
        if self._parser is None or self._types is None:
            return None
        try:
            records = list(map(self._read, payloads))  # type: ignore[arg-type]  # Named schemas have payloads.
            good = np.ones(len(records), dtype=np.bool_)
            columns = [self._column(column, records, good) for column in self._contract.columns]
            if self._parser.keeps_unknown:
                columns.append(pa.chunked_array([pa.nulls(len(records), pa.string())]))
            rows = pa.table(columns, self._contract.arrow_schema.names)
            rows = rows if good.all() else rows.filter(pa.array(good))
            return rows.cast(self._contract.arrow_schema), good
        except (ValueError, pa.ArrowException, OverflowError):
            return None

    def _column(self, column: Column, records: list[dict[str, Any]], good: Mask) -> pa.ChunkedArray:
        name = column.source_name
        kind = (self._types or {}).get(name)
        if kind is None:
            return pa.chunked_array([pa.nulls(len(records), column.type)])
        values = pa.chunked_array([pa.array([record[name] for record in records], kind)])
        if not pa.types.is_temporal(column.type):
            return self._parser.checked(values, column, good)  # type: ignore[union-attr]  # Asked before.
        if column.required and values.null_count:
            good &= ~pc.is_null(values).to_numpy(zero_copy_only=False)
        values = values.cast(column.type)
        good &= ~outside_calendar(values)
        return values


def _types(contract: Contract, schema: Schema) -> dict[str, pa.DataType] | None:
    """How Arrow reads each of a schema's fields; None when one is another than the contract's, or one is required."""
    document = json.loads(schema.text)
    columns = {column.source_name: column for column in contract.columns}
    found: dict[str, pa.DataType] = {}
    fields = document.get("fields") if isinstance(document, dict) and document.get("type") == "record" else None
    for field in fields or []:
        column = columns.get(field["name"])
        if column is None and contract.rules.unknown_fields == "ignore" and field["name"] not in _older_names(contract):
            continue
        if column is None or (kind := READS.get(column.type, {}).get(_written(field["type"]))) is None:
            return None
        found[field["name"]] = kind
    lacking = any(column.required for name, column in columns.items() if name not in found)
    return None if lacking or not found else found


def _older_names(contract: Contract) -> set[str]:
    return {alias for column in contract.columns for alias in column.aliases}


def _written(kind: Any) -> tuple[str, str | None]:
    """A field's Avro type, null left out, and what it means."""
    if isinstance(kind, list):
        rest = [part for part in kind if part != "null"]
        kind = rest[0] if len(rest) == 1 else "union"
    if isinstance(kind, dict):
        return str(kind.get("type")), kind.get("logicalType")
    return str(kind), None
