"""Event-time freshness of each tenant on the Silver streams.

It warns and never blocks: that news is late is no reason to hold it up further.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

import dagster as dg

from freshdata.contracts import Contract
from freshdata.freshness import Freshness, describe, duration_text, stream_freshness, why
from freshdata.freshness.words import named
from freshdata.transform.manifest import ModelInfo
from freshdata_assets.platform import Platform, asset_key, current_platform
from freshdata_assets.schemas import records

NAME = "tenant_freshness"
# Rows of a table in the UI: of ten thousand tenants those that matter come first.
MOST_ROWS = 100
TENANT_COLUMNS = ("tenant", "status", "newest_event", "lag", "sla", "may_be_silent_for", "why")
DAY_COLUMNS = ("day", "tenants", "newest_event", "why")


def freshness_checks(platform: Platform) -> Iterator[dg.AssetChecksDefinition]:
    """One check for each stream's Silver model."""
    for stream, model in platform.silver_streams:
        yield _check(platform, stream, model)


def verdict(platform: Platform, freshness: Freshness) -> dict[str, Any]:
    """What the check says of a stream's freshness, as Dagster's results and events take it."""
    return {
        "passed": freshness.passed,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": describe(freshness),
        "metadata": {
            "freshdata/now": platform.clock.now().isoformat(),
            "freshdata/tenants": records(TENANT_COLUMNS, islice(_tenant_rows(freshness), MOST_ROWS)),
            "freshdata/incomplete_days": records(DAY_COLUMNS, _day_rows(freshness)),
        },
    }


def _tenant_rows(freshness: Freshness) -> Iterator[dict[str, str]]:
    """The tenants as rows of a table, the late ones first."""
    for tenant in freshness.tenants:
        yield {
            "tenant": tenant.tenant,
            "status": tenant.status,
            "newest_event": tenant.newest.isoformat() if tenant.newest else "",
            "lag": duration_text(tenant.lag),
            "sla": duration_text(tenant.sla),
            "may_be_silent_for": duration_text(tenant.allowed),
            "why": why(tenant.cause, freshness.unread) if tenant.cause else "",
        }


def _day_rows(freshness: Freshness) -> Iterator[dict[str, str]]:
    groups = defaultdict(list)
    for found in freshness.days:
        groups[found.day, found.cause].append(found)
    for (day, cause), days in groups.items():
        yield {
            "day": day.isoformat(),
            "tenants": named(found.tenant for found in days),
            "newest_event": max(found.last for found in days).isoformat(),
            "why": why(cause, freshness.unread),
        }


def _check(platform: Platform, stream: Contract, model: ModelInfo) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(model.name),
        name=NAME,
        description=(
            f"The newest event of each tenant is at most {duration_text(stream.rules.freshness)} old, or it has been "
            "silent for no longer than its contract allows. The sensor freshness evaluates it every minute: until "
            "then, rows written since count as not evaluated."
        ),
    )
    def check_freshness() -> dg.AssetCheckResult:
        found = stream_freshness(platform.settings, platform.catalog(), stream, platform.clock.now())
        return dg.AssetCheckResult(**verdict(platform, found))

    return check_freshness


@dg.definitions
def defs() -> dg.Definitions:
    """The freshness checks."""
    return dg.Definitions(asset_checks=list(freshness_checks(current_platform())))
