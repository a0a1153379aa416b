"""Send the sample to Kafka: all at once, at a chosen speed, or live; resumable at any point."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import count
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from freshdata.clock import instance_clock
from freshdata.contracts import load_contracts
from freshdata.errors import AlreadyRunningError, ConfigError, ServiceError
from freshdata.sample.ledger import LEDGER_SCHEMA, Ledger, counts, last_sent
from freshdata.sample.timeline import SEQUENCE_STEP, Plan, Timeline, historical_plan, live_plan
from freshdata.services.kafka import client_config, end_offsets, ensure_topics
from freshdata.settings import Settings

HEADER = "seq"
DEFAULT_SEED = 2013
TICK = 0.5  # seconds between two looks at what is due
EXTRA = 1.03  # Messages for each real event, roughly, with disorder: for the progress display only.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ReplaySummary:
    """What has been sent to an instance.

    Attributes:
        sent: Messages.
        kinds: Messages by stream and kind (``real``, ``duplicate``, ``malformed``, ``contract``).
        seconds: How long this call took.
        last: The newest record timestamp.
    """

    sent: int
    kinds: dict[str, dict[str, int]]
    seconds: float
    last: datetime


def replay(
    settings: Settings,
    *,
    months: int,
    disorder: bool,
    seed: int,
    progress: Progress = lambda _done, _total: None,
    speed: float | None = None,
    stop: Event | None = None,
) -> ReplaySummary:
    """Send the first months of 2013, and set the instance's clock to the newest message sent.

    What an interrupted call has sent is not sent again.

    Args:
        settings: The instance; its broker must run.
        months: 1 to 12.
        disorder: Whether to add duplicates, late and broken messages.
        seed: Seed of the disorder.
        progress: Called with the messages sent and about how many there are in all.
        speed: Simulated seconds a second; None sends as fast as possible.
        stop: Ends the call early when set.

    Raises:
        AlreadyRunningError: another producer sends to this instance.
        ConfigError: the instance holds messages of another plan.
        ServiceError: Kafka does not take the messages.
    """
    plan = historical_plan(months, disorder=disorder, seed=seed)
    with _Feed.open(settings, plan) as feed:
        return feed.run(progress, _Pace(speed, None, stop or Event()))


def produce_live(
    settings: Settings, *, speed: float, history_days: int, disorder: bool = True, seed: int = DEFAULT_SEED, stop: Event
) -> None:
    """Send the sample as if it happened now: first the history at ``speed``, then in real time, until ``stop`` is set.

    A later call on the same instance continues where the last one was, with its history and seed.

    Args:
        settings: The instance; its broker must run.
        speed: Simulated seconds a second until the present is reached.
        history_days: Days before today that are sent first.
        disorder: Whether to add duplicates, late and broken messages.
        seed: Seed of the disorder.
        stop: Ends the call when set.

    Raises:
        AlreadyRunningError: another producer sends to this instance.
        ConfigError: the instance holds a historical replay.
        ServiceError: Kafka does not take the messages.
    """
    plan = ensure_live_plan(settings, history_days=history_days, disorder=disorder, seed=seed)
    with _Feed.open(settings, plan) as feed:
        feed.run(lambda _done, _total: None, _Pace(speed, lambda: datetime.now(UTC), stop))


def ensure_live_plan(settings: Settings, *, history_days: int, disorder: bool = True, seed: int = DEFAULT_SEED) -> Plan:
    """The instance's live plan, made now if it has none, and its clock set to begin with it and to follow the system's.

    Raises:
        ConfigError: the instance holds a historical replay.
    """
    path = Ledger(settings.home).folder / "plan.json"
    if path.is_file():
        plan = Plan.from_json(path.read_bytes())
    else:
        plan = live_plan(datetime.now(UTC), history_days, disorder=disorder, seed=seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plan.to_json())
    if plan.end is not None:
        raise _other_plan(settings)
    instance_clock(settings.home).set(start=plan.first, now=None)
    return plan


class _Pace:
    """Says which messages are due."""

    def __init__(self, speed: float | None, present: Callable[[], datetime] | None, stop: Event) -> None:
        self.speed = speed
        self.present = present
        self.stop = stop
        self.anchor: tuple[float, float] | None = None

    def due(self, messages: pa.Table) -> Iterator[pa.Table]:
        """Messages in pieces, each as soon as its time has come; ends early when stopped."""
        if self.speed is None:
            yield messages
            return
        times = pc.cast(messages["sent_at"], pa.int64()).to_numpy()
        done = 0
        while done < len(times) and not self.stop.is_set():
            upto = int(np.searchsorted(times, self._simulated(float(times[done])), side="right"))
            if upto > done:
                yield messages.slice(done, upto - done)
                done = upto
            self.stop.wait(TICK)

    def _simulated(self, first: float) -> float:
        self.anchor = self.anchor or (first, time.monotonic())
        simulated = self.anchor[0] + (time.monotonic() - self.anchor[1]) * (self.speed or 0)
        return min(simulated, self.present().timestamp()) if self.present else simulated


class _Feed:
    """Sends one plan's messages to one instance and keeps its ledger."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        contracts = load_contracts(settings.contracts_dir)
        ensure_topics(settings, contracts.values())
        self.settings = settings
        self.plan = plan
        self.ledger = Ledger(settings.home)
        self.timeline = Timeline(contracts, plan)
        self.clock = instance_clock(settings.home)
        options = {"enable.idempotence": "true", "linger.ms": "20", "compression.type": "lz4", "log_level": "0"}
        self.producer = Producer(client_config(settings) | options | {"queue.buffering.max.messages": "200000"})

    @classmethod
    @contextmanager
    def open(cls, settings: Settings, plan: Plan) -> Iterator["_Feed"]:
        """Lock the ledger, check that it belongs to the plan, and complete it by what Kafka has."""
        folder = Ledger(settings.home).folder
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunningError("A producer for this instance", None, remedy="Stop it first.") from None
            path = folder / "plan.json"
            if path.is_file() and path.read_bytes() != plan.to_json():
                raise _other_plan(settings)
            path.write_bytes(plan.to_json())
            feed = cls(settings, plan)
            feed.recover()
            yield feed

    def run(self, progress: Progress, pace: _Pace) -> ReplaySummary:
        """Send what has not been sent yet."""
        begun = time.monotonic()
        sent = len(self.ledger.read())
        expected = max(sent, int(self.timeline.real_events * (EXTRA if self.plan.disorder else 1)))
        for number in count(self.ledger.last_part()):
            if pace.stop.is_set() or (chunk := self.timeline.chunk(number)) is None:
                break
            missing = chunk.filter(pc.invert(pc.is_in(chunk["seq"], self.ledger.part(number)["seq"])))
            for piece in pace.due(missing):
                self.send(number, piece)
                sent += len(piece)
                progress(sent, max(sent, expected))
        progress(sent, sent if not pace.stop.is_set() else expected)
        ledger = self.ledger.read()
        return ReplaySummary(len(ledger), counts(ledger), time.monotonic() - begun, last_sent(ledger).as_py())

    def send(self, number: int, messages: pa.Table) -> None:
        """Send messages of one week, wait until Kafka has them all, and enter them into the ledger."""
        places = np.full((2, len(messages)), -1, dtype=np.int64)

        def delivered(row: int, error: Any, message: Message) -> None:
            if error is None:
                places[:, row] = message.partition(), message.offset()

        columns = (messages[name].to_pylist() for name in ("topic", "key", "payload", "seq"))
        times = (pc.cast(messages["sent_at"], pa.int64()).to_numpy() * 1000).tolist()
        for row, (topic, key, payload, seq, sent_at) in enumerate(zip(*columns, times, strict=True)):
            send = partial(
                self.producer.produce,
                topic,
                payload,
                key,
                timestamp=sent_at,
                headers=[(HEADER, str(seq).encode())],
                on_delivery=partial(delivered, row),
            )
            while True:
                try:
                    send()
                    break
                except BufferError:
                    self.producer.poll(0.1)
            if row % 1000 == 0:
                self.producer.poll(0)
        self.producer.flush()
        there = places[0] >= 0
        self._enter(number, messages.filter(pa.array(there)), places[:, there])
        if not there.all():
            raise ServiceError(
                "kafka",
                f"Kafka did not take {int((~there).sum())} of {len(messages)} messages.",
                remedy="Look at Kafka's log; the producer continues where it was when started again.",
            )

    def recover(self) -> None:
        """Enter messages into the ledger that Kafka has, but whose sender was killed before it wrote them down."""
        found: dict[int, list[tuple[int, int, int]]] = {}
        for seq, partition, offset in self._unrecorded():
            found.setdefault(seq // SEQUENCE_STEP, []).append((seq, partition, offset))
        for number, rows in found.items():
            chunk = self.timeline.chunk(number)
            if chunk is not None:
                seqs, partitions, offsets = (np.array(column) for column in zip(*rows, strict=True))
                self._enter(number, chunk.take(seqs - number * SEQUENCE_STEP), np.array([partitions, offsets]))

    def _unrecorded(self) -> Iterator[tuple[int, int, int]]:
        """Sequence number, partition and offset of the sample's records that the ledger lacks."""
        known = self.ledger.next_offsets()
        for topic in {contract.rules.topic for contract in self.timeline.contracts}:
            for partition, end in end_offsets(self.settings, topic).items():
                first = known.get((topic, partition), 0)
                if first >= end:
                    continue
                options = {"group.id": "freshdata-ledger", "enable.auto.commit": "false", "log_level": "0"}
                consumer = Consumer(client_config(self.settings) | options)
                consumer.assign([TopicPartition(topic, partition, first)])
                try:
                    yield from _sequence_numbers(consumer, first, end)
                finally:
                    consumer.close()

    def _enter(self, number: int, messages: pa.Table, places: Any) -> None:
        if not len(messages):
            return
        hashes = [xxhash.xxh3_128_hexdigest(payload) for payload in messages["payload"].to_pylist()]
        added = {
            "partition": pa.array(places[0], pa.int32()),
            "offset": pa.array(places[1], pa.int64()),
            "payload_hash": pa.array(hashes, pa.string()),
        }
        columns = [added[name] if name in added else messages[name] for name in LEDGER_SCHEMA.names]
        self.ledger.add(number, pa.table(columns, schema=LEDGER_SCHEMA))
        if self.plan.end is not None:
            self.clock.set(start=self.plan.first, now=last_sent(messages).as_py())


def _sequence_numbers(consumer: Consumer, first: int, end: int) -> Iterator[tuple[int, int, int]]:
    while first < end:
        # Never more than there are: the call waits for as many as it is asked for.
        messages = consumer.consume(min(5000, end - first), timeout=30)
        failed = next((message.error().str() for message in messages if message.error() is not None), None)
        if failed or not messages:
            raise ServiceError("kafka", f"Kafka: {failed or 'no answer'}.", remedy="Look at Kafka's log.")
        for message in messages:
            for name, value in message.headers() or ():
                if name == HEADER:
                    yield int(value), message.partition(), message.offset()
        first = messages[-1].offset() + 1


def _other_plan(settings: Settings) -> ConfigError:
    return ConfigError(
        f"{settings.home} holds another selection of the sample.",
        remedy="Ask for the same months, disorder and seed, or name another folder by FRESHDATA_HOME.",
    )
