"""Judge a stream's events by the worker's own rules, and write what they take.

Events of requests that come at the same time are judged together, as a batch costs hardly more than one event; they
take turns, so that a large request does not hold up small ones.
"""

import asyncio
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from freshdata.clock import Clock
from freshdata.contracts import Contract
from freshdata.contracts.decode import Decoder, key_bytes
from serving_api.gateway.kafka import EventWriter, Failure

PORTION = 2_000  # events judged at once
TURN = 500  # events of a request in a portion
FIELD = re.compile(r"at `\$\.([^`]+)`|field `([^`]+)`|^([a-z][a-z0-9_]*) lies")


@dataclass(frozen=True)
class EventError:
    """Why an event was not written.

    Attributes:
        index: Its place in the request.
        code: ``contract``, ``tenant``, ``kafka`` (it will never take the event) or ``unavailable`` (it may, later).
        field: The field that is to blame, or None.
        reason: The reason in words.
    """

    index: int
    code: str
    field: str | None
    reason: str


@dataclass(eq=False)
class Submission:
    """A request's events on their way.

    Attributes:
        tenant: The only tenant whose events it may hold.
        events: The events.
        finished: Done when there is an outcome for each.
        judged: Events that have been judged.
        accepted: Events that Kafka has.
        errors: Why the others were not written.
    """

    tenant: str
    events: Sequence[bytes]
    finished: asyncio.Future[None]
    judged: int = 0
    accepted: int = 0
    errors: list[EventError] = field(default_factory=list)

    def delivered(self, index: int, failure: Failure | None) -> None:
        """An event has been written, or not."""
        if failure is None:
            self.accepted += 1
            self.settle()
        else:
            self.refuse(index, "kafka" if failure.final else "unavailable", None, failure.reason)

    def refuse(self, index: int, code: str, name: str | None, reason: str) -> None:
        """An event is not written."""
        self.errors.append(EventError(index, code, name, reason))
        self.settle()

    def settle(self) -> None:
        """Finish when there is an outcome for each event."""
        if self.accepted + len(self.errors) == len(self.events) and not self.finished.done():
            self.errors.sort(key=lambda error: error.index)
            self.finished.set_result(None)


class Intake:
    """One stream's events on their way to its topic.

    Attributes:
        contract: The contract that judges.
    """

    def __init__(self, contract: Contract, writer: EventWriter, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._waiting: deque[Submission] = deque()
        self._scheduled = False
        self.follow(contract)

    def follow(self, contract: Contract) -> None:
        """Judge by a contract from now on."""
        self.contract = contract
        self._decoder = Decoder(contract)
        self._names = {column.name: column.source_name for column in contract.columns}

    async def submit(self, tenant: str, events: Sequence[bytes]) -> Submission:
        """Judge and write events; returns when there is an outcome for each."""
        submission = Submission(tenant, events, asyncio.get_running_loop().create_future())
        self._waiting.append(submission)
        self._schedule()
        await submission.finished
        return submission

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._judge_some)

    def _judge_some(self) -> None:
        self._scheduled = False
        portion = self._portion()
        try:
            self._judge(portion)
        except Exception as error:
            for submission, _ in portion:
                if not submission.finished.done():
                    submission.finished.set_exception(error)
            raise
        finally:
            self._schedule()

    def _portion(self) -> list[tuple[Submission, int]]:
        """Events to judge now: their requests, and their places in them."""
        portion: list[tuple[Submission, int]] = []
        while self._waiting and len(portion) < PORTION:
            submission = self._waiting.popleft()
            upto = min(submission.judged + TURN, len(submission.events))
            portion += [(submission, index) for index in range(submission.judged, upto)]
            submission.judged = upto
            if upto < len(submission.events):
                self._waiting.append(submission)
        return portion

    def _judge(self, portion: Sequence[tuple[Submission, int]]) -> None:
        rules = self.contract.rules
        # The record's timestamp is the one that the event was judged with: the worker sees the same.
        timestamp = int(self._clock.now().timestamp() * 1000)
        values = [submission.events[index] for submission, index in portion]
        decoded = self._decoder(values, None, np.full(len(values), timestamp, dtype=np.int64))
        for position, reason in decoded.rejected:
            submission, index = portion[position]
            submission.refuse(index, "contract", self._field(reason), reason)
        keys = key_bytes(decoded.rows[rules.dedupe_key[0]]).to_pylist()
        tenants = decoded.rows[rules.tenant_field].cast(pa.string()).to_pylist()
        for position, key, tenant in zip(decoded.positions.tolist(), keys, tenants, strict=True):
            submission, index = portion[position]
            if tenant == submission.tenant:
                self._writer.write(rules.topic, key, values[position], timestamp, partial(submission.delivered, index))
            else:
                name = self._names[rules.tenant_field]
                submission.refuse(index, "tenant", name, f"{name} is another tenant's than the sender's")

    def _field(self, reason: str) -> str | None:
        """The field that a reason names, as events call it."""
        found = FIELD.search(reason)
        name = next(filter(None, found.groups())) if found else None
        return self._names.get(name, name) if name else None
