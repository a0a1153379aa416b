"""How the rows of a model in an environment differ from production's: schema, counts, values, samples."""

from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

# The catalogs under which a connection of :func:`freshdata.environments.plan` has both sides.
PRODUCTION, ENVIRONMENT = "production", "lake"
SAMPLE = 5
# Sums of floating point numbers depend on the order of the rows in their last digits.
TOLERANCE = 1e-9
FLOATS = ("DOUBLE", "FLOAT")
NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DECIMAL", *FLOATS)


@dataclass(frozen=True)
class Value:
    """A value that differs.

    Attributes:
        key: The row's key.
        column: The column.
        production: Production's value.
        environment: The environment's.
    """

    key: dict[str, Any]
    column: str
    production: Any
    environment: Any


@dataclass(frozen=True)
class DataDiff:
    """How a model's rows differ.

    Attributes:
        model: The model's name.
        days: First and last day compared; None for all rows.
        added_columns: Columns that only the environment has, with their types.
        removed_columns: Columns that only production has, with their types.
        retyped_columns: Column to production's and the environment's type.
        production_rows: Rows in production.
        environment_rows: Rows in the environment.
        only_production: Rows that only production has: by key, or by all common columns when there is none.
        only_environment: Rows that only the environment has.
        key: The columns that rows are paired by; empty when they could not be.
        changed_rows: Rows of equal key with any differing value.
        changed_values: Column to the number of rows of equal key in which it differs; columns without any left out.
        values: A few differing values, one of each changed column first.
        production_sample: Keys (or rows) that only production has.
        environment_sample: Keys (or rows) that only the environment has.
        note: Why rows were not paired, or an empty string.
    """

    model: str
    days: tuple[date, date] | None
    added_columns: dict[str, str]
    removed_columns: dict[str, str]
    retyped_columns: dict[str, tuple[str, str]]
    production_rows: int
    environment_rows: int
    only_production: int
    only_environment: int
    key: tuple[str, ...] = ()
    changed_rows: int = 0
    changed_values: dict[str, int] = field(default_factory=dict)
    values: tuple[Value, ...] = ()
    production_sample: tuple[dict[str, Any], ...] = ()
    environment_sample: tuple[dict[str, Any], ...] = ()
    note: str = ""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (
            self.added_columns
            or self.removed_columns
            or self.retyped_columns
            or self.only_production
            or self.only_environment
            or self.changed_rows
        )


def compare_rows(
    connection: "duckdb.DuckDBPyConnection",
    model: str,
    grain: tuple[str, ...],
    *,
    day: str | None = None,
    days: tuple[date, date] | None = None,
) -> DataDiff:
    """Compare a model's rows in the catalogs ``production`` and ``lake``.

    Args:
        connection: A connection with both attached.
        model: The model's name.
        grain: Columns that tell its rows apart.
        day: Its date column.
        days: First and last day to compare, inclusive; None for all rows.
    """
    sides = _Sides(connection, model, day, days)
    types = {side: sides.types(side) for side in (PRODUCTION, ENVIRONMENT)}
    before, after = types[PRODUCTION], types[ENVIRONMENT]
    common = [name for name in before if name in after]
    schema = {
        "added_columns": {name: kind for name, kind in after.items() if name not in before},
        "removed_columns": {name: kind for name, kind in before.items() if name not in after},
        "retyped_columns": {name: (before[name], after[name]) for name in common if before[name] != after[name]},
    }
    counts = {"production_rows": sides.rows(PRODUCTION), "environment_rows": sides.rows(ENVIRONMENT)}
    note = ""
    if not grain:
        note = "the model names no grain: rows are compared whole"
    elif lacking := [name for name in grain if name not in common]:
        note = f"production and the environment have not both {', '.join(lacking)}: rows are compared whole"
    elif repeated := sides.repeated_keys(grain):
        note = f"{repeated} rows repeat the key of another: rows are compared whole"
    found = sides.whole(common) if note else sides.paired(grain, {name: (before[name], after[name]) for name in common})
    return DataDiff(model, days, **schema, **counts, **found, note=note)  # type: ignore[arg-type]


