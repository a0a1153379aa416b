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


def project(folder: Path) -> Settings:
    """An instance whose project has the one stream and no models yet."""
    (folder / "contracts").mkdir(parents=True)
    (folder / "contracts" / "clicks.odcs.yaml").write_text(CONTRACT)
    for part in ("models", "tests", "audits"):
        (folder / "sqlmesh_models" / part).mkdir(parents=True)
    (folder / "sqlmesh_models" / "config.py").write_text((PROJECT / "sqlmesh_models" / "config.py").read_text())
    return Settings().model_copy(update={"project": folder, "home_override": folder / "home"})


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
