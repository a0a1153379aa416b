"""Event-time freshness: how far each tenant's newest event is behind the instance's clock, and why.

Dagster's own freshness looks at when an asset was last written, so a re-run of last year's partition makes it fresh.
This one looks at the data.
"""

from freshdata.freshness.arrivals import DataFiles
from freshdata.freshness.judge import Arrival, Freshness, IncompleteDay, TenantFreshness, Terms, judge
from freshdata.freshness.stream import stream_freshness
from freshdata.freshness.words import describe, duration_text, why

__all__ = [
    "Arrival",
    "DataFiles",
    "Freshness",
    "IncompleteDay",
    "TenantFreshness",
    "Terms",
    "describe",
    "duration_text",
    "judge",
    "stream_freshness",
    "why",
]
