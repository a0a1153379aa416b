# ruff: noqa: INP001 - a program, not a package.
"""Live aggregates on the Silver stream: departures and mean delay by origin and hour, as a Quix StreamingDataFrame.

``python examples/live_aggregates.py [--from-beginning]`` reads the flight stream's clean topic (the contract says
``publishClean: true``), which holds each valid event once, and publishes every hour that has closed to
``<topic>.by_origin_hour``; it prints them too. It runs until it is interrupted, and goes on where it ended.

An hour closes by the contract's own rule: when an event arrives that is ``allowedLateness`` past the hour's end. An
event of an hour that is closed is left out and counted; Silver and Gold, which can go back, do take it in.

The newest event time an origin has shown decides, whichever partition it came through. Live, the partitions keep step;
when much history is read at once (``--from-beginning``, or after a long stop), one may run ahead of the others by a
fetch, and that looks like lateness. For history's exact answers, ask Gold.
"""

import argparse
import json
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Mean
from quixstreams.kafka import ConnectionConfig

from freshdata.contracts import Contract, load_contracts
from freshdata.services.kafka import client_config, ensure_topics
from freshdata.settings import Settings, load_settings

STREAM = "flight_events"
HOUR_MS = 3_600_000
CONSUMER_CONFIG = {
    # Without it, the events of a transaction that a killed worker left behind would count, and count twice.
    "isolation.level": "read_committed",
    # Small fetches keep the partitions in step.
    "fetch.message.max.bytes": 16_384,
}


def event_time(event: dict[str, Any], *_: Any) -> int:
    """When an event happened, in milliseconds since the epoch."""
    return int(datetime.fromisoformat(event["event_time"]).timestamp() * 1000)


def results_topic(contract: Contract) -> str:
    """Name of the topic of closed hours, and of the consumer group that makes them."""
    return f"{contract.rules.topic}.by_origin_hour"


def show(line: dict[str, Any]) -> None:
    """Print a line of JSON at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def aggregate(app: Application, contract: Contract, late: Counter[str]) -> None:
    """Define the aggregation.

    Args:
        app: The application to define it in.
        contract: The flight stream's contract.
        late: Origin to the number of events that came after their hour had closed; counted up while it runs.
    """
    events = app.topic(f"{contract.rules.topic}.clean", value_deserializer="json", timestamp_extractor=event_time)
    hours = app.topic(results_topic(contract), key_serializer="str", value_serializer="json")

    def count_late(_value: Any, origin: Any, _at: int, late_by_ms: int, start: int, *_: Any) -> bool:
        late[origin] += 1
        show({"origin": origin, "hour": _iso(start), "late_by_seconds": late_by_ms // 1000, "late": late[origin]})
        return False  # Counted: no need of a warning in the log.

    departures = app.dataframe(events)
    departures = departures[departures["event_type"] == "departed"].group_by("origin")
    windows = departures.tumbling_window(
        HOUR_MS, grace_ms=int(contract.rules.allowed_lateness.total_seconds() * 1000), on_late=count_late
    )
    closed = windows.agg(departures=Count(), mean_delay=Mean("dep_delay")).final()
    closed = closed.apply(
        lambda window, origin, *_: {
            "origin": origin,
            "hour": _iso(window["start"]),
            "departures": window["departures"],
            "mean_delay": window["mean_delay"],
        },
        metadata=True,
    )
    closed.update(show).to_topic(hours, key=lambda window: window["origin"])


def application(settings: Settings, contract: Contract, *, from_beginning: bool) -> Application:
    """An application that reads committed events, and whose own results are committed with its position."""
    client = client_config(settings)
    return Application(
        broker_address=ConnectionConfig.from_librdkafka_dict(client, ignore_extras=True),
        consumer_group=results_topic(contract),
        auto_offset_reset="earliest" if from_beginning else "latest",
        consumer_extra_config=client | CONSUMER_CONFIG,
        producer_extra_config=client,
        processing_guarantee="exactly-once",
        commit_interval=1.0,
        state_dir=settings.home / "examples" / "live_aggregates",
        loglevel="WARNING",
    )


def main() -> None:
    """Aggregate until interrupted."""
    parser = argparse.ArgumentParser(description="Departures and mean delay by origin and hour, live.")
    parser.add_argument("--from-beginning", action="store_true", help="the first start reads the topic's history too")
    arguments = parser.parse_args()
    settings = load_settings()
    contract = load_contracts(settings.contracts_dir)[STREAM]
    # Created as the platform's own topics are: under Kafka's default retention, the hours of a history more than a week
    # old would be deleted as soon as they are written.
    output = replace(contract.rules, topic=results_topic(contract))
    ensure_topics(settings, [replace(contract, stream=output)])
    late: Counter[str] = Counter()
    app = application(settings, contract, from_beginning=arguments.from_beginning)
    aggregate(app, contract, late)
    app.run()
    show({"late": dict(late)})


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


if __name__ == "__main__":
    main()