class _Sides:
    """Both sides' rows of one model."""

    def __init__(
        self,
        connection: "duckdb.DuckDBPyConnection",
        model: str,
        day: str | None,
        days: tuple[date, date] | None,
    ) -> None:
        self.connection = connection
        self.table = ".".join(_quoted(part) for part in model.split("."))
        self.where = f" WHERE {_quoted(day)} BETWEEN ? AND ?" if day and days else ""
        self.bounds = list(days) if day and days else []

    def types(self, side: str) -> dict[str, str]:
        described = self.connection.execute(f"DESCRIBE {side}.{self.table}").fetchall()
        return {name: kind for name, kind, *_ in described}

    def rows(self, side: str) -> int:
        return self.number(f"SELECT count(*) FROM {side}.{self.table}{self.where}", self.bounds)  # noqa: S608 - names.

    def repeated_keys(self, grain: tuple[str, ...]) -> int:
        repeated = 0
        for side in (PRODUCTION, ENVIRONMENT):
            keys = f"SELECT DISTINCT {_list(grain)} FROM {side}.{self.table}{self.where}"  # noqa: S608 - names.
            repeated += self.rows(side) - self.number(f"SELECT count(*) FROM ({keys})", self.bounds)  # noqa: S608
        return repeated

    def whole(self, columns: list[str]) -> dict[str, Any]:
        """Rows that one side has more often than the other, by all common columns."""
        found: dict[str, Any] = {}
        names = {PRODUCTION: "production", ENVIRONMENT: "environment"}
        for side, other in ((PRODUCTION, ENVIRONMENT), (ENVIRONMENT, PRODUCTION)):
            query = " EXCEPT ALL ".join(
                f"SELECT {_list(columns)} FROM {catalog}.{self.table}{self.where}"  # noqa: S608 - names.
                for catalog in (side, other)
            )
            counted = f"SELECT count(*) FROM ({query})"  # noqa: S608 - names.
            found[f"only_{names[side]}"] = self.number(counted, self.bounds * 2)
            found[f"{names[side]}_sample"] = self.sample(f"{query} ORDER BY ALL", self.bounds * 2)
        return found

    def paired(self, grain: tuple[str, ...], types: dict[str, tuple[str, str]]) -> dict[str, Any]:
        """Rows of equal key side by side."""
        values = [name for name in types if name not in grain]
        keys = ", ".join(f"COALESCE(p.{_quoted(name)}, e.{_quoted(name)}) AS {_quoted(name)}" for name in grain)
        flags = ", ".join(f"{_differ(name, *types[name])} AS {_quoted('differs ' + name)}" for name in values)
        both = ", ".join(
            f"p.{_quoted(name)} AS {_quoted('p ' + name)}, e.{_quoted(name)} AS {_quoted('e ' + name)}"
            for name in values
        )
        equal = " AND ".join(f"p.{_quoted(name)} IS NOT DISTINCT FROM e.{_quoted(name)}" for name in grain)
        sides = [
            f"(SELECT *, true AS _there FROM {side}.{self.table}{self.where})"  # noqa: S608 - names.
            for side in (PRODUCTION, ENVIRONMENT)
        ]
        selected = ", ".join(part for part in (keys, flags, both) if part)
        self.connection.execute(
            f"CREATE OR REPLACE TEMP TABLE pairs AS SELECT {selected}, p._there AS _before, e._there AS _after "  # noqa: S608 - names.
            f"FROM {sides[0]} p FULL JOIN {sides[1]} e ON {equal}",
            self.bounds * 2,
        )
        within = "FROM pairs WHERE _before AND _after"
        changed = {name: self.number(f"SELECT count(*) {within} AND {_flag(name)}") for name in values}
        changed = {name: count for name, count in changed.items() if count}
        any_flag = " OR ".join(_flag(name) for name in changed) or "false"
        return {
            "key": grain,
            "only_production": self.number("SELECT count(*) FROM pairs WHERE _after IS NULL"),
            "only_environment": self.number("SELECT count(*) FROM pairs WHERE _before IS NULL"),
            "changed_rows": self.number(f"SELECT count(*) {within} AND ({any_flag})"),
            "changed_values": changed,
            "values": tuple(self.differing(grain, list(changed))),
            "production_sample": self.sample(f"SELECT {_list(grain)} FROM pairs WHERE _after IS NULL ORDER BY ALL"),  # noqa: S608 - names.
            "environment_sample": self.sample(f"SELECT {_list(grain)} FROM pairs WHERE _before IS NULL ORDER BY ALL"),  # noqa: S608 - names.
        }

    def differing(self, grain: tuple[str, ...], changed: list[str]) -> list[Value]:
        share = max(1, SAMPLE // max(1, len(changed)))
        values = []
        for name in changed:
            query = (
                f"SELECT {_list(grain)}, {_quoted('p ' + name)} AS _p, {_quoted('e ' + name)} AS _e FROM pairs "  # noqa: S608 - names.
                f"WHERE _before AND _after AND {_flag(name)} ORDER BY {_list(grain)} LIMIT {share}"
            )
            for row in self.connection.execute(query).to_arrow_table().to_pylist():
                before, after = row.pop("_p"), row.pop("_e")
                values.append(Value(row, name, before, after))
        return values

    def number(self, query: str, bounds: list[date] | None = None) -> int:
        row = self.connection.execute(query, bounds or []).fetchone()
        return int(row[0]) if row else 0

    def sample(self, query: str, bounds: list[date] | None = None) -> tuple[dict[str, Any], ...]:
        found = self.connection.execute(f"{query} LIMIT {SAMPLE}", bounds or [])
        return tuple(found.to_arrow_table().to_pylist())


def _differ(name: str, before: str, after: str) -> str:
    p, e = f"p.{_quoted(name)}", f"e.{_quoted(name)}"
    if before != after and not all(kind.startswith(NUMBERS) for kind in (before, after)):
        return f"CAST({p} AS VARCHAR) IS DISTINCT FROM CAST({e} AS VARCHAR)"
    if before in FLOATS or after in FLOATS:
        close = f"abs({p} - {e}) <= {TOLERANCE} * greatest(abs({p}), abs({e}))"
        return f"({p} IS DISTINCT FROM {e} AND NOT COALESCE({close}, false))"
    return f"{p} IS DISTINCT FROM {e}"


def _flag(name: str) -> str:
    return _quoted("differs " + name)


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(_quoted(name) for name in names)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
