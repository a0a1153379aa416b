"""Missed SLAs as assets: each stream's alerts are the materializations of one external asset."""

from collections.abc import Iterator
from itertools import islice

import dagster as dg

from freshdata.contracts import Contract
from freshdata.freshness import duration_text
from freshdata.freshness.alerts import Alert
from freshdata_assets.defs.freshness.checks import MOST_ROWS
from freshdata_assets.platform import Platform, asset_key, contract_metadata, current_platform, owners
from freshdata_assets.schemas import records

GROUP = "alerts"
TRANSITIONS = "freshdata/transitions"
COLUMNS = ("tenant", "late_since", "newest_event", "lag", "sla", "late_for", "why")
# A tick that was cut off after its events were stored has stored no more than these for a stream.
LAST_EVENTS = 3


def alert_key(stream: str) -> dg.AssetKey:
    """The key of a stream's alerts, for example ``alerts/weather``."""
    return dg.AssetKey([GROUP, stream])


def alert_specs(platform: Platform) -> Iterator[dg.AssetSpec]:
    """The alerts of each stream that has a Silver model."""
    for stream, model in platform.silver_streams:
        yield dg.AssetSpec(
            alert_key(stream.name),
            deps=[asset_key(model.name)],
            description=_description(stream),
            group_name=GROUP,
            kinds={"alert"},
            owners=owners(stream.owner),
            metadata=contract_metadata(platform, stream),
        )


def alert_event(alert: Alert) -> dg.AssetMaterialization:
    """An alert as the event that tells it."""
    rows = (
        {
            "tenant": tenant.tenant,
            "late_since": tenant.since.isoformat(),
            "newest_event": tenant.newest.isoformat() if tenant.newest else "",
            "lag": duration_text(tenant.lag) if tenant.lag is not None else "",
            "sla": duration_text(tenant.sla) if tenant.sla is not None else "",
            "late_for": duration_text(alert.at - tenant.since),
            "why": tenant.why or "",
        }
        for tenant in islice(alert.tenants, MOST_ROWS)
    )
    return dg.AssetMaterialization(
        alert_key(alert.stream),
        description=alert.text,
        metadata={
            "freshdata/state": alert.state,
            "freshdata/now": alert.at.isoformat(),
            "freshdata/tenants": records(COLUMNS, rows),
            TRANSITIONS: dg.MetadataValue.json(alert.transitions),
        },
    )


def told_transitions(instance: dg.DagsterInstance, stream: str) -> dict[str, str]:
    """Tenant to the last thing that was told of it, by a stream's last events.

    A tick stores its events before its cursor: one that is cut off in between is made again.
    """
    told: dict[str, str] = {}
    for record in instance.fetch_materializations(alert_key(stream), limit=LAST_EVENTS).records:
        event = record.asset_materialization
        value = event.metadata[TRANSITIONS].value if event and TRANSITIONS in event.metadata else {}
        if isinstance(value, dict):
            told = value | told
    return told


def _description(stream: Contract) -> str:
    return (
        f"Tenants of {stream.name} that became late, with the reason, and that are fresh again: one event each. "
        f"Late is what is older than {duration_text(stream.rules.freshness)}, and silent for longer than is normal."
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The alerts' assets."""
    return dg.Definitions(assets=list(alert_specs(current_platform())))
