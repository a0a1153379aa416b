"""``python -m benchmarks.gateway``: events a second that the event gateway takes on one core.

The load comes from wrk. In the same run the floors are measured: an HTTP server that does nothing, and a bare producer.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import uuid
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from benchmarks.ingest.events import STREAM, make_project
from benchmarks.ingest.measure import start_all
from benchmarks.results import machine, write_section
from benchmarks.usage import Usage
from freshdata.api_keys import create_key, keys_file
from freshdata.contracts import load_contracts
from freshdata.errors import PrerequisiteError, ServiceError
from freshdata.services.broker import address_file
from freshdata.services.kafka import end_offsets, ensure_topics, local_broker
from freshdata.services.processes import Program, free_port, listening, read_json
from freshdata.settings import Settings

CORE = 0  # Of the measured process alone; load and broker have the others.
CONNECTIONS = 64
WHOLE = 10.0  # seconds of a run
PATH = f"/v1/streams/{STREAM}/events"
LIMITS = {"events_per_second": 1e9, "bytes_per_second": 1e12, "requests_in_flight": 1_000_000}
console = Console(stderr=True)


@dataclass(frozen=True)
class Contender:
    """What is measured.

    Attributes:
        label: Its name in the table.
        server: ``gateway``, ``echo``, or ``producer``, which needs no load.
        events: Events of a request.
        once: Whether each request has an ``Idempotency-Key``.
    """

    label: str
    server: str
    events: int = 1
    once: bool = False


CONTENDERS = (
    Contender("floor: uvicorn that answers 202, 1 event a request", "echo"),
    Contender("floor: the same, 100 events a request", "echo", 100),
    Contender("floor: confluent-kafka producer, acks=all", "producer"),
    Contender("gateway, 1 event a request", "gateway"),
    Contender("gateway, 1 event and an Idempotency-Key a request", "gateway", once=True),
    Contender("gateway, 100 events a request", "gateway", 100),
)


@dataclass(frozen=True)
class Run:
    """The outcome of one run.

    Attributes:
        events: Events acknowledged.
        seconds: In this time.
        cpu: Processor seconds of the measured process.
        p50: Median latency of a request, in milliseconds; None where there are no requests.
        p99: The 99th percentile.
    """

    events: int
    seconds: float
    cpu: float
    p50: float | None = None
    p99: float | None = None


def main(arguments: list[str]) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--seconds", type=float, default=WHOLE, help="of each run (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default %(default)s)")
    options = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        raise PrerequisiteError("wrk", "wrk was not found.", remedy="Install it, for example `apt install wrk`.")
    facts = machine() | {name: version(name) for name in ("uvicorn", "starlette", "confluent-kafka", "msgspec")}
    Settings().root.mkdir(exist_ok=True)
    runs: dict[Contender, list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=Settings().root, prefix="bench-") as scratch, ExitStack() as stack:
        bench = _Bench(stack, Path(scratch))
        for number in range(options.rounds):
            for contender in CONTENDERS:
                with console.status(f"Round {number + 1}: {contender.label}"):
                    runs[contender].append(bench.run(contender, options.seconds))
    lines = _report(runs, options.seconds, options.rounds)
    command = " ".join(["python -m benchmarks.gateway", *arguments])
    print("\n".join(lines))
    if options.seconds >= WHOLE and options.rounds > 1:  # A shorter one is a look.
        write_section("gateway", "Events through the gateway", [f"`{command}`", "", *lines], facts)
    return 0


class _Bench:
    """A broker, a gateway and the floor's server, each on its cores."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        make_project(folder / "project", f"bench.gateway.{uuid.uuid4().hex[:8]}")
        platform = Settings().for_home(folder / "broker")
        address = stack.enter_context(local_broker(platform))
        settings = platform.for_home(folder / "home")
        settings = settings.model_copy(update={"project": folder / "project", "kafka_bootstrap": address})
        self.settings = settings
        self.topic = load_contracts(settings.contracts_dir)[STREAM].rules.topic
        ensure_topics(self.settings, load_contracts(settings.contracts_dir).values())
        broker = read_json(address_file(platform))["pid"]
        subprocess.run(["taskset", "-acp", _rest(), str(broker)], check=True, capture_output=True)
        self.key = create_key(keys_file(settings), tenant="tenant-000")[1]
        self.address, self.logs = address, folder / "logs"
        self.ports = {name: free_port() for name in ("gateway", "echo")}
        env = {
            "FRESHDATA_PROJECT": str(settings.project),
            "FRESHDATA_HOME": str(settings.home),
            "FRESHDATA_KAFKA_BOOTSTRAP": address,
            "FRESHDATA_GATEWAY_PORT": str(self.ports["gateway"]),
            "FRESHDATA_GATEWAY_LIMITS": json.dumps(LIMITS),
        }
        programs = {
            "gateway": self._program("gateway", ("serving_api.gateway",), env),
            "echo": self._program("echo", ("benchmarks.gateway.echo", str(self.ports["echo"])), {}),
        }
        self.children = {child.name: child for child in start_all(stack, programs, self.logs)}
        for child in self.children.values():
            child.wait_ready(threading.Event())

    def _program(self, name: str, arguments: tuple[str, ...], env: dict[str, str]) -> Program:
        command = ("taskset", "-c", str(CORE), sys.executable, "-m", *arguments)
        return Program(command, env=env, ready=partial(listening, self.ports[name]))

    def run(self, contender: Contender, seconds: float) -> Run:
        """Measure a contender once."""
        if contender.server == "producer":
            command = ["taskset", "-c", str(CORE), sys.executable, "-m", "benchmarks.gateway.produce"]
            own = json.loads(_output([*command, self.address, self.topic, str(seconds)], {}))
            return Run(own["events"], own["seconds"], own["cpu"])
        child = self.children[contender.server]
        usage = Usage([child.process.pid])
        before, written = usage.sample(), self._written()
        env = {
            "KEY": self.key,
            "EVENTS": str(contender.events),
            "RUN": uuid.uuid4().hex[:7],
            "ONCE": str(+contender.once),
        }
        script = Path(__file__).with_name("load.lua")
        wrk = [
            "taskset",
            "-c",
            _rest(),
            "wrk",
            "-t",
            "1",
            "-c",
            str(CONNECTIONS),
            "-d",
            f"{seconds:.0f}s",
            "-s",
            str(script),
        ]
        told = json.loads(_output([*wrk, f"http://127.0.0.1:{self.ports[contender.server]}{PATH}"], env))
        cpu = usage.sample() - before
        events = told["requests"] * contender.events
        if told["refused"] or told["broken"]:
            raise ServiceError("gateway", f"wrk was refused: {told}.", remedy=f"Its log is {child.log}.")
        if contender.server == "gateway":
            # What wrk did not wait for any more was written, too.
            found = self._written() - written
            if not events <= found <= events + CONNECTIONS * contender.events:
                message = f"{events:,} events were acknowledged, {found:,} are in Kafka."
                raise ServiceError("gateway", message, remedy="This is a bug: keep the log.")
        return Run(events, told["seconds"], cpu, told["p50"], told["p99"])

    def _written(self) -> int:
        return sum(end_offsets(self.settings, self.topic).values())


