"""The Silver model of a captured table: written from its contract, and kept up with it until somebody edits it."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from freshdata.contracts import Column, Contract
from freshdata.settings import Settings

MARK = "Written by `freshdata cdc add`, which keeps it up with the contract as long as this line stands here."
META = {
    "_op": "The last change: r read by a snapshot, c created, u updated, d deleted, t truncated.",
    "_lsn": "Its place in the database's log.",
    "_offset": "Its offset in Kafka.",
    "_source": "The database.",
    "_changed_at": "When it was committed.",
    "_changed_on": "The day of that.",
}
MODEL = """\
-- {mark}
MODEL (
  name silver.{name},
  description 'Rows of {table} as they are now.',
  owner '{owner}',
  kind CUSTOM (
    materialization 'current_rows',
    materialization_properties (unique_key = ({key}), delete_mode = @{name}_delete_mode)
  ),
  grain ({key}),
  tags (silver),
  audits (
    not_null(columns := ({required})),
    unique_combination_of_columns(columns := ({key}))
  )
);

SELECT
{columns}
FROM bronze.{name}
"""
TEST = """\
# {mark}
test_{name}:
  model: silver.{name}
  inputs:
    bronze.{name}:
      rows:
        - {{{row}, _op: c, _lsn: 1, _offset: 0}}
  outputs:
    query:
      partial: true
      rows:
        - {{{row}, _op: c, _lsn: 1}}
"""


def write_models(settings: Settings, contract: Contract) -> list[Path]:
    """Write the Silver model of a change stream and its unit test, or bring them up to the contract.

    Args:
        settings: The instance.
        contract: The contract of a change stream.

    Returns:
        The files that were written; one that somebody has made their own stays as it is.
    """
    capture = contract.rules.capture
    if capture is None:
        raise TypeError(f"{contract.name} carries events, not changes")
    keys = [column for column in contract.columns if column.name in contract.primary_key]
    row = ", ".join(f"{column.name}: {_example(column.type)}" for column in keys)
    soft = contract.rules.operations is not None and contract.rules.operations.delete_mode == "soft"
    # Of a deleted row that was never seen nobody knows the values.
    required = [column.name for column in contract.columns if column.required and not soft]
    model = MODEL.format(
        mark=MARK,
        name=contract.name,
        table=capture.table.replace("'", "''"),
        owner=contract.owner.replace("'", "''"),
        key=_listed(contract.primary_key),
        required=_listed(required or contract.primary_key),
        columns=",\n".join(_selected(contract.columns)),
    )
    files = {
        settings.working_models_dir / "models" / "silver" / f"{contract.name}.sql": model,
        settings.working_models_dir / "tests" / f"test_{contract.name}.yaml": TEST.format(
            mark=MARK, name=contract.name, row=row
        ),
    }
    written = []
    for path, text in files.items():
        old = path.read_text() if path.is_file() else None
        if old == text or (old is not None and MARK not in old.partition("\n")[0]):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
    return written


def _selected(columns: Iterable[Column]) -> list[str]:
    described = {column.name: column.description for column in columns} | META
    *first, (last, meaning) = described.items()
    lines = [f"  {_quoted(name)}{_comment(text)}" for name, text in first]
    return [*lines, f"  {last}{_comment(meaning)}"]


def _comment(text: str) -> str:
    # A comment may hold others: what begins one would have to end it.
    shown = " ".join(text.replace("*/", "* /").replace("/*", "/ *").split())
    return f" /* {shown} */" if shown else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(_quoted, names))


def _quoted(name: str) -> str:
    """A column's name, quoted where SQL has another use for it."""
    from sqlglot import exp, parse_one
    from sqlglot.errors import ParseError

    try:
        found = parse_one(f"SELECT {name}, {name} AS a FROM t", dialect="duckdb").expressions[0]  # noqa: S608 - an identifier.
    except ParseError:
        found = None
    return name if isinstance(found, exp.Column) and found.name == name else f'"{name}"'


def _example(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "'2026-03-01 10:00:00+00:00'" if kind.tz else "'2026-03-01 10:00:00'"
    if pa.types.is_date(kind):
        return "2026-03-01"
    if pa.types.is_time(kind):
        return "'10:00:00'"
    return "true" if pa.types.is_boolean(kind) else "'1'" if pa.types.is_string(kind) else "1"
