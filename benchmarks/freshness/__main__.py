"""``python -m benchmarks.freshness``: from an event to Gold, through Kafka, a worker and Dagster runs.

The whole platform runs as ``freshdata up`` starts it. Time ends with Dagster's materialization event of a Gold table.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import dagster as dg
import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.freshness.flights import Flights
from benchmarks.freshness.watch import Watch
from benchmarks.results import machine, write_section
from freshdata.clock import instance_clock
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.services.platform import Platform
from freshdata.settings import Settings

RUN_START, STEP_START, RUN_SUCCESS = (
    dg.DagsterEventType.RUN_START, dg.DagsterEventType.STEP_START, dg.DagsterEventType.RUN_SUCCESS
)  # fmt: skip
STREAM, SILVER, GOLD = "flight_events", "silver.flight_events", "gold.carrier_day"
WARM_UP = 30.0  # seconds, not counted: the first runs fill empty tables
PATIENCE = 90.0  # seconds from the last event to its materialization
WHOLE = 180.0  # seconds
MODES = {"ordinary runs": False, "warm runs (`FRESHDATA_WARM_RUNS=1`)": True}
console = Console(stderr=True)


@dataclass(frozen=True)
class Arrival:
    """A materialization of Gold.

    Attributes:
        at: When, in seconds since the epoch.
        snapshot_id: The table's snapshot.
        run_id: The run.
    """

    at: float
    snapshot_id: int
    run_id: str


@dataclass(frozen=True)
class Stages:
    """When a run got where, in seconds since its creation.

    Attributes:
        started: Its process began to run.
        step: Its first step began: the code is loaded.
        silver: Silver was materialized.
        gold: Gold was materialized.
        ended: It ended.
    """

    started: float
    step: float
    silver: float
    gold: float
    ended: float


def main(arguments: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.freshness", description=__doc__)
    parser.add_argument("--rate", type=int, default=1_000, help="events a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=WHOLE, help="how long (default %(default)s)")
    options = parser.parse_args(arguments)
    facts = machine() | {"dagster": dg.__version__}
    Settings().root.mkdir(exist_ok=True)
    lines = [
        f"{options.rate:,} events a second for {options.seconds:.0f} s; in seconds, to the materialization of {GOLD}.",
    ]
    for name, warm in MODES.items():
        with tempfile.TemporaryDirectory(dir=Settings().root, prefix="bench-") as home:
            settings = Settings().for_home(Path(home)).model_copy(update={"warm_runs": warm})
            lines += ["", f"Through {name}:", "", *_measure(settings, options.rate, options.seconds)]
    command = " ".join(["python -m benchmarks.freshness", *arguments])
    print("\n".join(lines))
    if options.seconds >= WHOLE:  # A shorter one is a look.
        write_section("freshness", "From an event to Gold", [f"`{command}`", "", *lines], facts)
    return 0


def _measure(settings: Settings, rate: int, seconds: float) -> list[str]:
    now = datetime.now(UTC)
    instance_clock(settings.home).set(start=now.date() - timedelta(days=7), now=None)
    began = time.perf_counter()
    with Platform(settings, tell=console.print) as platform:
        platform.start_kafka()
        platform.load_lookups()
        platform.start_workers()
        platform.start_dagster()
        up = time.perf_counter() - began
        contract = platform.contracts[STREAM]
        watch, flights = Watch(settings, contract.table, SILVER, GOLD), Flights(settings, contract.rules.topic, rate)
        watch.start()
        flights.start()
        with console.status(f"{rate:,} events a second for {seconds + WARM_UP:.0f} s"):
            time.sleep(WARM_UP)
            since = time.time()
            time.sleep(seconds)
        until = time.time()
        flights.stop()
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            _await_last(settings, watch, instance, flights.sent)
            watch.stop()
            arrivals, stages = _arrivals(instance), _stages(instance, since)
        closing = time.perf_counter()
    down = time.perf_counter() - closing
    commits = _waits_of_commits(watch, arrivals, (since, until))
    events = _waits_of_events(settings, watch, arrivals, (since, until))
    return [*_report(commits, events, stages), "", f"Up in {up:.1f} s, down in {down:.1f} s."]


def _await_last(settings: Settings, watch: Watch, instance: dg.DagsterInstance, sent: int) -> None:
    """Wait until Gold has all events.

    Raises:
        TimeoutError: it does not get them.
    """
    catalog, deadline = open_catalog(settings), time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        arrivals = _arrivals(instance)
        reached = watch.bronze_of(arrivals[-1].snapshot_id) if arrivals else None
        if reached and sum(reached.progress.values()) >= sent:
            return
        time.sleep(1)
    rows = load_table(catalog, GOLD).scan().to_arrow()["flights"]
    raise TimeoutError(f"Gold did not get all {sent:,} events in time: it counts {sum(rows.to_pylist()):,} flights")


def _arrivals(instance: dg.DagsterInstance) -> list[Arrival]:
    found = instance.fetch_materializations(dg.AssetKey(GOLD.split(".")), limit=10_000)
    arrivals = []
    for record in found.records:
        materialization = record.asset_materialization
        entry = materialization.metadata.get("freshdata/snapshot_id") if materialization else None
        if entry is not None and str(entry.value).isdigit():
            arrivals.append(Arrival(record.timestamp, int(str(entry.value)), record.run_id))
    return sorted(arrivals, key=lambda arrival: arrival.at)


def _stages(instance: dg.DagsterInstance, since: float) -> list[Stages]:
    stages = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])):
        created = record.create_timestamp.timestamp()
        times: dict[str, float] = {}
        for event in instance.all_logs(record.dagster_run.run_id):
            if event.dagster_event is None:
                continue
            name = event.dagster_event.event_type_value
            if name == "ASSET_MATERIALIZATION" and event.dagster_event.asset_key:
                name = ".".join(event.dagster_event.asset_key.path)
            times.setdefault(name, event.timestamp - created)
        if created >= since and {SILVER, GOLD} <= times.keys():
            order = (*(kind.value for kind in (RUN_START, STEP_START)), SILVER, GOLD, RUN_SUCCESS.value)
            stages.append(Stages(*(times[name] for name in order)))
    return stages


def _waits_of_commits(watch: Watch, arrivals: list[Arrival], span: tuple[float, float]) -> list[float]:
    """Seconds from each commit of Bronze to the first materialization of Gold that holds it."""
    reached = [(arrival.at, commit.number) for arrival in arrivals if (commit := watch.bronze_of(arrival.snapshot_id))]
    return [
        next(at for at, number in reached if number >= commit.number) - commit.at
        for commit in watch.commits.values()
        if span[0] <= commit.at <= span[1]
    ]


def _waits_of_events(
    settings: Settings, watch: Watch, arrivals: list[Arrival], span: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Seconds from each event's record timestamp to the first materialization of Gold that holds it."""
    reached: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for arrival in arrivals:
        for partition, offset in (commit.progress if (commit := watch.bronze_of(arrival.snapshot_id)) else {}).items():
            reached[partition].append((offset, arrival.at))
    rows = load_table(open_catalog(settings), watch.bronze).scan(
        selected_fields=("_kafka_partition", "_offset", "_ingested_at")
    )
    table = rows.to_arrow()
    partitions, offsets = table["_kafka_partition"].to_numpy(), table["_offset"].to_numpy()
    at = table["_ingested_at"].to_numpy().astype("datetime64[ms]").astype(np.int64) / 1000
    waits = []
    for partition, ends in reached.items():
        mine = (partitions == partition) & (at >= span[0]) & (at <= span[1])
        first = np.searchsorted([offset for offset, _ in ends], offsets[mine], side="right")
        waits.append(np.array([when for _, when in ends])[first] - at[mine])
    return np.concatenate(waits)


def _report(commits: list[float], events: npt.NDArray[np.float64], stages: list[Stages]) -> list[str]:
    def percentiles(waits: object) -> str:
        return " | ".join(f"{value:.1f}" for value in np.percentile(np.asarray(waits), [50, 95, 100]))

    def middle(name: str) -> float:
        return float(median(vars(stage)[name] for stage in stages))

    return [
        "| from | how many | median | p95 | slowest |",
        "|---|---|---|---|---|",
        f"| Bronze's commit | {len(commits):,} | {percentiles(commits)} |",
        f"| the event's record timestamp | {len(events):,} | {percentiles(events)} |",
        "",
        (
            f"{len(stages)} runs, medians of the time since their creation: the process runs after "
            f"{middle('started'):.1f} s, its first step begins after {middle('step'):.1f} s, Silver is there after "
            f"{middle('silver'):.1f} s, Gold after {middle('gold'):.1f} s, the end after {middle('ended'):.1f} s."
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
