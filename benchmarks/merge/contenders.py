"""The contenders: the live run of this project, two ways of PyIceberg, and Spark. Each lives in a process of its own.

Bronze holds nothing but the batch, so the peers need not find out what is new, as the live run does.
"""

import os
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.jars import fetched, from_maven, run
from benchmarks.merge.lake import BRONZE, DAY_COLUMN, FIRST, SILVER
from benchmarks.merge.peer import Contender
from benchmarks.merge.rows import FIRST_DAY
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.services.prerequisites import find_java
from freshdata.settings import Settings

HERE = Path(__file__).parent
KEY, VERSION = (DAY_COLUMN, "tenant_id", "event_id"), ("_ingested_at", "_offset")
HEAP = "2g"


class Live:
    """A live run: it finds the new rows, merges them, audits what it wrote and records how far it came."""

    def __init__(self, settings: Settings) -> None:
        from freshdata.transform.runner import open_runner

        self._stack = ExitStack()
        self._runner = self._stack.enter_context(open_runner(settings))

    def merge(self) -> None:
        """Run the Silver model.

        Raises:
            RuntimeError: the run rebuilt the table, or an audit failed.
        """
        outcome = self._runner.run_live(SILVER)
        failed = [audit.name for audit in outcome.audits if not audit.passed and audit.blocking]
        if outcome.note or failed:
            raise RuntimeError(outcome.note or f"audits failed: {', '.join(failed)}")

    def close(self) -> None:
        """Close the project."""
        self._stack.close()


class Upsert:
    """PyIceberg's ``Table.upsert``, with one key column."""

    def __init__(self, settings: Settings) -> None:
        self._catalog = open_catalog(settings)

    def merge(self) -> None:
        """Merge the batch; PyIceberg refuses one that repeats a key, so that is undone first."""
        table = load_table(self._catalog, SILVER)
        table.upsert(self.batch(table.schema().as_arrow()), join_cols=["event_id"])

    def batch(self, schema: pa.Schema) -> pa.Table:
        """The newest version of each of the batch's rows."""
        scan = load_table(self._catalog, BRONZE).scan(selected_fields=tuple(schema.names))
        return newest(scan.to_arrow()).select(schema.names).cast(schema)

    def close(self) -> None:
        """Nothing was started."""


class Rewrite(Upsert):
    """The whole partition read, merged in memory and written anew."""

    def merge(self) -> None:
        """Put the merged partition in place of the old one."""
        table = load_table(self._catalog, SILVER)
        batch = self.batch(table.schema().as_arrow())
        there = table.scan(row_filter=FIRST).to_arrow()
        kept = there.filter(pc.invert(pc.is_in(there["event_id"], batch["event_id"].combine_chunks())))
        table.overwrite(pa.concat_tables([kept.cast(batch.schema), batch]), overwrite_filter=FIRST)


