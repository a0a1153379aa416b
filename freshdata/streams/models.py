"""The Silver model of an inferred stream, a Gold model to start from, and a unit test of each."""

import re
from dataclasses import dataclass
from typing import Any

import yaml

from freshdata.streams.fields import Field
from freshdata.streams.model import Inferred

MOST_MEASURES = 8
MOST_COUNTED_VALUES = 6
# Numbers that are names of something: nobody adds them up.
NAME_LIKE = re.compile(r"(^|_)(id|code|number|no|key|zip|year|month|day|lat|lon|latitude|longitude|port)(_|$)")
DAY, OTHER_DAY = "2026-03-01", "2026-03-02"


@dataclass(frozen=True)
class _Measure:
    """A column of Gold.

    Attributes:
        name: Column.
        sql: Its expression.
        comment: What it means.
        of: The field.
        inputs: Values of the field in two test rows of one day.
        output: What becomes of them.
    """

    name: str
    sql: str
    comment: str
    of: str
    inputs: tuple[Any, Any]
    output: Any


def silver_model(stream: Inferred) -> str:
    """``silver.<name>``: one row for each key, its newest version."""
    grain = ", ".join(_grain(stream))
    newest = ", ".join(f"{name} DESC" for name in _version(stream))
    columns = [(each.name, each.name, _comment(stream, each)) for each in stream.fields]
    if stream.derives_date:
        columns.append((stream.event_date, stream.event_date, "UTC date of the event time."))
    for kept in stream.kept:
        for inner in kept.inner:
            comment = f"{inner.path.removeprefix('$.')} of the event, as JSON text." if inner.sql_type is None else ""
            columns.append(
                (inner.name, _extracted(inner.path, inner.sql_type), comment or f"{inner.path[2:]} of the event.")
            )
    columns += [
        ("_late", "_late", "Whether the event came behind the stream's watermark."),
        ("_ingested_at", "_ingested_at", "Timestamp of the Kafka record."),
        ("_kafka_partition", "_kafka_partition", "Kafka partition of the record."),
        ("_offset", "_offset", "Kafka offset of the record."),
    ]
    required = ", ".join(dict.fromkeys([stream.key, stream.tenant, stream.event_time, stream.event_date]))
    return f"""\
MODEL (
  name silver.{stream.name},
  description 'Events of {stream.name}, one row for each {stream.key}: the newest version.',
  owner '{stream.owner}',
  kind CUSTOM (
    materialization 'merge_by_key',
    materialization_properties (
      date_column = {stream.event_date},
      unique_key = ({grain}),
      version = ({", ".join(_version(stream))})
    )
  ),
  partitioned_by ({stream.event_date}),
  grain ({grain}),
  tags (silver),
  audits (
    not_null(columns := ({required})),
    unique_combination_of_columns(columns := ({grain}))
  )
);

SELECT
{_select(columns)}
FROM bronze.{stream.name}
WHERE
  {stream.event_date} BETWEEN @start_date AND @end_date
QUALIFY
  ROW_NUMBER() OVER (PARTITION BY {grain} ORDER BY {newest}) = 1
"""  # noqa: S608 - validated names; nothing is run here.


def gold_model(stream: Inferred) -> str:
    """``gold.<name>_day``: counts, sums and means of each tenant's day, to start from."""
    grain = f"{stream.event_date}, {stream.tenant}"
    columns = [
        (stream.event_date, stream.event_date, "Day of the events."),
        (stream.tenant, stream.tenant, "Whose they are."),
        ("events", "COUNT(*)::BIGINT", "Events of the day."),
        *((each.name, each.sql, each.comment) for each in _measures(stream)),
    ]
    return f"""\
MODEL (
  name gold.{stream.name}_day,
  description 'Events of {stream.name} by day and {stream.tenant}: a start, to be made what people ask for.',
  owner '{stream.owner}',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions',
    materialization_properties (date_column = {stream.event_date})
  ),
  partitioned_by ({stream.event_date}),
  grain ({grain}),
  tags (gold),
  audits (
    not_null(columns := ({grain}, events)),
    unique_combination_of_columns(columns := ({grain}))
  )
);

SELECT
{_select(columns)}
FROM silver.{stream.name}
WHERE
  {stream.event_date} BETWEEN @start_date AND @end_date
GROUP BY
  {stream.event_date},
  {stream.tenant}
"""  # noqa: S608 - as above.


