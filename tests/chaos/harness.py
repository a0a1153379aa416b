"""Runs one seed's plan: real workers, a real broker and a real lake, a producer that never stops, and the faults."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from pyiceberg.catalog import Catalog

from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.lake.progress import read_progress
from freshdata.services.kafka import client_config, end_offsets, ensure_topics
from freshdata.settings import Settings
from stream_workers.clean import clean_group
from tests.chaos.launch import Transformer, start_worker
from tests.chaos.proxy import FaultyCatalog
from tests.chaos.schedule import Plan
from tests.chaos.traffic import Record, Traffic
from tests.streams import flight_contract

PATIENCE = 150.0  # Seconds a condition may take: several session timeouts on a busy machine.
END_SECONDS = 60.0  # What a worker may take to end; then it is asked where it hangs.
LOOK_SECONDS = 0.1
BURST = 40  # Records sent each time a condition is looked at: the producer never pauses.
GAVE_UP = "Timeout (0:"  # What faulthandler writes before the stacks of a worker whose stop hangs.
LAKE_BYTES = 256 * 1024 * 1024
# Every fault that leaves a member of the group behind lasts for a session: it is as short as the broker allows.
SESSION = {"session.timeout.ms": "4000", "heartbeat.interval.ms": "1000"}


class ChaosError(AssertionError):
    """What had to happen did not."""


@dataclass
class Member:
    """One worker process.

    Attributes:
        name: What the broker knows it by: its instance id, or its client id.
        slot: Its place; a successor in the same place of a named group has the same name.
        process: The process.
        fault: The file by which it is told to die, wait or fail at a point.
        log: Its output.
        doomed: Whether its end is wanted.
    """

    name: str
    slot: int
    process: BaseProcess
    fault: Path
    log: Path
    doomed: bool = False

    @property
    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.exitcode is not None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.join()

    @property
    def joined(self) -> bool:
        """Whether the group has let it in: of a worker that keeps its name, the broker thinks so before."""
        # A process that was only just forked has no log yet.
        return self.log.exists() and b" assigned stream=" in self.log.read_bytes()

    @property
    def held(self) -> bool:
        """Whether it waits at the point it was told to wait at."""
        return Path(f"{self.fault}.reached").exists()

    def tell(self, action: str, point: str) -> None:
        """Tell it what to do when it reaches a point."""
        whole = self.fault.with_suffix(".new")
        whole.write_text(f"{action} {point}")
        whole.replace(self.fault)

    def untell(self) -> None:
        """Let it go on."""
        self.fault.unlink(missing_ok=True)


class Chaos:
    """A seed's run.

    Args:
        settings: The instance, on a broker that its supervisor restarts; the lake is in its home folder.
        broker: The broker's own instance.
        environment: Environment of a child of the instance.
        plan: The plan.
    """

    def __init__(self, settings: Settings, broker: Settings, environment: dict[str, str], plan: Plan) -> None:
        self.settings, self.broker, self.plan = settings, broker, plan
        self.environment = environment
        _change_contract(settings.contracts_dir / "flight_events.odcs.yaml")
        self.contract = flight_contract(settings)
        self.traffic = Traffic(plan.seed)
        self.faults: Counter[str] = Counter()
        self.exits: list[str] = []
        self.members: list[Member] = []
        self.zombies: list[Member] = []
        self.undelivered: list[str] = []
        self.watching = True
        self.folder = settings.home.parent / "chaos"
        self.folder.mkdir()
        self._started = 0

    @contextmanager
    def running(self) -> Iterator["Chaos"]:
        """The lake, the topic, the producer and the first workers; all is stopped at the end, whatever happened."""
        with ExitStack() as stack:
            self.own_disk = stack.enter_context(_small_disk(self.settings.home))
            ensure_topics(self.settings, [self.contract])
            self.admin = AdminClient({**client_config(self.settings), "log_level": 0})
            self.producer = Producer(
                client_config(self.settings)
                # It outlives the broker's restarts, and never sends a record twice.
                | {"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 0, "log_level": 0}
            )
            self.catalog: Catalog = open_catalog(self.settings)
            ensure_stream_tables(self.catalog, self.contract, load_contracts(self.settings.contracts_dir))
            self.proxy = None
            if self.plan.catalog == "rest":
                self.proxy = stack.enter_context(FaultyCatalog(self.catalog, self._slay))
            stack.callback(self._kill_all)
            self.transformer = Transformer(self.settings, self.folder / "transformer.log")
            stack.callback(self.transformer.close)
            for _ in range(self.plan.workers):
                self.start()
            yield self

    # --- workers ---

    def start(self, slot: int | None = None) -> Member:
        """Start a worker, in a slot or in the first that is free."""
        taken = {member.slot for member in self.members}
        place = slot if slot is not None else next(number for number in itertools.count() if number not in taken)
        self._started += 1
        name = f"chaos-{place}" if self.plan.named else f"chaos-{place}-{self._started}"
        fault, log = self.folder / f"{self._started}.fault", self.folder / f"{self._started}.log"
        own = {"FRESHDATA_FAULT_FILE": str(fault)}
        own |= {"FRESHDATA_WORKER_ID": name} if self.plan.named else {}
        own |= {"FRESHDATA_KAFKA_CONFIG": json.dumps({"client.id": name} | SESSION)}
        own |= {"FRESHDATA_CATALOG_URI": f"{self.proxy.url}/{fault.stem}"} if self.proxy else {}
        process = start_worker(self.contract.name, self.environment | own, log, forked=self.plan.forked)
        member = Member(name, place, process, fault, log)
        self.members.append(member)
        return member

    def kill(self, member: Member) -> None:
        """``kill -9``, and a successor."""
        member.kill()
        self.members.remove(member)
        self.start(member.slot)

    def _slay(self, client: str) -> None:
        """Kill the worker that the catalog knows by a name."""
        for member in self.members + self.zombies:
            if member.fault.stem == client:
                member.doomed = True
                os.kill(member.pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        for member in self.members + self.zombies:
            member.kill()

    def replace_the_dead(self) -> None:
        """What a supervisor does: a worker that has ended is started again in its place."""
        for member in [member for member in self.members if member.ended]:
            if not member.doomed:
                self.exits.append(f"code {member.process.exitcode}: {last_line(member.log)}")
            self.members.remove(member)
            self.start(member.slot)

    # --- conditions ---

    def until(
        self, condition: Callable[[], Any], what: str, *, sending: bool = True, patience: float = PATIENCE
    ) -> None:
        """Go on sending, and replacing workers that die, until a condition is true.

        Raises:
            ChaosError: it does not come true.
        """
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise ChaosError(f"{what} did not happen in {patience:.0f} s\n{self.tails()}")
            if sending:
                self.send(self.traffic.take(BURST))
            self.producer.poll(0)
            if self.watching:
                self.replace_the_dead()
            time.sleep(LOOK_SECONDS)

    def until_sent(self, count: int) -> None:
        """Go on until so many more records have been sent."""
        goal = self.traffic.sent + count
        self.until(lambda: self.traffic.sent >= goal, f"sending {count} records")

    def send(self, records: list[Record]) -> None:
        """Hand records to the producer."""
        for record in records:
            at = int(record.at.timestamp() * 1000)
            self.producer.produce(
                self.contract.rules.topic, record.value, record.key, timestamp=at, on_delivery=self._delivered
            )

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self.undelivered.append(str(error))

    def owned(self) -> dict[str, set[int]]:
        """Member of the group to its partitions, as the broker sees it; empty while the group is not stable."""
        [answer] = self.admin.describe_consumer_groups([f"freshdata-{self.contract.rules.topic}"]).values()
        with suppress(KafkaException):
            group = answer.result(30)
            if group.state == ConsumerGroupState.STABLE:
                return {
                    member.group_instance_id or member.client_id: {
                        part.partition for part in member.assignment.topic_partitions
                    }
                    for member in group.members
                }
        return {}

    def settled(self) -> bool:
        """Whether the group consists of just the workers that run, and every partition has an owner."""
        if not all(member.joined for member in self.members):
            return False
        owned = self.owned()
        return set(owned) == {member.name for member in self.members} and (
            set().union(*owned.values()) == set(range(self.contract.rules.topic_partitions))
        )

    def committed(self) -> dict[int, int]:
        """Partition to the offset that Bronze has committed."""
        done = read_progress(self.catalog.load_table(self.contract.table))
        return {number: part.offset for number, part in done.partitions.items()} if done else {}

    def published(self) -> dict[int, int]:
        """Partition to the offset up to which the clean topic is complete."""
        topic = self.contract.rules.topic
        places = [TopicPartition(topic, number) for number in range(self.contract.rules.topic_partitions)]
        asked = ConsumerGroupTopicPartitions(clean_group(self.contract), places)
        [answer] = self.admin.list_consumer_group_offsets([asked]).values()
        with suppress(KafkaException):
            return {place.partition: place.offset for place in answer.result(30).topic_partitions if place.offset > 0}
        return {}

    def until_past(self, goal: dict[int, int], what: str) -> None:
        """Go on until Bronze has committed every offset before these."""

        def past() -> bool:
            committed = self.committed()
            return all(committed.get(number, 0) >= end for number, end in goal.items())

        self.until(past, what)

    def ends(self) -> dict[int, int]:
        """Partition to the offset after its last record."""
        return end_offsets(self.settings, self.contract.rules.topic)

    def tails(self) -> str:
        """The end of what each worker said."""
        logs = [*self.members, *self.zombies]
        return "\n".join(f"--- {m.name}: {m.log.read_text(errors='replace')[-1500:]}" for m in logs)

    # --- the end ---

    def finish(self) -> None:
        """Send what was held back, wait until Bronze and the clean topic have it, and stop the workers.

        Raises:
            ChaosError: a layer does not get it, or a worker does not end.
        """
        self.send(self.traffic.rest())
        self.until(lambda: len(self.producer) == 0, "the delivery of every record", sending=False)
        ends = {number: end for number, end in self.ends().items() if end}
        self.until(lambda: self.committed() == ends, "catching up", sending=False)
        self.until(lambda: self.published() == ends, "the clean topic's catching up", sending=False)
        if self.undelivered:
            raise ChaosError(f"{len(self.undelivered)} records were not delivered: {self.undelivered[0]}")
        self.watching = False
        for member in self.members:
            member.process.terminate()
        for member in self.members:
            self.stop(member)
        # A run beside the faults may have failed: it is repeated, as an orchestrator does.
        self.until(self.transformer.ended, "the end of a transformation", sending=False)
        if error := self.transformer.error():
            self.exits.append(f"transformer: {error}")
        self.transformer.begin()

    def transformed(self) -> None:
        """Wait until Silver and Gold have what Bronze has.

        Raises:
            ChaosError: they cannot be built.
        """
        self.until(self.transformer.ended, "the last transformation", sending=False)
        if error := self.transformer.error():
            raise ChaosError(f"Silver and Gold could not be built: {error}")

    def stop(self, member: Member, *, may_give_up: bool = False) -> None:
        """SIGTERM: a worker commits and ends by itself.

        Args:
            member: The worker.
            may_give_up: Whether it may end by its own last resort, because something that it waits for is gone.

        Raises:
            ChaosError: it does not, with the line on which each of its threads hangs; or it ends with an error.
        """
        member.process.terminate()
        try:
            self.until(
                lambda: member.ended, "the end of a worker after SIGTERM", sending=self.watching, patience=END_SECONDS
            )
        except ChaosError:
            os.kill(member.pid, signal.SIGABRT)
            member.process.join(10)
        said = member.log.read_text(errors="replace")
        if member.process.exitcode == 1 and GAVE_UP in said and may_give_up:
            self.exits.append(f"gave up waiting after SIGTERM: {member.log.name}")
        # One that is still importing its libraries dies by the signal.
        elif member.process.exitcode not in (0, -signal.SIGTERM):
            raise ChaosError(f"after SIGTERM a worker ended with {member.process.exitcode}:\n{said[-20_000:]}")

    def keep(self, folder: Path) -> None:
        """Save what there is to look at after a failure: the lake, every worker's log, and the plan."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.settings.home, folder / "home", ignore=shutil.ignore_patterns("balloon"))
        shutil.copytree(self.folder, folder / "logs")
        (folder / "plan.txt").write_text(f"{self.plan}\n")


def _change_contract(path: Path) -> None:
    """Publish the clean topic too, and commit often: each commit may be hit, and is waited for."""
    own = "{property: publishClean, value: true}", "{property: commitPolicy, value: {maxAge: PT0.3S, minFileRows: 1}}"
    marker = "customProperties:\n"
    path.write_text(path.read_text().replace(marker, marker + "".join(f"      - {line}\n" for line in own), 1))


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """Put a folder on a disk of its own, which can be filled, where this user may mount one."""
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={LAKE_BYTES}", "tmpfs", str(folder)]
    mounted = (
        os.geteuid() == 0 and subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            # Lazily: a reader of this process may still hold a file.
            subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=True)


def last_line(log: Path) -> str:
    """A log's last line."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
