"""A contract's events as JSON Schema, for a schema registry, an OpenAPI page, or a producer's own check.

The schema says how an event is to be written, and every event that fulfils it (with its ``pattern`` and ``format``) has
fields that the worker takes. The worker takes a little more: decimals in other forms, timestamps without seconds. What
concerns an event's surroundings, its message key and the record's timestamp, no schema can say.
"""

from typing import Any

import pyarrow as pa

from freshdata.contracts.model import Column, Contract
from freshdata.errors import ContractError

# Known to registries; what is used of it means the same in 2020-12, which OpenAPI 3.1 takes.
DRAFT = "http://json-schema.org/draft-07/schema#"
DAY = r"\d{4}-\d{2}-\d{2}"
MOMENT = rf"{DAY}T\d{{2}}:\d{{2}}:\d{{2}}(\.\d+)?"
BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
KEYWORDS = BOUNDS | {"min_length": "minLength", "max_length": "maxLength", "pattern": "pattern"}
PLAIN: dict[pa.DataType, dict[str, Any]] = {
    pa.string(): {"type": "string"},
    pa.int32(): {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    pa.int64(): {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    pa.float64(): {"type": "number"},
    pa.bool_(): {"type": "boolean"},
    pa.date32(): {"type": "string", "format": "date", "pattern": f"^{DAY}$"},
    pa.timestamp("us", "UTC"): {
        "type": "string",
        "format": "date-time",
        "pattern": rf"^{MOMENT}(Z|[+-]\d{{2}}:\d{{2}})$",
    },
    pa.timestamp("us"): {"type": "string", "pattern": f"^{MOMENT}$"},
}


def json_schema(contract: Contract) -> dict[str, Any]:
    """The JSON Schema of a contract's events, without ``$schema``: it is draft 7 and 2020-12 at once.

    Raises:
        ContractError: a field's type has no JSON Schema.
    """
    strict = contract.stream is not None and contract.stream.unknown_fields == "quarantine"
    properties = {column.source_name: _property(contract, column) for column in contract.columns}
    for column in contract.columns:
        older = properties[column.source_name] | {"description": f"Now {column.source_name}.", "deprecated": True}
        properties |= dict.fromkeys(column.aliases, older)
    renamed = [column for column in contract.columns if column.required and column.aliases]
    either = [{"anyOf": [{"required": [n]} for n in (column.source_name, *column.aliases)]} for column in renamed]
    return {
        "title": contract.name,
        "description": contract.description,
        "type": "object",
        "properties": properties,
        "required": [column.source_name for column in contract.columns if column.required and not column.aliases],
        **({"allOf": either} if either else {}),
        "additionalProperties": not strict,
    }


def _property(contract: Contract, column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {"description": column.description} if column.description else {}
    found |= {"deprecated": True} if column.deprecated else {}
    if column.enum:
        # The members decide alone, as for the worker.
        return found | {"enum": [*column.enum, *([] if column.required else [None])]}
    found |= _typed(contract, column)
    if not column.required:
        kinds = found["type"] if isinstance(found["type"], list) else [found["type"]]
        found["type"] = [*kinds, "null"]
    return found


def _typed(contract: Contract, column: Column) -> dict[str, Any]:
    kind, limits = column.type, dict(column.limits)
    if pa.types.is_decimal(kind):
        # As text, too: a number would lose digits in many a program.
        return _decimal(kind) | {BOUNDS[name]: limit for name, limit in limits.items() if name in BOUNDS}
    if kind not in PLAIN:
        raise ContractError(
            contract.name,
            f"field {column.name}: {kind} has no JSON Schema.",
            remedy="Use another physicalType: see docs/contracts.md.",
        )
    if str(limits.get("pattern", "")).endswith(r"\Z"):
        limits["pattern"] = limits["pattern"].removesuffix(r"\Z") + "$"
    return PLAIN[kind] | {KEYWORDS[name]: limit for name, limit in limits.items()}


def _decimal(kind: pa.Decimal128Type) -> dict[str, Any]:
    whole, fraction = kind.precision - kind.scale, kind.scale
    digits = rf"\d{{1,{whole}}}" if whole else "0"
    limit = 10**whole
    return {
        "type": ["string", "number" if fraction else "integer"],
        "pattern": rf"^-?{digits}(\.\d{{1,{fraction}}})?$" if fraction else f"^-?{digits}$",
        "exclusiveMinimum": -limit,
        "exclusiveMaximum": limit,
    }
