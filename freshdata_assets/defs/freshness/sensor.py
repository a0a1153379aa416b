"""The sensor that keeps an eye on the SLAs: it evaluates freshness by itself and tells each change once."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg

from freshdata.errors import LakeError
from freshdata.freshness import DataFiles, stream_freshness
from freshdata.freshness.alerts import Alert, alerts, still_late
from freshdata.freshness.webhook import post_alerts
from freshdata_assets.defs.freshness.alerts import alert_event, told_transitions
from freshdata_assets.defs.freshness.checks import NAME, verdict
from freshdata_assets.platform import Platform, asset_key, current_platform

Event = dg.AssetMaterialization | dg.AssetCheckEvaluation
# The check is reported when its outcome changes, when the table was written, as Dagster takes a verdict on the rows of
# before for none, and so often that one sees that somebody looks.
REPORT_SECONDS = 3600.0


@dataclass(frozen=True)
class StreamState:
    """What the sensor has told of a stream.

    Attributes:
        late: The tenants that are known to be late, and since when.
        passed: The check's outcome.
        reported: When that was reported, in seconds since the epoch.
    """

    late: dict[str, datetime]
    passed: bool
    reported: float

    def outdated(self, late: Mapping[str, datetime], written: float, *, passed: bool) -> bool:
        """Whether the check is to be reported again, of a table that was written last at a time."""
        changed = passed != self.passed or late.keys() != self.late.keys() or written > self.reported
        return changed or time.time() - self.reported >= REPORT_SECONDS


@dataclass
class State:
    """The sensor's cursor.

    Attributes:
        streams: Stream to what has been told of it.
        unsent: Alerts that the webhook has not taken yet, the oldest first.
    """

    streams: dict[str, StreamState] = field(default_factory=dict)
    unsent: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_json(cls, text: str | None) -> "State":
        """Read what :meth:`to_json` wrote; None is the state before the first tick."""
        content = json.loads(text or '{"streams": {}, "unsent": []}')
        streams = {
            name: StreamState(
                {tenant: datetime.fromisoformat(since) for tenant, since in told["late"].items()},
                told["passed"],
                told["reported"],
            )
            for name, told in content["streams"].items()
        }
        return cls(streams, content["unsent"])

    def to_json(self) -> str:
        """The form kept as Dagster's cursor."""
        streams = {
            name: {
                "late": {tenant: since.isoformat() for tenant, since in told.late.items()},
                "passed": told.passed,
                "reported": told.reported,
            }
            for name, told in self.streams.items()
        }
        return json.dumps({"streams": streams, "unsent": self.unsent}, sort_keys=True)


def freshness_sensor(platform: Platform) -> dg.SensorDefinition:
    """The sensor over all streams that have a Silver model."""
    files = DataFiles()

    @dg.sensor(
        name="freshness",
        description="Evaluates the freshness of each stream, and raises an alert once when a tenant becomes late.",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def freshness(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        catalog, now = platform.catalog(), platform.clock.now()
        state = State.from_json(context.cursor)
        events: list[Event] = []
        answers = True
        for stream, model in platform.silver_streams:
            told = state.streams.get(stream.name)
            try:
                found = stream_freshness(platform.settings, catalog, stream, now, files=files, ask_kafka=answers)
            except LakeError as error:  # Most often, its worker has not started yet.
                context.log.info("%s", error)
                continue
            # A Kafka that is down is waited for once: a tick that takes too long tells nothing at all.
            answers = answers and found.unread is not None
            if told is None and not found.tenants:
                continue  # It has, and nothing has come in.
            changes = list(alerts(stream.name, told.late if told else {}, found, now))
            events += _untold(context.instance, changes)
            state.unsent += [change.payload() for change in changes]
            late, key, tick = still_late(told.late if told else {}, changes), asset_key(model.name), time.time()
            if told is None or told.outdated(late, _written(context.instance, key), passed=found.passed):
                events.append(dg.AssetCheckEvaluation(key, NAME, **verdict(platform, found)))
                state.streams[stream.name] = StreamState(late, found.passed, tick)
        state.unsent = _post(platform, context, state.unsent)
        reason = None if events else "nothing has changed"
        return dg.SensorResult(asset_events=events, cursor=state.to_json(), skip_reason=reason)

    return freshness


def _written(instance: dg.DagsterInstance, key: dg.AssetKey) -> float:
    """When an asset was materialized last, in seconds since the epoch."""
    event = instance.get_latest_materialization_event(key)
    return event.timestamp if event else 0.0


def _untold(instance: dg.DagsterInstance, changes: list[Alert]) -> Iterator[dg.AssetMaterialization]:
    """The events of some alerts of a stream, but for what its last events tell already."""
    told = told_transitions(instance, changes[0].stream) if changes else {}
    for change in changes:
        if new := change.without(told):
            yield alert_event(new)


def _post(
    platform: Platform, context: dg.SensorEvaluationContext, payloads: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Post alerts to the webhook, where there is one; returns those that are left for the next tick."""
    address = platform.settings.alert_webhook
    if address is None or not payloads:
        return []
    left, reason = post_alerts(str(address), payloads)
    if left:
        context.log.warning("%d of %d alerts were not taken by the webhook: %s", len(left), len(payloads), reason)
    return left


@dg.definitions
def defs() -> dg.Definitions:
    """The sensor."""
    return dg.Definitions(sensors=[freshness_sensor(current_platform())])
