"""A project of its own with a stream in hours: its contract, its models, and clicks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from freshdata.settings import PROJECT, Settings

START = datetime(2026, 3, 1, 22, tzinfo=UTC)
CONTRACT = """
apiVersion: v3.2.0
kind: DataContract
id: urn:freshdata:web:clicks
name: clicks
version: 1.0.0
status: active
schema:
  - name: clicks
    description: A click on a page.
    customProperties:
      - {property: messageKey, value: click_id}
      - {property: dedupeKey, value: [click_id]}
      - {property: tenantField, value: shop}
      - {property: partitionGranularity, value: hour}
      - {property: eventTimeField, value: clicked_at}
    properties:
      - {name: click_id, logicalType: string, physicalType: string, required: true, primaryKey: true}
      - {name: shop, logicalType: string, physicalType: string, required: true}
      - {name: clicked_at, logicalType: timestamp, physicalType: timestamptz, required: true}
      - name: price
        logicalType: number
        physicalType: double
        quality:
          - {type: sql, id: not-negative, query: "SELECT count(*) FROM {object} WHERE price < 0", mustBe: 0}
team: {name: web}
slaProperties:
  - {property: freshness, value: 10, unit: m}
"""

SILVER, HOURS, DAYS = "silver.clicks", "gold.clicks_hour", "gold.clicks_day"
MODELS = {
    SILVER: """
MODEL (
  name silver.clicks,
  description 'Clicks, one row each.',
  owner 'web',
  cron '@hourly',
  kind CUSTOM (
    materialization 'merge_by_key',
    materialization_properties (
      hour_column = event_hour, unique_key = (event_hour, shop, click_id), version = (_ingested_at, _offset)
    )
  ),
  partitioned_by (event_hour),
  grain (event_hour, shop, click_id),
  audits (not_null(columns := (click_id, shop)))
);
SELECT
  click_id, -- The click.
  shop, -- The shop.
  clicked_at, -- When.
  DATE_TRUNC('HOUR', clicked_at)::TIMESTAMPTZ AS event_hour, -- Hour of the click.
  event_date, -- Day of the click.
  price, -- Price shown.
  _ingested_at, -- Timestamp of the Kafka record.
  _offset -- Kafka offset of the record.
FROM bronze.clicks
WHERE clicked_at BETWEEN @start_dt AND @end_dt
QUALIFY ROW_NUMBER() OVER (
  PARTITION BY DATE_TRUNC('HOUR', clicked_at), shop, click_id ORDER BY _ingested_at DESC, _offset DESC
) = 1
""",
    HOURS: """
MODEL (
  name gold.clicks_hour,
  description 'Clicks of each shop in each hour.',
  owner 'web',
  cron '@hourly',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions', materialization_properties (hour_column = event_hour)
  ),
  partitioned_by (event_hour),
  grain (event_hour, shop),
  audits (not_null(columns := (event_hour, shop)))
);
SELECT
  event_hour, -- The hour.
  shop, -- The shop.
  COUNT(*)::BIGINT AS clicks -- Clicks.
FROM silver.clicks
WHERE event_hour BETWEEN @start_dt AND @end_dt
GROUP BY event_hour, shop
""",
    DAYS: """
MODEL (
  name gold.clicks_day,
  description 'Clicks of each shop on each day.',
  owner 'web',
  kind CUSTOM (
    materialization 'overwrite_changed_partitions', materialization_properties (date_column = event_date)
  ),
  partitioned_by (event_date),
  grain (event_date, shop),
  audits (not_null(columns := (event_date, shop)))
);
SELECT
  event_date, -- The day.
  shop, -- The shop.
  COUNT(*)::BIGINT AS clicks -- Clicks.
FROM silver.clicks
WHERE event_date BETWEEN @start_date AND @end_date
GROUP BY event_date, shop
""",
}
UNIT_TEST = """
test_{name}:
  model: {model}
  vars: {{start: 2026-03-01, end: 2026-03-01}}
  inputs:
    {upstream}:
      rows:
        - {{click_id: a, shop: s, event_hour: '2026-03-01 10:00:00+00:00', event_date: 2026-03-01,
            clicked_at: '2026-03-01 10:20:00+00:00', _ingested_at: '2026-03-01 10:20:00+00:00', _offset: 1}}
  outputs:
    query:
      partial: true
      rows:
        - {{shop: s}}
"""


def project(folder: Path) -> Settings:
    """An instance whose project has the one stream and no models yet."""
    (folder / "contracts").mkdir(parents=True)
    (folder / "contracts" / "clicks.odcs.yaml").write_text(CONTRACT)
    for part in ("models", "tests", "audits"):
        (folder / "sqlmesh_models" / part).mkdir(parents=True)
    (folder / "sqlmesh_models" / "config.py").write_text((PROJECT / "sqlmesh_models" / "config.py").read_text())
    return Settings().model_copy(update={"project": folder, "home_override": folder / "home"})


def project_with_models(folder: Path) -> Settings:
    """The same with a Silver and a Gold model in hours, and one in days made of the hours."""
    settings = project(folder)
    for model, text in MODELS.items():
        layer, _, name = model.partition(".")
        path = settings.working_models_dir / "models" / layer / f"{name}.sql"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        upstream = "bronze.clicks" if model == SILVER else SILVER
        test = UNIT_TEST.format(name=name, model=model, upstream=upstream)
        if model == SILVER:
            test = test.replace("event_hour: '2026-03-01 10:00:00+00:00', ", "")
        (settings.working_models_dir / "tests" / f"test_{name}.yaml").write_text(test)
    return settings


def clicks(hour: datetime, count: int = 2, **changes: Any) -> list[dict[str, Any]]:
    """Clicks of an hour, one a minute."""
    return [
        {
            "click_id": f"{hour:%Y%m%d%H}-{number}",
            "shop": ("a", "b")[number % 2],
            "clicked_at": hour + timedelta(minutes=number),
            "price": float(number),
        }
        | changes
        for number in range(count)
    ]
