"""``python -m benchmarks.orchestration``: loading the code location and ticking its sensors, small and large."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
from rich.console import Console

from benchmarks.orchestration.project import fill_lake, make_project, observe
from benchmarks.results import machine, write_section
from freshdata.settings import PROJECT, Settings
from freshdata.transform.manifest import load_manifest

STREAMS, PARTITIONS = 200, 2_000
FILLED_DAYS = 5
TICKS = 5
console = Console(stderr=True)


def main(arguments: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS, help="streams of the large project (%(default)s)")
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="its daily partitions (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of loading (default %(default)s)")
    options = parser.parse_args(arguments)
    facts = machine() | {"dagster": dg.__version__}
    Settings().root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Settings().root, prefix="bench-") as scratch:
        large = make_project(Path(scratch) / "project", options.streams, options.partitions)
        console.print("the large project's manifest")
        started = time.perf_counter()
        load_manifest(large)
        manifest = time.perf_counter() - started
        loads = _loads(Settings().for_home(Path(scratch) / "sample"), large, options.rounds)
        ticks = _ticks(large)
    command = " ".join(["python -m benchmarks.orchestration", *arguments])
    lines = [f"`{command}`", "", *_lines(loads, ticks, manifest)]
    print("\n".join(lines))
    if (options.streams, options.partitions) == (STREAMS, PARTITIONS):  # A smaller one is a look.
        write_section("orchestration", "Loading the code location, and its sensors' ticks", lines, facts)
    return 0


def _loads(sample: Settings, large: Settings, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What each kind of loading took, in rounds that take turns; the first round, which fills caches, is left out."""
    found: dict[str, list[dict[str, Any]]] = {"dagster alone": [], "the sample": [], "the large project": []}
    for number in range(rounds + 1):
        for name, settings in zip(found, (None, sample, large), strict=True):
            console.print(f"round {number}: {name}")
            told = _load(settings)
            if number:
                found[name].append(told)
    return found


def _load(settings: Settings | None) -> dict[str, Any]:
    own = {"FRESHDATA_HOME": str(settings.home), "FRESHDATA_PROJECT": str(settings.project)} if settings else {}
    command = [sys.executable, "-m", "benchmarks.orchestration.load", "location" if settings else "dagster"]
    child = subprocess.run(
        command, env={**os.environ, **own}, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=600
    )
    told: dict[str, Any] = json.loads(child.stdout)
    return told


def _ticks(settings: Settings) -> dict[str, dict[str, float]]:
    """Seconds of each sensor's tick: the first, with nothing new, and after one table grew."""
    os.environ |= {"FRESHDATA_HOME": str(settings.home), "FRESHDATA_PROJECT": str(settings.project)}
    from freshdata_assets.definitions import defs

    today = datetime.now(UTC).date()
    console.print("filling the lake")
    catalog = fill_lake(settings, [today - timedelta(days=number) for number in range(FILLED_DAYS)])
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as home, dg.instance_for_test(temp_dir=home) as instance:
        location = defs()
        for sensor in location.sensors or ():
            console.print(f"sensor {sensor.name}")

            def tick(cursor: Any, sensor: Any = sensor) -> tuple[Any, float]:
                return _tick(location, sensor, instance, cursor)

            cursor, first = tick(None)
            idle = []
            for _ in range(TICKS):
                cursor, seconds = tick(cursor)
                idle.append(seconds)
            grown = []
            for number in range(TICKS):
                observe(catalog, f"stream_{number:04d}", [today])
                cursor, seconds = tick(cursor)
                grown.append(seconds)
            found[sensor.name] = {"first": first, "idle": median(idle), "grown": median(grown)}
    return found


def _tick(
    location: dg.Definitions, sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: Any
) -> tuple[Any, float]:
    """One tick: the sensor's next cursor, and the seconds that it took."""
    started = time.perf_counter()
    if isinstance(sensor, dg.AutomationConditionSensorDefinition):  # The daemon evaluates it, not the code location.
        selection = sensor.asset_selection
        evaluated = dg.evaluate_automation_conditions(location, instance, asset_selection=selection, cursor=cursor)
        return evaluated.cursor, time.perf_counter() - started
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        data = sensor.evaluate_tick(context)
        return data.cursor or cursor, time.perf_counter() - started


def _lines(loads: dict[str, list[dict[str, Any]]], ticks: dict[str, dict[str, float]], manifest: float) -> list[str]:
    lines = ["| loaded | assets | partitions | s | CPU s | MB |", "|---|---|---|---|---|---|"]
    for name, found in loads.items():
        middle = {key: median(one[key] for one in found) for key in ("seconds", "cpu", "memory")}
        counts = f"{found[0]['assets']:,} | {found[0]['partitions']:,}"
        lines.append(f"| {name} | {counts} | {middle['seconds']:.2f} | {middle['cpu']:.2f} | {middle['memory']:.0f} |")
    lines += ["", f"The large project's manifest, made once for each state of its files, took {manifest:.0f} s.", ""]
    lines += ["| sensor, large project | first tick, s | nothing new, s | one table grew, s |", "|---|---|---|---|"]
    lines += [f"| {name} | {t['first']:.2f} | {t['idle']:.2f} | {t['grown']:.2f} |" for name, t in ticks.items()]
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
