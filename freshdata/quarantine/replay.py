"""Send rejected events to their topic again, unchanged or corrected, and remember which were.

Events are judged first, by the worker's own decoder and the contract that is published now: what would only come back
is not sent. A portion of them is sent, waited for, and noted, in this order: nothing counts as sent that Kafka does not
have. A crash in between may send a portion again. The stream's deduplication by key leaves the repeats out, as far back
as the contract's dedupe window goes; an event older than that is a second row in Bronze then, and still one row of its
key in Silver.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaException, Message, Producer

from freshdata.clock import instance_clock
from freshdata.contracts import Contract
from freshdata.contracts.changes import ChangeDecoder, decoder_of
from freshdata.contracts.decode import Decoder, key_bytes
from freshdata.errors import QuarantineError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.publication import followed_contract
from freshdata.privacy import load_secret
from freshdata.quarantine.corrections import Correction
from freshdata.quarantine.events import CHUNK, Place, Quarantine, RejectedEvent
from freshdata.quarantine.records import REPLAYS_SCHEMA, record_replays, replays_table
from freshdata.registry import schema_source
from freshdata.replay import only_one
from freshdata.services.kafka import client_config, end_offsets
from freshdata.settings import Settings

HEADER = "freshdata-replay-of"
PRODUCER_CONFIG = {
    "enable.idempotence": True,
    "acks": "all",
    "compression.type": "lz4",
    "linger.ms": 20,
    # What is too large is for the topic to say; this is what a broker takes in one request at most.
    "message.max.bytes": 100_000_000,
    # Who waits for it wants to hear of a broker that is gone.
    "message.timeout.ms": 60_000,
    "log_level": "0",
}


@dataclass(frozen=True)
class Choice:
    """Which rejected events to send again, and as what.

    Attributes:
        places: Only those at these places; all when empty.
        reason: Only those whose reason, or problem, contains this text.
        corrections: What to send in place of those that they name; then the two above are empty.
        again: Whether those that were sent already are sent once more.
    """

    places: tuple[Place, ...] = ()
    reason: str | None = None
    corrections: tuple[Correction, ...] = ()
    again: bool = False


@dataclass
class Outcome:
    """What became of the chosen events.

    Attributes:
        contract_version: Version of the contract that judged them.
        before: How many were sent before, and were left out.
        sent: Where each event that was sent had been, and where it is now.
        refused: Those that the contract still refuses, each with its reason; not sent.
        failed: Those that Kafka did not take, each with its words.
    """

    contract_version: str
    before: int = 0
    sent: list[tuple[Place, Place]] = field(default_factory=list)
    refused: list[tuple[Place, str]] = field(default_factory=list)
    failed: list[tuple[Place, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """An event that is to be sent again.

    Attributes:
        event: The rejected event.
        payload: What to send.
        corrected: Whether a person or program vouches for the payload.
    """

    event: RejectedEvent
    payload: bytes | None
    corrected: bool


def replay_rejected(
    settings: Settings, contract: Contract, choice: Choice, *, progress: Callable[[int, int], None] = lambda *_: None
) -> Outcome:
    """Send rejected events of a stream to its topic again.

    Args:
        settings: The instance; its broker must run.
        contract: The stream's contract; if its table goes by another version, that one judges.
        choice: Which events.
        progress: Called with the number of events that are done, and of all that were chosen.

    Raises:
        QuarantineError: an event that was named does not exist.
        AlreadyRunningError: another process sends events of the stream again.
        ServiceError: Kafka does not answer.
        LakeError: what was sent could not be noted.
    """
    catalog = open_catalog(settings)
    with only_one(settings, replays_table(contract)):
        quarantine = Quarantine(catalog, contract, load_secret(settings))
        if choice.corrections:
            chosen, corrections = _named(quarantine, choice.corrections)
        else:
            chosen, corrections = quarantine.select(choice.places, choice.reason), None
        outcome = Outcome(contract.version)
        if not choice.again:
            waiting = pc.is_null(chosen["replayed_at"])
            outcome.before = chosen.num_rows - pc.sum(waiting, min_count=0).as_py()
            chosen = chosen.filter(waiting)
            corrections = corrections and list(compress(corrections, waiting.to_pylist()))
        if not chosen.num_rows:
            return outcome
        contract = followed_contract(load_table(catalog, contract.table), contract)
        outcome.contract_version = contract.version
        sender = _Sender(settings, contract)
        for start in range(0, chosen.num_rows, CHUNK):
            events = quarantine.events(chosen.slice(start, CHUNK))
            if corrections is None:
                candidates = [Candidate(event, event.payload, corrected=False) for event in events]
            else:
                pairs = zip(events, corrections[start : start + CHUNK], strict=True)
                candidates = [Candidate(event, correction.payload, corrected=True) for event, correction in pairs]
            record_replays(catalog, contract, sender.send(candidates, outcome))
            progress(start + len(candidates), chosen.num_rows)
    return outcome


def judge(
    decoder: Decoder | ChangeDecoder, candidates: Sequence[Candidate], timestamp: int
) -> tuple[list[bytes | None], dict[int, str]]:
    """The key that each event is sent under, and the reasons of those that the contract refuses.

    A missing key is filled in. Where key and payload disagree one of the two is wrong: only of a correction it is known
    that its payload is right.

    Args:
        decoder: The contract's decoder.
        candidates: The events.
        timestamp: Record timestamp that they get, in milliseconds.
    """
    values = [candidate.payload for candidate in candidates]
    timestamps = np.full(len(values), timestamp, dtype=np.int64)
    if isinstance(decoder, ChangeDecoder):
        # A change is told by its value alone; its key is Debezium's.
        given = [candidate.event.key for candidate in candidates]
        return given, dict(decoder(values, given, timestamps).rejected)
    readable = decoder(values, None, timestamps)
    wanted = key_bytes(readable.rows[decoder.contract.rules.dedupe_key[0]]).to_pylist()
    right = dict(zip(readable.positions.tolist(), wanted, strict=True))
    keys = [
        right.get(position, candidate.event.key)
        if candidate.corrected or not candidate.event.key
        else candidate.event.key
        for position, candidate in enumerate(candidates)
    ]
    return keys, dict(decoder(values, keys, timestamps).rejected)


class _Sender:
    """Sends events to a stream's topic.

    Raises:
        ServiceError: Kafka does not answer, or has no such topic.
    """

    def __init__(self, settings: Settings, contract: Contract) -> None:
        self.topic = contract.rules.topic
        self.decoder = decoder_of(contract, schema_source(settings))
        self.clock = instance_clock(settings.home)
        self.partitions = end_offsets(settings, self.topic).keys()
        self.producer = Producer({**client_config(settings), **PRODUCER_CONFIG})

    def send(self, candidates: Sequence[Candidate], outcome: Outcome) -> pa.Table:
        """Send what the contract takes, wait until Kafka has it, and add to the outcome.

        Returns:
            What was sent, as rows of the table of replays.
        """
        now = self.clock.now()
        timestamp = int(now.timestamp() * 1000)
        keys, refused = judge(self.decoder, candidates, timestamp)
        answers: dict[int, Place | str] = {}
        for position, (candidate, key) in enumerate(zip(candidates, keys, strict=True)):
            if position not in refused:
                self._produce(candidate, key, timestamp, partial(_answered, answers, position))
        self.producer.flush()
        rows = []
        for position, candidate in enumerate(candidates):
            event, answer = candidate.event, answers.get(position, "no answer")
            if position in refused:
                outcome.refused.append((event.place, refused[position]))
            elif isinstance(answer, str):
                outcome.failed.append((event.place, answer))
            else:
                outcome.sent.append((event.place, answer))
                rows.append(
                    {
                        "partition": event.place.partition,
                        "offset": event.place.offset,
                        "ingested_at": event.ingested_at,
                        "replayed_at": now,
                        "to_partition": answer.partition,
                        "to_offset": answer.offset,
                        "corrected": candidate.payload != event.payload,
                    }
                )
        return pa.Table.from_pylist(rows, schema=REPLAYS_SCHEMA)

    def _produce(
        self, candidate: Candidate, key: bytes | None, timestamp: int, answered: Callable[[Any, Message | None], None]
    ) -> None:
        event = candidate.event
        # A key that was right has its partition already, by whatever rule its producer goes.
        keeps = key == event.key and event.place.partition in self.partitions
        where = {"partition": event.place.partition} if keeps else {}
        headers = [(HEADER, str(event.place).encode())]
        while True:
            try:
                self.producer.produce(
                    self.topic,
                    candidate.payload,
                    key,
                    timestamp=timestamp,
                    headers=headers,
                    on_delivery=answered,
                    **where,
                )
            except BufferError:
                self.producer.poll(0.1)
            except KafkaException as error:  # Too large for the client itself.
                answered(error.args[0], None)
                return
            else:
                self.producer.poll(0)
                return


def _answered(answers: dict[int, Place | str], position: int, error: Any, message: Message | None) -> None:
    if error is None and message is not None:
        answers[position] = Place(message.partition(), message.offset())
    else:
        answers[position] = error.str()


def _named(quarantine: Quarantine, corrections: Sequence[Correction]) -> tuple[pa.Table, list[Correction]]:
    """The row of the index that each correction means, in their order."""
    index = quarantine.index
    places = pc.is_in(index["offset"], pa.array({correction.place.offset for correction in corrections}, pa.int64()))
    rows: dict[Place, list[tuple[int, Any]]] = {}
    for row in pc.indices_nonzero(places).to_pylist():
        place = Place(index["partition"][row].as_py(), index["offset"][row].as_py())
        rows.setdefault(place, []).append((row, index["ingested_at"][row].as_py()))
    found: list[int] = []
    unknown: list[Place] = []
    for correction in corrections:
        here = [row for row, at in rows.get(correction.place, []) if correction.ingested_at in (None, at)]
        if len(here) > 1:
            raise QuarantineError(
                quarantine.stream,
                f"{len(here)} rejected events were at {correction.place}: the topic was re-created between them.",
                remedy="Leave `ingested_at` in the line, as `freshdata quarantine show --json` prints it.",
            )
        found += here
        unknown += [] if here else [correction.place]
    quarantine.refuse_unknown(unknown)
    return index.take(pa.array(found, pa.int64())), list(corrections)
