"""A contract's events as an Avro schema: what producers write them by, and a registry compares.

What Avro has no words for (limits, patterns, unknown fields, enums of anything but names) the worker still checks.
"""

import re
from typing import Any

import pyarrow as pa

from freshdata.contracts.model import Column, Contract
from freshdata.errors import ContractError

NAMESPACE = "freshdata"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLAIN: dict[pa.DataType, Any] = {
    pa.string(): "string",
    pa.int32(): "int",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.bool_(): "boolean",
    pa.date32(): {"type": "int", "logicalType": "date"},
    pa.timestamp("us", "UTC"): {"type": "long", "logicalType": "timestamp-micros"},
    pa.timestamp("us"): {"type": "long", "logicalType": "local-timestamp-micros"},
}


def avro_schema(contract: Contract) -> dict[str, Any]:
    """The Avro schema of a contract's events: a record with its fields, those that are optional null by default.

    Raises:
        ContractError: a field's type has no Avro schema.
    """
    return {
        "type": "record",
        "name": contract.name,
        "namespace": NAMESPACE,
        "doc": contract.description,
        "fields": [_field(contract, column) for column in contract.columns],
    }


def _field(contract: Contract, column: Column) -> dict[str, Any]:
    for name in (column.source_name, *column.aliases):
        if not NAME.fullmatch(name):
            raise ContractError(
                contract.name,
                f"field {column.name}: {name!r} is no name in Avro.",
                remedy="Register it as JSON Schema (schemaFormat: json), or use letters, digits and underscores.",
            )
    found: dict[str, Any] = {"name": column.source_name, "type": _type(contract, column)}
    if not column.required:
        found |= {"type": ["null", found["type"]], "default": None}
    if column.description:
        found["doc"] = column.description
    if column.aliases:
        found["aliases"] = list(column.aliases)
    return found


def _type(contract: Contract, column: Column) -> Any:
    kind = column.type
    if column.enum and all(isinstance(member, str) and NAME.fullmatch(member) for member in column.enum):
        # Named by its id: a renamed field keeps its type.
        return {"type": "enum", "name": re.sub(r"\W", "_", f"{column.id}_values"), "symbols": list(column.enum)}
    if pa.types.is_decimal(kind):
        return {"type": "bytes", "logicalType": "decimal", "precision": kind.precision, "scale": kind.scale}
    if kind not in PLAIN:
        raise ContractError(
            contract.name,
            f"field {column.name}: {kind} has no Avro schema.",
            remedy="Use another physicalType: see docs/contracts.md.",
        )
    return PLAIN[kind]
