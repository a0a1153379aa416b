"""A project of its own over one stream of changes, for tests of what becomes of deletes and versions."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from freshdata.settings import Settings
from tests.documents import contract_text
from tests.lakes import ingest

CONTRACT = contract_text(
    "orders",
    "A change of an order.",
    [
        "order_id string key",
        "tenant_id string required",
        "event_time timestamptz required",
        "order_date date required",
        "lsn bigint required",
        """name: op
        logicalType: string
        physicalType: string
        required: true
        enum: [{value: c}, {value: u}, {value: d}]""",
        "state string",
    ],
    {
        "topic": "shop.orders",
        "versionField": "lsn",
        "eventDateField": "order_date",
        "operations": "{field: op, insert: [c], update: [u], delete: [d], deleteMode: MODE}",
    },
    owner="shop",
)
UNIT_TEST = """
test_TABLE:
  model: MODEL
  vars: {start: 2026-03-01, end: 2026-03-02}
  inputs:
    UPSTREAM:
      rows:
        - {order_id: a, order_date: 2026-03-01, lsn: 1, op: c}
  outputs:
    query:
      partial: true
      rows:
        - {EXPECTED}
"""


def shop(folder: Path, models: dict[str, str], *, delete_mode: str = "hard") -> Settings:
    """A project with the stream ``orders`` and some models, and an instance of it.

    Args:
        folder: Where to put it.
        models: Model to its definition; one that reads the stream has a row for each order.
        delete_mode: The contract's.
    """
    for part in ("contracts", "sqlmesh_models/models", "sqlmesh_models/tests"):
        (folder / part).mkdir(parents=True)
    (folder / "contracts" / "orders.odcs.yaml").write_text(CONTRACT.replace("MODE", delete_mode))
    for name, text in models.items():
        (folder / "sqlmesh_models" / "models" / f"{name}.sql").write_text(text)
        upstream = "bronze.orders" if "FROM bronze.orders" in text else "silver.orders"
        expected = "order_id: a" if upstream == "bronze.orders" else "order_date: 2026-03-01, orders: 1"
        test = UNIT_TEST.replace("TABLE", name.replace(".", "_")).replace("MODEL", name)
        test = test.replace("UPSTREAM", upstream).replace("EXPECTED", expected)
        (folder / "sqlmesh_models" / "tests" / f"test_{name}.yaml").write_text(test)
    return Settings().model_copy(update={"project": folder, "home_override": folder / "home"})


def change(key: str, lsn: int, op: str, day: date, **fields: Any) -> dict[str, Any]:
    """One change of an order as its event tells it."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    told = {"order_id": key, "tenant_id": "t", "event_time": at, "order_date": day, "lsn": lsn, "op": op}
    return told | {"state": f"{key} {lsn}"} | fields


def land(settings: Settings, changes: Iterable[dict[str, Any]]) -> int:
    """Make changes visible in Bronze, in one snapshot; returns its id."""
    return ingest(settings, "orders", list(changes), at=datetime(2026, 3, 1, tzinfo=UTC))
