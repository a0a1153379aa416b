"""A newcomer's stream: one contract and one model, no Python, and everything follows."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer

from freshdata.contracts import load_contracts
from freshdata.errors import TransformError
from freshdata.lake.catalog import open_catalog
from freshdata.lake.progress import read_progress
from freshdata.lake.query import run_query
from freshdata.services.kafka import client_config, end_offsets, ensure_topics
from freshdata.transform.runner import open_runner
from freshdata.verify.ingest import verify_ingest
from tests.documents import contract_text, merge_model
from tests.streams import wait_for

pytestmark = pytest.mark.integration

CONTRACT = contract_text(
    "clicks",
    "A click on a page.",
    [
        "click_id string key",
        "shop string required",
        "clicked_at timestamptz required",
        '{name: price, logicalType: number, physicalType: "decimal(10,2)"}',
    ],
    {
        "topic": "TOPIC",
        "topicPartitions": "2",
        "tenantField": "shop",
        "tenantPartition": "bucket(4)",
        "partitionGranularity": "hour",
        "eventTimeField": "clicked_at",
    },
    owner="web",
)
MODEL = merge_model(
    "clicks",
    "click_id",
    ["clicked_at, -- When.", "event_date, -- Day of the click.", "price, -- Price shown."],
    owner="web",
)
MODEL_TEST = """
test_clicks_one_row_each:
  model: silver.clicks
  vars: {start: 2026-03-01, end: 2026-03-01}
  inputs:
    bronze.clicks:
      rows:
        - {click_id: a, shop: s, event_date: 2026-03-01, _ingested_at: '2026-03-01 10:00:00+00:00', _offset: 1}
        - {click_id: a, shop: s, event_date: 2026-03-01, _ingested_at: '2026-03-01 10:00:00+00:00', _offset: 2}
  outputs:
    query:
      partial: true
      rows:
        - {click_id: a, shop: s, _offset: 2}
"""
ASSETS = """
import json
from freshdata_assets.definitions import defs
graph = defs().resolve_asset_graph()
print(json.dumps(sorted(key.to_user_string() for key in graph.get_all_asset_keys())
      + sorted(str(key.name) + "@" + key.asset_key.to_user_string() for key in graph.asset_check_keys)))
"""


def test_a_contract_and_a_model_are_enough(streaming, environment, tmp_path):
    topic = f"web.clicks.{tmp_path.name}"
    (streaming.contracts_dir / "clicks.odcs.yaml").write_text(CONTRACT.replace("TOPIC", topic))
    (streaming.models_dir / "models" / "silver" / "clicks.sql").write_text(MODEL)
    contract = load_contracts(streaming.contracts_dir)["clicks"]
    ensure_topics(streaming, [contract])
    producer = Producer(client_config(streaming))
    start = datetime(2026, 3, 1, 22, tzinfo=UTC)
    for number in range(200):
        at = start + timedelta(minutes=number)
        click = {"click_id": f"c{number}", "shop": f"shop{number % 7}", "clicked_at": at.isoformat(), "price": "9.90"}
        producer.produce(
            topic, json.dumps(click).encode(), click["click_id"].encode(), timestamp=int(at.timestamp() * 1000)
        )
    producer.produce(topic, b'{"click_id": "c900"}', b"c900", timestamp=int(start.timestamp() * 1000))
    assert producer.flush(30) == 0

    def done():
        catalog = open_catalog(streaming)
        progress = read_progress(catalog.load_table(contract.table)) if catalog.table_exists(contract.table) else None
        return progress is not None and {
            number: part.offset for number, part in progress.partitions.items()
        } == end_offsets(streaming, topic)

    with subprocess.Popen([sys.executable, "-m", "stream_workers", "clicks"], env=environment(streaming)) as worker:
        try:
            wait_for(done, "catching up")
        finally:
            worker.terminate()
    findings, counts = verify_ingest(streaming, open_catalog(streaming), contract)
    assert all(finding.ok for finding in findings)
    assert (counts["accepted"], counts["rejected"]) == (200, 1)
    with pytest.raises(TransformError, match=r"silver\.clicks breaks nomissingunittest"), open_runner(streaming):
        pass
    (streaming.models_dir / "tests" / "test_clicks.yaml").write_text(MODEL_TEST)
    with open_runner(streaming) as runner:
        assert runner.run_live("silver.clicks").rows == 200
    days = run_query(streaming, "SELECT event_date, count(*) AS n FROM silver.clicks GROUP BY 1 ORDER BY 1").to_pylist()
    assert [row["n"] for row in days] == [120, 80]
    listed = subprocess.run(
        [sys.executable, "-c", ASSETS], env=environment(streaming), capture_output=True, text=True, check=True
    )
    names = json.loads(listed.stdout)
    assert {"bronze/clicks", "quarantine/clicks", "silver/clicks"} <= set(names)
    assert {"contract_rules@silver/clicks", "tenant_freshness@silver/clicks", "not_null@silver/clicks"} <= set(names)