def _rest() -> str:
    """The cores that are not measured, as taskset names them."""
    last = (os.cpu_count() or 1) - 1
    return f"1-{last}" if last > 1 else "1"


def _output(command: Sequence[str], env: dict[str, str]) -> str:
    """The last line that a program prints."""
    run = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=True)
    return run.stdout.strip().splitlines()[-1]


def _report(runs: dict[Contender, list[Run]], seconds: float, rounds: int) -> list[str]:
    lines = [
        (
            f"Events of 258 bytes, {CONNECTIONS} connections, the measured process on one core, load and broker on the "
            f"others; medians of {rounds} interleaved rounds of {seconds:.0f} s. After each, the topic held what the "
            "gateway had acknowledged."
        ),
        "",
        "| contender | events/s | lowest - highest | events/CPU-s | request p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for contender, found in runs.items():
        rates = [run.events / run.seconds for run in found]
        per_cpu = statistics.median(run.events / run.cpu for run in found)
        latencies = ("-", "-")
        if found[0].p50 is not None:
            latencies = (
                f"{statistics.median(run.p50 or 0 for run in found):.1f}",
                f"{statistics.median(run.p99 or 0 for run in found):.1f}",
            )
        lines.append(
            f"| {contender.label} | {statistics.median(rates):,.0f} | {min(rates):,.0f} - {max(rates):,.0f} "
            f"| {per_cpu:,.0f} | {latencies[0]} | {latencies[1]} |"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
