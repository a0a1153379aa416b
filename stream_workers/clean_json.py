"""Encode table rows as JSON, column by column: three times as fast as row by row, and rows are what Kafka wants."""

from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

NEEDS_ESCAPING = r'["\\\x00-\x1f]'


def encode_json(rows: pa.Table) -> list[bytes]:
    """Encode rows as JSON objects, column by column.

    Integers, floats and booleans become JSON's; timestamps and dates ISO 8601 strings; decimals strings, so that no
    digit is lost; a null, and a float that JSON cannot express, becomes ``null``.

    Args:
        rows: Rows of any of the contract types, few enough that their text stays under 2 GiB.

    Returns:
        One UTF-8 encoded object a row, its fields in column order.
    """
    parts: list[Any] = []
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        values = column.combine_chunks()
        parts += [f'{"," if parts else "{"}"{name}":', _json(values)]
    text = pc.binary_join_element_wise(*parts, "}", "", null_handling="replace", null_replacement="null")
    encoded: list[bytes] = text.cast(pa.binary()).to_pylist()
    return encoded


def _json(values: pa.Array) -> Any:
    """A column's values as JSON texts; null where the value is."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_large_string(values.type):
        values = values.cast(pa.string())
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return values.cast(pa.string())
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_finite(values), values.cast(pa.string()), None)
    if pa.types.is_timestamp(kind):
        # Without its zone, which is UTC: Arrow formats zoned times twenty times slower.
        text = pc.replace_substring(values.cast(pa.timestamp("us")).cast(pa.string()), " ", "T", max_replacements=1)
        return pc.binary_join_element_wise('"', text, 'Z"' if kind.tz else '"', "")
    if pa.types.is_date(kind) or pa.types.is_decimal(kind):
        return pc.binary_join_element_wise('"', values.cast(pa.string()), '"', "")
    if pa.types.is_string(kind) and not pc.any(pc.match_substring_regex(values, NEEDS_ESCAPING)).as_py():
        return pc.binary_join_element_wise('"', values, '"', "")
    encode = msgspec.json.encode
    return pa.array([None if value is None else encode(value).decode() for value in values.to_pylist()], pa.string())
