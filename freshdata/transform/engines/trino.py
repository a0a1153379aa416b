"""Trino, whose catalog ``lake`` is the instance's."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from sqlalchemy import make_url
from sqlglot import exp, parse_one
from sqlmesh.core.config.connection import TrinoConnectionConfig  # noqa: TID253 - this module is imported lazily.
from sqlmesh.core.engine_adapter.base import EngineAdapter  # noqa: TID253 - as above.
from sqlmesh.core.engine_adapter.trino import TrinoEngineAdapter  # noqa: TID253 - as above.
from trino.exceptions import Error, TrinoQueryError

from freshdata.errors import ConfigError
from freshdata.lake.catalog import CATALOG_NAME
from freshdata.lake.duck import catalog_face
from freshdata.settings import Settings
from freshdata.transform.engines.forks import ForkingAdapter
from freshdata.transform.retry import lost_commit

PERCENTILE = """
    ELEMENT_AT(
        TRANSFORM(
            ARRAY[ARRAY_SORT(ARRAY_AGG(value) FILTER(WHERE NOT value IS NULL))],
            a -> ELEMENT_AT(a, CAST(FLOOR((CARDINALITY(a) - 1) * share) AS BIGINT) + 1)
                + (ELEMENT_AT(a, CAST(CEIL((CARDINALITY(a) - 1) * share) AS BIGINT) + 1)
                    - ELEMENT_AT(a, CAST(FLOOR((CARDINALITY(a) - 1) * share) AS BIGINT) + 1))
                * ((CARDINALITY(a) - 1) * share - FLOOR((CARDINALITY(a) - 1) * share))
        ),
        1
    )
"""
TIMES = (exp.DataType.Type.TIMESTAMP, exp.DataType.Type.TIMESTAMPNTZ, exp.DataType.Type.TIMESTAMPTZ)
CONFLICTS = ("TRANSACTION_CONFLICT", "ICEBERG_COMMIT_ERROR")


class TrinoLakeAdapter(ForkingAdapter, TrinoEngineAdapter):  # type: ignore[misc]
    """Trino with the lake as a catalog."""

    ERRORS = (Error, TrinoQueryError)
    # Iceberg's timestamps are microseconds.
    MAX_TIMESTAMP_PRECISION = 6

    def replace_query(self, *args: Any, **kwargs: Any) -> None:
        """Replace a table's rows; the stock adapter replaces the table."""
        EngineAdapter.replace_query(self, *args, **kwargs)

    def _lost(self, error: Exception) -> bool:
        return lost_commit(error) or (isinstance(error, TrinoQueryError) and error.error_name in CONFLICTS)

    def _to_sql(self, expression: exp.Expression, quote: bool = True, **kwargs: Any) -> str:  # noqa: FBT001, FBT002
        return str(super()._to_sql(expression.transform(_portable), quote, **kwargs))


class TrinoLakeConfig(TrinoConnectionConfig):  # type: ignore[misc]
    """Connects SQLMesh to the instance's lake with Trino.

    Attributes:
        settings: The instance.
    """

    type_: Literal["freshdata_trino"] = Field(alias="type", default="freshdata_trino")
    settings: Settings

    @property
    def _engine_adapter(self) -> type[EngineAdapter]:
        return TrinoLakeAdapter

    @property
    def _extra_engine_config(self) -> dict[str, Any]:
        return {"face": catalog_face(self.settings)}


def connection(settings: Settings) -> TrinoLakeConfig:
    """SQLMesh's connection to an instance's lake with Trino.

    Raises:
        ConfigError: no Trino is named.
    """
    if settings.trino_uri is None:
        raise ConfigError(
            "FRESHDATA_ENGINE is trino, but no Trino is named.",
            remedy="Set FRESHDATA_TRINO_URI, for example to https://user@trino.example:8443.",
        )
    url = make_url(settings.trino_uri)
    login = {"method": "basic", "password": url.password} if url.password else {}
    return TrinoLakeConfig(
        settings=settings,
        catalog=CATALOG_NAME,
        http_scheme=url.drivername,
        host=url.host,
        port=url.port,
        user=url.username or "freshdata",
        concurrent_tasks=1,
        **login,
    )


def _portable(node: exp.Expression) -> exp.Expression:
    """Say what sqlglot leaves as it is so that Trino means the same."""
    if isinstance(node, exp.DataType) and node.this in TIMES and not node.expressions:
        # Without a number Trino cuts a time to milliseconds; Iceberg's and DuckDB's are microseconds.
        return exp.DataType(this=node.this, expressions=[exp.DataTypeParam(this=exp.Literal.number(6))])
    if isinstance(node, exp.PercentileCont) and node.expression is not None:
        # Interpolated between two values, and spelled out: Trino's own percentiles are approximate.
        terms = {"value": node.this, "share": node.expression}
        spelled = parse_one(PERCENTILE, dialect="trino")
        return spelled.transform(lambda part: terms.get(part.name, part) if isinstance(part, exp.Column) else part)
    return node
