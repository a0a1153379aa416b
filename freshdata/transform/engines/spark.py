"""Spark, on this machine or on a cluster, over the same catalog through Iceberg's Java library."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pyspark.errors import PySparkException  # noqa: TID253 - this module is imported lazily.
from sqlalchemy import make_url
from sqlglot import exp
from sqlmesh.core.config.connection import SparkConnectionConfig  # noqa: TID253 - as above.
from sqlmesh.core.engine_adapter.base import EngineAdapter  # noqa: TID253 - as above.
from sqlmesh.core.engine_adapter.spark import SparkEngineAdapter  # noqa: TID253 - as above.

from freshdata.lake.catalog import CATALOG_NAME, catalog_properties, load_table
from freshdata.lake.cursors import CURSOR_PROPERTY, MARKS_PROPERTY, MODE_PROPERTY
from freshdata.lake.duck import catalog_face
from freshdata.services.prerequisites import SPARK, resolve_jars
from freshdata.settings import Settings
from freshdata.transform.engines.forks import ForkingAdapter
from freshdata.transform.retry import lost_commit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CATALOG = f"spark.sql.catalog.{CATALOG_NAME}"
SNAPSHOT_PROPERTY = "spark.sql.iceberg.snapshot-property"
# What Iceberg's Java library raises when another writer committed first.
CONFLICTS = ("org.apache.iceberg.exceptions.ValidationException", "org.apache.iceberg.exceptions.CommitFailedException")


class SparkLakeAdapter(ForkingAdapter, SparkEngineAdapter):  # type: ignore[misc]
    """Spark with the lake as its default catalog."""

    ERRORS = (PySparkException,)

    def _lost(self, error: Exception) -> bool:
        return lost_commit(error) or any(name in str(error) for name in CONFLICTS)

    def _merge(self, target_table: Any, *args: Any, **kwargs: Any) -> None:
        # A live run's snapshot gets no cursor here: whether it is right, only a commit by PyIceberg can tell. The
        # cursor of a partition run is never newer than what the table holds.
        name = exp.to_table(target_table)
        stamps = self.face.stamped(load_table(self.face.catalog, f"{name.db}.{name.name}"))
        options = {
            f"{SNAPSHOT_PROPERTY}.{key}": value
            for key, value in stamps.items()
            if stamps.get(MODE_PROPERTY) == "partitions" or key not in (CURSOR_PROPERTY, MARKS_PROPERTY)
        }
        for option, value in options.items():
            self.spark.conf.set(option, value)
        try:
            super()._merge(target_table, *args, **kwargs)
        finally:
            for option in options:
                self.spark.conf.unset(option)

    def _to_sql(self, expression: exp.Expression, quote: bool = True, **kwargs: Any) -> str:  # noqa: FBT001, FBT002
        return str(super()._to_sql(expression.transform(_percentile), quote, **kwargs))


class SparkLakeConfig(SparkConnectionConfig):  # type: ignore[misc]
    """Connects SQLMesh to the instance's lake with Spark.

    Attributes:
        settings: The instance.
    """

    type_: Literal["freshdata_spark"] = Field(alias="type", default="freshdata_spark")
    settings: Settings

    @property
    def _engine_adapter(self) -> type[EngineAdapter]:
        return SparkLakeAdapter

    @property
    def _static_connection_kwargs(self) -> dict[str, Any]:
        return {"spark": open_session(self.settings)}

    @property
    def _extra_engine_config(self) -> dict[str, Any]:
        return {"face": catalog_face(self.settings), "wap_enabled": False}

    def get_catalog(self) -> str:
        """The catalog that models without one belong to; it is the session's, so that nobody need switch to it."""
        return CATALOG_NAME


def connection(settings: Settings) -> SparkLakeConfig:
    """SQLMesh's connection to an instance's lake with Spark."""
    return SparkLakeConfig(settings=settings, concurrent_tasks=1)


def open_session(settings: Settings) -> SparkSession:
    """A Spark session over the instance's lake; the sessions of a process share one Spark.

    Raises:
        PrerequisiteError: Java, or Maven while the jars are missing, was not found.
    """
    from pyspark.sql import SparkSession

    builder = SparkSession.builder
    for name, value in _process_options(settings).items():
        builder = builder.config(name, value)
    session = builder.getOrCreate().newSession()
    for name, value in _catalog_options(settings).items():
        session.conf.set(name, value)
    return session


def _process_options(settings: Settings) -> dict[str, str]:
    options = {
        "spark.app.name": "freshdata",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": f"{settings.home}/spark-warehouse",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if "spark.master" not in settings.spark_config:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        options |= {"spark.master": "local[*]", "spark.driver.host": "127.0.0.1"}
    if not settings.spark_config.keys() & {"spark.jars", "spark.jars.packages"}:
        options["spark.jars"] = ",".join(map(str, sorted(resolve_jars(settings, SPARK).glob("*.jar"))))
    return options | settings.spark_config


def _catalog_options(settings: Settings) -> dict[str, str]:
    properties = catalog_properties(settings)
    if properties["type"] == "sql":
        properties |= jdbc_properties(properties["uri"])
    # A catalog that caches tables does not see what others commit: models would take their old rows for all there are.
    properties["cache-enabled"] = "false"
    return {
        "spark.sql.session.timeZone": "UTC",
        CATALOG: "org.apache.iceberg.spark.SparkCatalog",
        **{f"{CATALOG}.{name}": value for name, value in properties.items()},
        "spark.sql.defaultCatalog": CATALOG_NAME,
    }


def jdbc_properties(uri: str) -> dict[str, str]:
    """The properties with which Iceberg's Java library opens a PyIceberg SQL catalog.

    Args:
        uri: The catalog's SQLAlchemy URI.
    """
    url = make_url(uri)
    properties = {"type": "jdbc", "jdbc.schema-version": "V1"}
    if url.get_backend_name() == "sqlite":
        return properties | {"uri": f"jdbc:sqlite:{url.database}?busy_timeout=60000"}
    place = f"{url.host}:{url.port}" if url.port else url.host
    login = {"jdbc.user": url.username, "jdbc.password": url.password}
    properties |= {name: value for name, value in login.items() if value is not None}
    return properties | {"uri": f"jdbc:{url.get_backend_name()}://{place}/{url.database}"}


def _percentile(node: exp.Expression) -> exp.Expression:
    # Spark's PERCENTILE_CONT is another syntax; its PERCENTILE interpolates as DuckDB's QUANTILE_CONT does.
    if isinstance(node, exp.PercentileCont) and node.expression is not None:
        return exp.Quantile(this=node.this, quantile=node.expression)
    return node
