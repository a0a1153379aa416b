"""Dagster's storages in SQLite, with files that stay open, and with what belongs together in one transaction a file.

Dagster's own make an engine for each statement, have its SQL compiled anew, and wait for the disk: three times for each
of the 170 events of a run. The files are the same: an instance may go from one to the other.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any, Self

import sqlalchemy
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._serdes import ConfigurableClassData

MOST_FILES = 8  # Of events: the index, and those of the runs last written or read.


class _KeptOpen:
    """What the storages of runs and of schedules have in common."""

    _conn_string: str

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Make the storage that ``dagster.yaml`` describes."""
        return cls.from_local(inst_data=inst_data, **config_value)  # type: ignore[attr-defined, no-any-return]

    @contextmanager
    def connect(self) -> Iterator[sqlalchemy.Connection]:
        """A connection in a transaction."""
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close the file."""
        self._engine.dispose()

    @cached_property
    def _engine(self) -> sqlalchemy.Engine:
        return _engine(self._conn_string)


class WarmRunStorage(_KeptOpen, SqliteRunStorage):
    """The runs of an instance with warm runs."""


class WarmScheduleStorage(_KeptOpen, SqliteScheduleStorage):
    """The ticks of the sensors of an instance with warm runs."""


class WarmEventLogStorage(SqliteEventLogStorage):
    """The event log of an instance with warm runs.

    Args:
        base_dir: The folder with a file for each run, and an index over them.
        inst_data: Dagster's own.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._mine = threading.RLock()
        self._engines: OrderedDict[str, sqlalchemy.Engine] = OrderedDict()
        self._transactions: tuple[ExitStack, dict[str, sqlalchemy.Connection]] | None = None
        super().__init__(base_dir, inst_data)  # It makes the index, if there is none.

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Make the storage that ``dagster.yaml`` describes."""
        return cls(inst_data=inst_data, **config_value)

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event: as Dagster does, in one transaction a file."""
        with self._together():
            super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store some events, in one transaction a file."""
        with self._together():
            super().store_event_batch(events)

    def dispose(self) -> None:
        """Close the files."""
        with self._mine:
            while self._engines:
                self._engines.popitem()[1].dispose()
        super().dispose()

    @contextmanager
    def _together(self) -> Iterator[tuple[ExitStack, dict[str, sqlalchemy.Connection]]]:
        """What is written within is committed at its end, or not at all."""
        with self._mine:
            if self._transactions is not None:
                yield self._transactions
                return
            try:
                with ExitStack() as stack:
                    self._transactions = stack, {}
                    yield self._transactions
            finally:
                self._transactions = None

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sqlalchemy.Connection]:
        """Dagster's one way to a file."""
        with self._together() as (stack, connections):
            if shard not in connections:
                connections[shard] = stack.enter_context(self._file(shard).begin())
            yield connections[shard]

    def _file(self, shard: str) -> sqlalchemy.Engine:
        if shard not in self._engines:
            engine = _engine(self.conn_string_for_shard(shard))
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            self._engines[shard] = engine
            if len(self._engines) > MOST_FILES:
                self._engines.popitem(last=False)[1].dispose()
        self._engines.move_to_end(shard)
        return self._engines[shard]


def _engine(address: str) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(address, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
    sqlalchemy.event.listen(engine, "connect", _trust_the_log)
    return engine


def _trust_the_log(connection: Any, _: object) -> None:
    # With its write-ahead log, SQLite need not wait for the disk to keep a file whole. What a power cut takes are the
    # last events, and no data: a run that lost its end is found and done again.
    connection.execute("PRAGMA synchronous=NORMAL")
