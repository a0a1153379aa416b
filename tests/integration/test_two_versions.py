# ruff: noqa: E501 (tables of texts)
"""A breaking change: the new version is a stream beside the old one, and one Silver table follows both."""

import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from freshdata.contracts import load_contracts
from freshdata.lake.query import run_query
from freshdata.settings import PROJECT
from freshdata.transform.runner import open_runner
from tests.integration.test_new_stream import CONTRACT, MODEL, MODEL_TEST
from tests.lakes import ingest

pytestmark = pytest.mark.integration

# The price was text in one currency; it has become a number of cents, and the currency is required.
SECOND = (
    CONTRACT.replace("name: clicks", "name: clicks_v2")
    .replace("version: 1.0.0", "version: 2.0.0")
    .replace('{name: price, logicalType: number, physicalType: "decimal(10,2)"}', "{name: cents, logicalType: integer, physicalType: bigint}")
    .replace("team:", "      - {name: currency, logicalType: string, physicalType: string, required: true}\nteam:")
)  # fmt: skip
BOTH = """
WITH sent AS (
  SELECT click_id, shop, clicked_at, event_date, price, 'EUR' AS currency, _ingested_at, _offset FROM bronze.clicks
  UNION ALL
  SELECT click_id, shop, clicked_at, event_date, CAST(cents AS DECIMAL(10, 2)) / 100, currency, _ingested_at, _offset
  FROM bronze.clicks_v2
)
SELECT
  click_id, -- The click.
  shop, -- The shop.
  clicked_at, -- When.
  event_date, -- Day of the click.
  CAST(price AS DECIMAL(10, 2)) AS price, -- Price shown.
  currency, -- Its currency.
  _ingested_at, -- Timestamp of the Kafka record.
  _offset -- Kafka offset of the record.
FROM sent
WHERE event_date BETWEEN @start_date AND @end_date
QUALIFY ROW_NUMBER() OVER (PARTITION BY event_date, shop, click_id ORDER BY _ingested_at DESC, _offset DESC) = 1
"""
START = datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.fixture
def settings(instance, tmp_path):
    project = tmp_path / "project"
    for folder in ("contracts", "sqlmesh_models"):
        shutil.copytree(PROJECT / folder, project / folder)
    end = "slaProperties:\n  - {property: endOfSupport, value: '2026-06-30'}\n"
    (project / "contracts" / "clicks.odcs.yaml").write_text(
        CONTRACT.replace("TOPIC", "web.clicks.v1").replace("slaProperties:\n", end)
    )
    (project / "contracts" / "clicks_v2.odcs.yaml").write_text(SECOND.replace("TOPIC", "web.clicks.v2"))
    model = MODEL[: MODEL.index("SELECT")] + BOTH.lstrip()
    (project / "sqlmesh_models" / "models" / "silver" / "clicks.sql").write_text(model)
    (project / "sqlmesh_models" / "tests" / "test_clicks.yaml").write_text(
        MODEL_TEST.replace("  outputs:", "    bronze.clicks_v2:\n      rows: []\n  outputs:")
    )
    return instance.model_copy(update={"project": project})


def click(number, minutes, **fields):
    return {"click_id": f"c{number}", "shop": "s", "clicked_at": START + timedelta(minutes=minutes), **fields}


def test_one_table_follows_both_versions_while_producers_move(settings):
    price = {"price": Decimal("1.50")}
    ingest(settings, "clicks", [click(n, n, **price) for n in range(10)])
    ingest(settings, "clicks_v2", [click(n, n, cents=250, currency="CHF") for n in range(10, 15)])
    with open_runner(settings) as runner:
        runner.run_live("silver.clicks")
        # Some still send the old one, some both.
        ingest(settings, "clicks", [click(n, n, **price) for n in range(20, 23)])
        ingest(
            settings, "clicks_v2", [click(22, 30, cents=150, currency="EUR"), click(23, 31, cents=99, currency="USD")]
        )
        runner.run_live("silver.clicks")
    rows = {row["click_id"]: row for row in run_query(settings, "SELECT * FROM silver.clicks").to_pylist()}
    assert sorted(rows) == sorted(f"c{n}" for n in (*range(15), *range(20, 24)))
    assert (rows["c3"]["price"], rows["c3"]["currency"]) == (Decimal("1.50"), "EUR")
    assert (rows["c12"]["price"], rows["c12"]["currency"]) == (Decimal("2.50"), "CHF")
    assert rows["c22"]["clicked_at"] == START + timedelta(minutes=30)
    old = load_contracts(settings.contracts_dir)["clicks"]
    assert "support ended" in old.lifecycle.warning(START.date().replace(month=7))
