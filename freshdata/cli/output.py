"""How commands print: rich tables for people, plain JSON values for machines."""

import base64
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 120


def console() -> Console:
    """The console of standard output; wide enough for tables when it is not a terminal."""
    output = Console(highlight=False)
    return output if output.is_terminal else Console(highlight=False, width=WIDTH_WITHOUT_TERMINAL)


def json_value(value: Any) -> Any:
    """A JSON form for values that JSON lacks.

    Raises:
        TypeError: there is none.
    """
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def result_table(result: pa.Table) -> Table:
    """A query's result as a rich table."""
    table = Table(header_style="bold", caption=f"{result.num_rows} rows", caption_justify="left")
    for field in result.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(field.name, justify="right" if numeric else "left", overflow="fold")
    for row in result.to_pylist():
        table.add_row(*("" if value is None else _text(value) for value in row.values()))
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)
