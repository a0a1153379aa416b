"""Event-time freshness of each tenant on the Silver streams.

It warns and never blocks: that news is late is no reason to hold it up further.
"""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from freshdata.contracts import Contract
from freshdata.freshness import Freshness, stream_freshness
from freshdata.lake.catalog import load_table
from freshdata.transform.manifest import ModelInfo
from freshdata_assets.platform import Platform, asset_key, current_platform
from freshdata_assets.schemas import records

NAME = "tenant_freshness"


def freshness_checks(platform: Platform) -> Iterator[dg.AssetChecksDefinition]:
    """One check for each stream's Silver model."""
    for stream, model in platform.silver_streams:
        yield _check(platform, stream, model)


def _check(platform: Platform, stream: Contract, model: ModelInfo) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(model.name),
        name=NAME,
        description=f"The newest event of each tenant is at most {_text(stream.rules.freshness)} old.",
    )
    def check_freshness() -> dg.AssetCheckResult:
        now = platform.clock.now()
        freshness = stream_freshness(load_table(platform.catalog(), model.name), stream, now)
        return dg.AssetCheckResult(
            passed=freshness.passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=_describe(freshness),
            metadata={
                "freshdata/now": now.isoformat(),
                "freshdata/tenants": records(
                    ("tenant", "status", "newest_event", "lag", "sla"),
                    (
                        {
                            "tenant": tenant.tenant,
                            "status": tenant.status,
                            "newest_event": tenant.newest.isoformat(),
                            "lag": _text(tenant.lag),
                            "sla": _text(tenant.sla),
                        }
                        for tenant in freshness.tenants
                    ),
                ),
            },
        )

    return check_freshness


def _describe(freshness: Freshness) -> str:
    if not freshness.tenants:
        return "no event yet"
    return f"{freshness.count('fresh')} fresh, {freshness.count('late')} late, {freshness.count('idle')} idle"


def _text(duration: timedelta) -> str:
    minutes = int(duration.total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


@dg.definitions
def defs() -> dg.Definitions:
    """The freshness checks."""
    return dg.Definitions(asset_checks=list(freshness_checks(current_platform())))
