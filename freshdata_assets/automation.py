"""Decide which runs take new data to Gold.

What is new is read from the tables: each Silver and Gold table records the upstream snapshots it has seen. So a run
that crashed, or never started, loses nothing: the next one finds the same news and more.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from itertools import pairwise

import dagster as dg
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError

from freshdata.intervals import ranges
from freshdata.lake.cursors import MODE_PROPERTY
from freshdata.lake.progress import ancestors, compacts, summary_property
from freshdata.transform.manifest import calendar_of
from freshdata_assets.defs.quality.checks import rule_checks
from freshdata_assets.defs.transform.assets import check_specs
from freshdata_assets.live import News, news
from freshdata_assets.platform import Platform, asset_key, key_of
from freshdata_assets.scope import LIVE, MODE, RANGE_END, RANGE_START, REASON

# A late event of last year and today's are two runs; a hundred scattered days are not a hundred.
MOST_RANGES = 5


def live_run_requests(platform: Platform, catalog: Catalog) -> list[dg.RunRequest]:
    """The runs that bring Silver and Gold up to date; none when they are.

    A Dagster run has either days or hours, so that the models of each calendar have runs of their own. Days made of
    hours fall behind when the run of the hours is done.
    """
    found = news(platform, catalog, platform.models.values())
    calendars = {name: calendar_of(platform.models, platform.models[name]) for name in platform.models}
    alone = {name for name in found.moved if calendars[name] is None}
    requests = [_request(platform, catalog, found, alone, None)] if alone else []
    for calendar, touched in found.touched.items():
        if moved := {name for name in found.moved if calendars[name] == calendar}:
            names = _with_neighbours(platform, moved, {name for name in calendars if calendars[name] == calendar})
            # Those with days may be there for their checks alone: then any day will do.
            last = platform.span(calendar)[1]
            spans = _spans(platform.span(calendar), touched) or [(last, last)]
            requests += [_request(platform, catalog, found, names, span) for span in spans]
    return requests


def _with_neighbours(platform: Platform, names: set[str], calendar: set[str]) -> set[str]:
    """Models that are behind, those downstream of them, and those just upstream of all these, of one calendar.

    Downstream ones fall behind as soon as the run has done the others. Upstream ones belong to the run because their
    blocking checks do: Gold alone would take in rows that an earlier run's check had refused.
    """
    chosen = set(names)
    for model in platform.models.values():  # Upstream comes before downstream.
        if chosen & set(model.depends_on) and model.name in calendar:
            chosen.add(model.name)
    return chosen | {name for model in chosen for name in platform.models[model].depends_on} & calendar


def _spans(calendar: tuple[date, date], intervals: Iterable[date] | None) -> list[tuple[date, date]]:
    """The contiguous ranges of days or hours to run, within those that have a partition."""
    first, last = calendar
    if intervals is None:
        return [calendar]
    # A day outside has no partition to run under; a live run takes its rows in all the same.
    spans = ranges({min(max(interval, first), last) for interval in intervals})
    if isinstance(first, datetime):
        # A run tells of hours beyond its range too. Those between ranges are thousands, and would be told of in vain.
        return spans[-MOST_RANGES:]
    while len(spans) > MOST_RANGES:
        gaps = [(after[0] - before[1], index) for index, (before, after) in enumerate(pairwise(spans))]
        nearest = min(gaps)[1]
        spans[nearest : nearest + 2] = [(spans[nearest][0], spans[nearest + 1][1])]
    return spans


def _request(
    platform: Platform, catalog: Catalog, found: News, names: set[str], span: tuple[date, date] | None
) -> dg.RunRequest:
    keys = [key_of(interval) for interval in span] if span else []
    moved = sorted({upstream for name in names for upstream in found.moved.get(name, ())})
    unit = "hours" if span and isinstance(span[0], datetime) else "days"
    reason = f"new in {', '.join(moved)}" + (f", {unit} {keys[0]} to {keys[1]}" if keys else "")
    return dg.RunRequest(
        run_key=_run_key(platform, catalog, names, keys),
        asset_selection=[asset_key(name) for name in sorted(names)],
        asset_check_keys=list(_checks(platform, names)),
        tags={MODE: LIVE, REASON: reason} | ({RANGE_START: keys[0], RANGE_END: keys[1]} if keys else {}),
    )


def _checks(platform: Platform, names: set[str]) -> Iterator[dg.AssetCheckKey]:
    """What must hold of the models' rows; sensors see to what holds or not as time goes by, news or none."""
    for name in sorted(names):
        yield from (spec.key for spec in check_specs(platform, platform.models[name]))
    # Of hours that days are made of too: another run may have left rows that nothing has checked.
    read = names.union(*(platform.models[name].depends_on for name in names))
    for name, check in rule_checks(platform).items():
        if name in read:
            yield dg.AssetCheckKey(asset_key(name), check)


def _run_key(platform: Platform, catalog: Catalog, names: set[str], keys: list[str]) -> str:
    """The same for the same news: what failed once is not tried again until something changes.

    "Something" is a table upstream, a contract or a model. What live runs of these very models wrote does not count: a
    run that merged Silver and was then stopped by a check would at once be followed by its like.
    """
    upstream = {table for name in names for table in platform.models[name].depends_on}
    heads = {table: _head(catalog, table, live=table not in names) for table in sorted(upstream)}
    content = [platform.fingerprint, heads, keys]
    return f"live:{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]}"


def _head(catalog: Catalog, name: str, *, live: bool) -> int | None:
    """The table's newest snapshot that no compaction wrote, nor a live run unless those count."""
    try:
        table = catalog.load_table(name)
    except NoSuchTableError:
        return None
    for snapshot in ancestors(table):
        if (live or summary_property(snapshot, MODE_PROPERTY) != LIVE) and not compacts(snapshot):
            return snapshot.snapshot_id
    return None
