"""A transaction of the lake leads to what PyIceberg's leads to, and works it out once a change."""

from datetime import date

import pyarrow as pa
import pyiceberg.table
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import EqualTo
from pyiceberg.table import Transaction
from pyiceberg.transforms import IdentityTransform

from freshdata.lake.catalog import ensure_table
from freshdata.lake.transaction import LakeTransaction

SCHEMA = pa.schema({"day": pa.date32(), "rows": pa.int64()})
FIRST, SECOND = date(2013, 1, 1), date(2013, 1, 2)


def rows(day: date, *counts: int) -> pa.Table:
    return pa.table({"day": [day] * len(counts), "rows": counts}, schema=SCHEMA)


@pytest.mark.parametrize("kind", [Transaction, LakeTransaction])
def test_days_are_replaced_and_nothing_else(catalog: Catalog, kind: type[Transaction]) -> None:
    table = ensure_table(catalog, "gold.counts", SCHEMA, partition_by={"day": IdentityTransform()})
    for day in (FIRST, SECOND):
        table.append(rows(day, 1, 2))
    with kind(table) as change:
        change.overwrite(rows(FIRST, 3), EqualTo("day", FIRST.isoformat()), snapshot_properties={"by": "test"})
        change.set_properties({"comment": "replaced"})
    stored = catalog.load_table("gold.counts")
    assert sorted(stored.scan().to_arrow().to_pylist(), key=str) == [
        {"day": FIRST, "rows": 3}, {"day": SECOND, "rows": 1}, {"day": SECOND, "rows": 2}
    ]  # fmt: skip
    assert [snapshot.summary.operation.value for snapshot in stored.snapshots()] == [
        "append", "append", "delete", "append"
    ]  # fmt: skip
    assert stored.current_snapshot().summary["by"] == "test"
    assert stored.properties["comment"] == "replaced"


def test_the_metadata_is_worked_out_once_a_change(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ensure_table(catalog, "gold.counts", SCHEMA, partition_by={"day": IdentityTransform()})
    table.append(rows(FIRST, 1))
    worked_out = []
    update = pyiceberg.table.update_table_metadata
    monkeypatch.setattr(
        pyiceberg.table, "update_table_metadata", lambda *known, **more: worked_out.append(1) or update(*known, **more)
    )
    with LakeTransaction(table) as change:
        change.overwrite(rows(FIRST, 2), EqualTo("day", FIRST.isoformat()))
        changes = len(change._updates)
    assert len(worked_out) <= changes + 2