def newest(rows: pa.Table) -> pa.Table:
    """Each event's newest version."""
    order = pc.sort_indices(rows, sort_keys=[(name, "descending") for name in VERSION])
    rows = rows.take(order)
    ids = rows["event_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return rows.take(pa.array(np.unique(ids, return_index=True)[1]))


class Spark:
    """Spark's MERGE in a session of its own, on the same catalog."""

    def __init__(self, settings: Settings, mode: str) -> None:
        if find_spec("pyspark") is None:
            sys.path.insert(0, str(pyspark()))
        os.environ |= {"JAVA_HOME": str(Path(find_java()).resolve().parents[1]), "SPARK_LOCAL_IP": "127.0.0.1"}
        from pyspark.sql import SparkSession

        builder: Any = SparkSession.builder
        for name, value in _configuration(settings).items():
            builder = builder.config(name, value)
        self._session = builder.getOrCreate()
        self._session.sparkContext.setLogLevel("WARN")
        self._mode = mode

    def prepare(self) -> None:
        """Set how the table takes up changes: by new files or by delete files."""
        self._session.sql(f"ALTER TABLE lake.{SILVER} SET TBLPROPERTIES ('write.merge.mode' = '{self._mode}')")

    def merge(self) -> None:
        """Merge the batch; the partition is named, so that Spark need not find it."""
        columns = ", ".join(self._session.table(f"lake.{SILVER}").columns)
        newer = "s._ingested_at > t._ingested_at OR (s._ingested_at = t._ingested_at AND s._offset > t._offset)"
        self._session.sql(
            f"""
            MERGE INTO lake.{SILVER} t
            USING (
              SELECT {columns} FROM (
                SELECT *, row_number() OVER (
                  PARTITION BY {", ".join(KEY)} ORDER BY {", ".join(f"{name} DESC" for name in VERSION)}
                ) AS place FROM lake.{BRONZE}
              ) WHERE place = 1
            ) s
            ON t.{DAY_COLUMN} = DATE '{FIRST_DAY}' AND {" AND ".join(f"t.{name} = s.{name}" for name in KEY)}
            WHEN MATCHED AND ({newer}) THEN UPDATE SET *
            WHEN NOT MATCHED THEN INSERT *
            """  # noqa: S608 - names of this file.
        ).collect()

    def close(self) -> None:
        """End the session and its JVM."""
        self._session.stop()


def _configuration(settings: Settings) -> dict[str, str]:
    lake = "spark.sql.catalog.lake"
    return {
        "spark.master": f"local[{os.cpu_count()}]",
        "spark.driver.memory": HEAP,
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)),
        "spark.sql.session.timeZone": "UTC",
        "spark.jars": ",".join(str(path) for path in sorted(jars().glob("*.jar"))),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        lake: "org.apache.iceberg.spark.SparkCatalog",
        f"{lake}.type": "jdbc",
        f"{lake}.uri": f"jdbc:sqlite:{settings.home}/catalog.db",
        f"{lake}.warehouse": f"file://{settings.home}/warehouse",
        f"{lake}.jdbc.schema-version": "V1",
        # Else Spark may read a table as it was up to 30 s ago.
        f"{lake}.cache-enabled": "false",
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.warehouse.dir": f"{settings.home}/spark-warehouse",
        "spark.local.dir": f"{settings.home}/spark",
    }


def jars() -> Path:
    """The jars that ``pom.xml`` names."""
    pom = HERE / "pom.xml"
    return fetched("spark", pom, lambda _, target: from_maven(pom, target))


def pyspark() -> Path:
    """A folder with the PySpark that ``requirements.txt`` names."""
    requirements = HERE / "requirements.txt"

    def install(_: Path, target: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
        run("pip", [*command, "--target", str(target), "-r", str(requirements)], dict(os.environ))

    return fetched("pyspark", requirements, install)


def fetch_spark() -> None:
    """Fetch what Spark is made of, if it is not there.

    Raises:
        PrerequisiteError: it cannot be had.
    """
    find_java()
    jars()
    if find_spec("pyspark") is None:
        pyspark()


@dataclass(frozen=True)
class Kind:
    """One way to merge.

    Attributes:
        name: Short name, for ``--contenders``.
        label: Name in tables.
        make: Makes the contender, from the instance and these arguments.
        arguments: See ``make``.
        prepare: A method to call before each merge, unmeasured; None when there is nothing to prepare.
        fetch: Called once before it is started.
    """

    name: str
    label: str
    make: Callable[..., Contender]
    arguments: tuple[str, ...] = ()
    prepare: str | None = None
    fetch: Callable[[], None] = lambda: None


KINDS = [
    Kind("live", "FreshData, live run", Live),
    Kind("upsert", "PyIceberg `Table.upsert`, one key column", Upsert),
    Kind("rewrite", "PyIceberg, partition rewritten", Rewrite),
    Kind("spark", "Spark MERGE, copy on write", Spark, ("copy-on-write",), "prepare", fetch_spark),
    Kind("spark-mor", "Spark MERGE, merge on read", Spark, ("merge-on-read",), "prepare", fetch_spark),
]


def jvm_versions() -> dict[str, str]:
    """The versions of Spark and its jars."""
    found = dict(re.findall(r"<([a-z]+)\.version>(.+?)<", (HERE / "pom.xml").read_text()))
    spark = re.findall(r"^pyspark==(\S+)", (HERE / "requirements.txt").read_text(), re.MULTILINE)
    return {"spark": spark[0], "iceberg": found["iceberg"]}
