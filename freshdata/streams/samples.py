"""Events to infer a stream from: lines of a file, records of a topic, or rows of an Iceberg table."""

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from freshdata.errors import SampleError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.settings import Settings

MOST_ROWS = 50_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """Events, as they are written or would be.

    Attributes:
        source: What they were read from, in words.
        rows: The events in their order; numbers with a fraction are decimals, so that each digit counts.
        broken: Messages that are no JSON object.
        keys: The message key of each event of a topic; None when there are no messages yet.
        topic: The topic they are read from, if it is one.
        partitions: Its number of partitions.
        types: Column types that are known and not to be guessed: those of a table.
        required: Columns of the table that are nowhere null.
    """

    source: str
    rows: list[Row]
    broken: int = 0
    keys: list[bytes | None] | None = None
    topic: str | None = None
    partitions: int | None = None
    types: dict[str, pa.DataType] | None = None
    required: frozenset[str] = frozenset()


def read_file(path: Path) -> Sample:
    """Read the first events of a file with one JSON object a line; it may be compressed (``.gz``).

    Raises:
        SampleError: there is no such file, or no line of it is a JSON object.
    """
    lines = read_lines(path)
    rows, broken = _parsed(line for _, line in zip(range(MOST_ROWS), lines, strict=False))
    return _refuse_empty(Sample(f"the file {path.name}", rows, broken), f"{path} holds no JSON object on any line")


def read_lines(path: Path) -> Iterable[bytes]:
    """The lines of a file that are not blank.

    Raises:
        SampleError: it cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from (stripped for line in file if (stripped := line.strip()))
    except (OSError, EOFError) as error:
        raise SampleError(
            f"{path} cannot be read: {error}.", remedy="Name a file of JSON Lines: one object on each line."
        ) from error


def read_topic(settings: Settings, topic: str) -> Sample:
    """Read the first events of a topic.

    Raises:
        SampleError: it holds none.
        ServiceError: Kafka does not answer, or has no such topic.
    """
    from freshdata.replay_topic import TopicReader

    values: list[bytes] = []
    keys: list[bytes | None] = []
    with TopicReader(settings, topic) as reader:
        bounds = reader.bounds()
        share = max(MOST_ROWS // len(bounds), 1)
        reader.start({number: first for number, (first, _) in bounds.items()})
        for messages in reader.read_to({n: min(end, first + share) for n, (first, end) in bounds.items()}):
            taken = [message for message in messages if message.value() is not None][: MOST_ROWS - len(values)]
            values += [message.value() for message in taken]
            keys += [message.key() for message in taken]
    parsed = [_object(value) for value in values]
    kept = [key for key, row in zip(keys, parsed, strict=True) if row is not None]
    rows = [row for row in parsed if row is not None]
    sample = Sample(f"the topic {topic}", rows, len(parsed) - len(rows), kept, topic, len(bounds))
    return _refuse_empty(sample, f"The topic {topic} holds no JSON object")


def read_table(settings: Settings, name: str) -> Sample:
    """Read rows of an Iceberg table of the catalog, as the events that would carry them.

    Raises:
        LakeError: there is no such table.
        SampleError: it has no rows.
    """
    table = load_table(open_catalog(settings), name)
    # Columns that begin with an underscore are the platform's own.
    wanted = tuple(column for column in table.schema().column_names if not column.startswith("_"))
    found = table.scan(limit=MOST_ROWS, selected_fields=wanted).to_arrow()
    known = {field.name: field.type for field in found.schema}
    rows = [{column: _written(value) for column, value in row.items()} for row in found.to_pylist()]
    required = frozenset(name for name in wanted if not found[name].null_count)
    return _refuse_empty(Sample(f"the table {name}", rows, types=known, required=required), f"Table {name} has no rows")


def _refuse_empty(sample: Sample, what: str) -> Sample:
    if not sample.rows:
        raise SampleError(f"{what}.", remedy="Give a sample of real events: a few hundred tell most.")
    return sample


def _parsed(lines: Iterable[bytes]) -> tuple[list[Row], int]:
    found = [_object(line) for line in lines]
    rows = [row for row in found if row is not None]
    return rows, len(found) - len(rows)


def _object(text: bytes) -> Row | None:
    try:
        value = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _written(value: Any) -> Any:
    """A table's value as it stands in JSON."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        return Decimal(repr(value))
    return value
