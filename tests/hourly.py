"""A project of its own with a stream in hours: its contract, its models, and clicks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from freshdata.settings import PROJECT, Settings
from tests.documents import contract_text, count_model, merge_model

START = datetime(2026, 3, 1, 22, tzinfo=UTC)
CONTRACT = contract_text(
    "clicks",
    "A click on a page.",
    [
        "click_id string key",
        "shop string required",
        "clicked_at timestamptz required",
        """name: price
        logicalType: number
        physicalType: double
        quality:
          - {type: sql, id: not-negative, query: "SELECT count(*) FROM {object} WHERE price < 0", mustBe: 0}""",
    ],
    {"tenantField": "shop", "partitionGranularity": "hour", "eventTimeField": "clicked_at"},
    owner="web",
)
SILVER, HOURS, DAYS = "silver.clicks", "gold.clicks_hour", "gold.clicks_day"
CLICKS = ["COUNT(*)::BIGINT AS clicks -- Clicks."]
MODELS = {
    SILVER: merge_model(
        "clicks",
        "click_id",
        [
            "clicked_at, -- When.",
            "DATE_TRUNC('HOUR', clicked_at)::TIMESTAMPTZ AS event_hour, -- Hour of the click.",
            "event_date, -- Day of the click.",
            "price, -- Price shown.",
        ],
        owner="web",
        slot="event_hour",
        of="clicked_at",
    ),
    HOURS: count_model(HOURS, "clicks", CLICKS, owner="web", slot="event_hour"),
    DAYS: count_model(DAYS, "clicks", CLICKS, owner="web"),
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
