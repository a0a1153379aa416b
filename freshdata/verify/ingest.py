"""Compare a topic with the Bronze and quarantine tables it went into."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.contracts.evolution import compare
from freshdata.contracts.model import EXTRA
from freshdata.lake.catalog import load_table
from freshdata.lake.progress import PartitionProgress, Progress, read_progress
from freshdata.lake.publication import earlier_contracts, followed_contract
from freshdata.settings import Settings
from freshdata.verify.report import MOST_EXAMPLES, Finding
from freshdata.verify.topic import Earlier, PartitionContent, read_partition

MICROSECONDS = 1_000_000


def verify_ingest(settings: Settings, catalog: Catalog, contract: Contract) -> tuple[list[Finding], dict[str, int]]:
    """Compare every record of a stream's topic, up to the offsets Bronze has committed, with what the tables hold.

    Records are judged by the contract that the table goes by. What an older version of it has refused stays refused;
    only its bytes are compared.

    Returns:
        The findings, and what became of the records.
    """
    bronze, quarantine = load_table(catalog, contract.table), load_table(catalog, contract.quarantine_table)
    contract = followed_contract(bronze, contract)
    progress = read_progress(bronze) or Progress("", contract.rules.topic)
    findings: list[Finding] = []
    # Each is read once and pinned, so that a worker that commits meanwhile does not make the two sides differ.
    rows, rejected = bronze.scan().to_arrow(), quarantine.scan().to_arrow()
    gained = _gained_columns(bronze, contract)
    took_more = _versions_that_took_more(bronze, contract)
    for partition, done in sorted(progress.partitions.items()):
        of_partition = pc.and_(pc.equal(rejected["partition"], partition), pc.less(rejected["offset"], done.offset))
        kept_out = rejected.filter(of_partition)
        by_older = kept_out.filter(pc.not_equal(kept_out["contract_version"], contract.version))
        earlier = Earlier(settings, contract, took_more, kept_out["offset"].to_pylist()) if took_more else None
        refused = by_older["offset"].to_pylist()
        content = read_partition(settings, contract, partition, done.offset, refused=refused, earlier=earlier)
        mine = rows.filter(pc.equal(rows["_kafka_partition"], partition))
        findings += _compare(contract, content, mine, done, partition, gained=gained)
        findings.append(_compare_quarantine(contract, content, kept_out))
    total = progress.total()
    counts = {name: getattr(total, name) for name in ("consumed", "accepted", "duplicates", "rejected", "late")}
    return _summed(findings), counts


def _versions_that_took_more(bronze: Table, contract: Contract) -> list[Contract]:
    """The versions, newest first, that took what a later one refuses, as its mode let it; mostly there are none."""
    versions = [*(replace(each, name=contract.name) for each in earlier_contracts(bronze)), contract]
    refusing = [
        number
        for number, (before, after) in enumerate(pairwise(versions))
        if any("backward" in change.breaks for change in compare(before, after))
    ]
    return versions[: refusing[-1] + 1][::-1] if refusing else []


def _gained_columns(bronze: Table, contract: Contract) -> list[str]:
    """The columns that rows may lack although their events had the field: it was an unknown one when they came.

    Where unknown fields go to quarantine there are none.
    """
    if contract.rules.unknown_fields == "quarantine":
        return []
    first = bronze.schemas()[min(bronze.schemas())].column_names
    return [name for name in contract.stored_schema.names if name not in first]


def _compare(
    contract: Contract,
    content: PartitionContent,
    rows: pa.Table,
    done: PartitionProgress,
    partition: int,
    *,
    gained: list[str],
) -> list[Finding]:
    import duckdb

    rules = contract.rules
    key = ", ".join(f'"{name}"' for name in rules.identity)
    same = " AND ".join(f't."{name}" IS NOT DISTINCT FROM s."{name}"' for name in rules.identity)
    # What was unknown is null where the field has its column by now, and still in `_extra`.
    unknown = {name: f'CASE WHEN t."{name}" IS NOT NULL THEN s."{name}" END AS "{name}"' for name in gained}
    if gained and EXTRA in contract.stored_schema.names:
        unknown[EXTRA] = f't."{EXTRA}" AS "{EXTRA}"'
    replaced = f"s.* REPLACE ({', '.join(unknown.values())})" if unknown else "s.*"
    columns = ", ".join(f'"{name}"' for name in [*contract.stored_schema.names, "_offset"])
    version = f', "{contract.rules.version_field}"' if contract.rules.version_field else ""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("sent", _with_newest(content.valid, contract.rules.event_time_field))
        connection.register("stored", rows)
        window = contract.rules.dedupe_window.total_seconds() * MICROSECONDS
        table = contract.table

        def finding(check: str, sql: str, compared: int) -> Finding:
            return Finding.of_query(connection, table, check, sql, compared)

        absorbed = content.records - content.rejected.num_rows - rows.num_rows
        counts = (done.consumed, done.accepted, done.duplicates, done.rejected)
        found = (content.records, rows.num_rows, absorbed, content.rejected.num_rows)
        return [
            finding(
                "every valid record is stored, or its key was stored before it",
                f"SELECT {key} FROM sent s ANTI JOIN stored USING (_offset) WHERE NOT EXISTS ("  # noqa: S608
                f"SELECT 1 FROM stored t WHERE {same} AND t._offset < s._offset) ORDER BY 1",
                content.valid.num_rows,
            ),
            finding(
                "every stored row was sent, once, with these values",
                f"SELECT {columns} FROM stored EXCEPT ALL SELECT {columns} FROM "  # noqa: S608
                f"(SELECT {replaced} FROM sent s LEFT JOIN stored t USING (_offset))",
                rows.num_rows,
            ),
            finding(
                "no key is stored twice inside its dedupe window",
                # A repeat may be stored only when its predecessor had left the window by the time it came.
                f'WITH ordered AS (SELECT {key}, s._newest, epoch_us(lag(t."{rules.event_time_field}") '  # noqa: S608
                f"OVER (PARTITION BY {key}{version} ORDER BY t._offset)) AS before "
                f"FROM stored t JOIN (SELECT _offset, _newest FROM sent) s USING (_offset)) "
                f"SELECT {key} FROM ordered WHERE before >= _newest - {window:.0f} ORDER BY 1",
                rows.num_rows,
            ),
            Finding(
                table,
                "the snapshot's counts are true",
                content.records,
                int(counts != found),
                [] if counts == found else [{"partition": partition, "recorded": counts, "found": found}],
            ),
        ]


def _with_newest(valid: pa.Table, time_field: str) -> pa.Table:
    """The rows with the newest event time of their partition before each, in microseconds."""
    times = valid[time_field].cast(pa.int64()).to_numpy()
    newest = np.maximum.accumulate(np.concatenate(([-(2**62)], times)))[:-1]
    return valid.append_column("_newest", pa.array(newest))


def _compare_quarantine(contract: Contract, content: PartitionContent, stored: pa.Table) -> Finding:
    import duckdb

    with duckdb.connect() as connection:
        connection.register("sent", content.rejected)
        connection.register("stored", stored.select(content.rejected.column_names))
        return Finding.of_query(
            connection,
            contract.quarantine_table,
            "holds exactly the records that break the contract, byte for byte",
            # "offset" is a keyword in SQL.
            '(SELECT "offset", key, payload FROM stored EXCEPT ALL SELECT "offset", key, payload FROM sent) UNION ALL '
            '(SELECT "offset", key, payload FROM sent EXCEPT ALL SELECT "offset", key, payload FROM stored) ORDER BY 1',
            content.rejected.num_rows,
        )


def _summed(findings: list[Finding]) -> list[Finding]:
    """One finding a table and check: the partitions' added up."""
    summed: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        key = (finding.table, finding.check)
        before = summed.get(key, Finding(finding.table, finding.check, 0))
        summed[key] = Finding(
            finding.table,
            finding.check,
            before.compared + finding.compared,
            before.differences + finding.differences,
            (before.examples + finding.examples)[:MOST_EXAMPLES],
        )
    return list(summed.values())