def model_tests(stream: Inferred) -> str:
    """Unit tests of both models."""
    key, tenant = (_example(stream.field(name)) for name in (stream.key, stream.tenant))
    at = "2026-03-01 10:00:00+00:00"
    row = {stream.key: key, stream.tenant: tenant, stream.event_date: DAY, "_ingested_at": at}
    versions: list[dict[str, Any]] = [row | {"_offset": 1}, row | {"_offset": 2}]
    if stream.version:
        older, newer = (
            (1, 2) if stream.field(stream.version).logical == "integer" else (at, "2026-03-01 11:00:00+00:00")
        )
        # The newest version counts, and not what came in last.
        versions = [row | {stream.version: newer, "_offset": 1}, row | {stream.version: older, "_offset": 2}]
    other_key = _example(stream.field(stream.key), "b")
    other = row | {stream.key: other_key, stream.event_date: OTHER_DAY, "_offset": 3}
    measures = _measures(stream)
    days: list[dict[str, Any]] = [{stream.event_date: DAY, stream.tenant: tenant} for _ in range(2)]
    for each in measures:
        for day, value in zip(days, each.inputs, strict=True):
            day[each.of] = value
    gold = {stream.event_date: DAY, stream.tenant: tenant, "events": 2} | {each.name: each.output for each in measures}
    kept = 1 if stream.version else 2
    return str(
        yaml.safe_dump(
            {
                f"test_{stream.name}_newest_version_of_a_key_wins": {
                    "model": f"silver.{stream.name}",
                    "description": "A key that came twice is one row; other days are left out.",
                    "vars": {"start": DAY, "end": DAY},
                    "inputs": {f"bronze.{stream.name}": {"rows": [*versions, other]}},
                    "outputs": {"query": {"partial": True, "rows": [{stream.key: key, "_offset": kept}]}},
                },
                f"test_{stream.name}_day_adds_up": {
                    "model": f"gold.{stream.name}_day",
                    "vars": {"start": DAY, "end": DAY},
                    "inputs": {f"silver.{stream.name}": {"rows": [*days, days[0] | {stream.event_date: OTHER_DAY}]}},
                    "outputs": {"query": {"rows": [gold]}},
                },
            },
            sort_keys=False,
            default_flow_style=None,
            width=4096,
        )
    )


def _grain(stream: Inferred) -> list[str]:
    # Versions of one key may lie on several days: then its older row goes from wherever it is.
    return [stream.tenant, stream.key] if stream.version else [stream.event_date, stream.tenant, stream.key]


def _version(stream: Inferred) -> list[str]:
    return [*([stream.version] if stream.version else []), "_ingested_at", "_offset"]


def _select(columns: list[tuple[str, str, str]]) -> str:
    lines = []
    for number, (name, sql, comment) in enumerate(columns):
        comma = "," if number < len(columns) - 1 else ""
        lines.append(f"  {sql if sql == name else f'{sql} AS {name}'}{comma} -- {comment}")
    return "\n".join(lines)


def _comment(stream: Inferred, each: Field) -> str:
    if each.name == stream.key:
        return "Identifies the event."
    return "When it happened." if each.name == stream.event_time else f"{_plain(each.source_name)} of the event."


def _plain(text: str) -> str:
    # It stands in a comment to the line's end.
    return re.sub(r"[^\w .-]", " ", text)


def _extracted(path: str, sql_type: str | None) -> str:
    quoted = "'" + path.replace("'", "''") + "'"
    if sql_type is None:
        return f"CAST(JSON_EXTRACT(_extra, {quoted}) AS TEXT)"
    cast = "CAST" if sql_type == "TEXT" else "TRY_CAST"  # What is in there is checked by nobody.
    return f"{cast}(JSON_EXTRACT_STRING(_extra, {quoted}) AS {sql_type})"


def _measures(stream: Inferred) -> list[_Measure]:
    found: list[_Measure] = []
    used = {stream.event_date, stream.tenant, "events"}
    roles = {stream.key, stream.tenant, stream.event_time, stream.event_date, stream.version}
    for each in stream.fields:
        if each.name not in roles:
            found += [one for one in _measures_of(each) if one.name not in used]
            used |= {one.name for one in found}
    return found[:MOST_MEASURES]


def _measures_of(each: Field) -> list[_Measure]:
    name, source = each.name, _plain(each.source_name)
    if each.enum:
        first, second = each.enum[0], each.enum[1]
        return [
            _Measure(
                f"{name}_{re.sub(r'[^a-z0-9]+', '_', value.lower())}",
                f"SUM(CASE WHEN {name} = '{value}' THEN 1 ELSE 0 END)::BIGINT",
                f"Events whose {source} is {value}.",
                name,
                (first, second),
                int(value in (first, second)),
            )
            for value in each.enum[:MOST_COUNTED_VALUES]
        ]
    if each.logical == "boolean":
        sql = f"SUM(CASE WHEN {name} THEN 1 ELSE 0 END)::BIGINT"
        return [_Measure(f"{name}_count", sql, f"Events with {source}.", name, (True, False), 1)]
    if each.physical.startswith("decimal"):
        scale = each.physical.rstrip(")").rpartition(",")[2]
        sql = f"SUM({name})::DECIMAL(38, {scale})"
        return [_Measure(f"total_{name}", sql, f"Sum of {source}.", name, (2, 4), 6)]
    if each.logical in ("integer", "number") and not NAME_LIKE.search(name):
        return [_Measure(f"mean_{name}", f"AVG({name})::DOUBLE", f"Mean of {source}.", name, (2, 4), 3.0)]
    return []


def _example(each: Field, text: str = "a") -> Any:
    return text if each.logical == "string" else ord(text)
