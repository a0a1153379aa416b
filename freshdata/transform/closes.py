"""Daily closes: when a day is over and Gold has followed all that came in for it, each Gold table gets a tag for it.

What was reported for a day can be read again under its tag, ``close-2013-06-30``, after late events have changed the
day.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from pyiceberg.catalog import Catalog

from freshdata.contracts import Contract
from freshdata.errors import LakeError
from freshdata.intervals import day_of
from freshdata.lake.catalog import load_table
from freshdata.lake.cursors import read_cursor
from freshdata.lake.tags import Tag, create_tag, list_tags
from freshdata.transform.manifest import ModelInfo, sources
from freshdata.transform.upstream import Upstream

LAYER = "gold"


@dataclass(frozen=True)
class CloseRules:
    """When days are closed, and for how long the closes are kept.

    Attributes:
        kept: How long a close's tag is kept: each keeps the files of its day's state from being removed. Days that
            have been over for longer are not closed any more.
    """

    kept: timedelta = timedelta(days=90)


class Closes:
    """Closes the days of an instance's Gold tables.

    Args:
        catalog: The catalog.
        models: The models by name.
        contracts: The contracts by name.
        rules: When, and for how long; the default :class:`CloseRules` when None.

    Attributes:
        models: The models whose tables are closed: the Gold ones with daily partitions.
    """

    def __init__(
        self,
        catalog: Catalog,
        models: Mapping[str, ModelInfo],
        contracts: Mapping[str, Contract],
        rules: CloseRules | None = None,
    ) -> None:
        self._catalog = catalog
        self._all = models
        self._contracts = contracts
        self._rules = rules or CloseRules()
        self._upstream = Upstream(catalog, models, contracts)
        self.models = closed_models(models)

    def closes_at(self, model: ModelInfo, day: date) -> datetime:
        """When a day is over for a model: at the day's end, in UTC, plus the time that its events may take.

        That is the longer of the allowed lateness and the freshness SLA, of the slowest of its streams.
        """
        return _end(day) + self._allowed(model)

    def closable(self, model: ModelInfo, days: Iterable[date], now: datetime) -> set[date]:
        """Those of some days that are over, not closed yet, and wholly in the model's table.

        Args:
            model: One of :attr:`models`.
            days: Days.
            now: The instance's present.
        """
        # Once for all days: with thousands of them and hundreds of streams this took minutes.
        allowed = self._allowed(model)
        over = {day for day in days if timedelta(0) <= now - _end(day) - allowed < self._rules.kept}
        if not over or not self._catalog.table_exists(model.name):
            return set()
        table = load_table(self._catalog, model.name)
        if table.current_snapshot() is None:
            return set()
        tags = {tag.name for tag in list_tags(table)}
        open_days = {day for day in over if close_name(day) not in tags}
        pending = self._pending(model) if open_days else frozenset()
        return set() if pending is None else open_days - pending

    def close(self, model: ModelInfo, day: date, now: datetime) -> Tag:
        """Close a day of a model's table; a close that is there stays as it is.

        Args:
            model: One of :attr:`models`.
            day: The day.
            now: The instance's present.

        Raises:
            LakeError: the day is not over, or has been for too long, or not all that came in for it is in the table.
        """
        name = close_name(day)
        if existing := self._existing(model, name):
            return existing
        if day not in self.closable(model, [day], now):
            raise LakeError(
                model.name,
                f"{day} cannot be closed now: it closes at {self.closes_at(model, day)} for {self._rules.kept.days} "
                f"days by the instance's clock, which says {now}, and when all that came in for it is in the table.",
                remedy="Wait for the clock, or materialize what is upstream of it.",
            )
        # The table has gone on since, at most: what was in it is in its head.
        return create_tag(load_table(self._catalog, model.name), name, kept=self._rules.kept)

    def _allowed(self, model: ModelInfo) -> timedelta:
        """The time that the events of a day may take, after it is over."""
        made_from = sources(self._all, model)
        allowed = [
            max(contract.rules.allowed_lateness, contract.rules.freshness)
            for contract in self._contracts.values()
            if contract.stream and contract.table in made_from
        ]
        return max(allowed, default=timedelta(0))

    def _existing(self, model: ModelInfo, name: str) -> Tag | None:
        return next((tag for tag in list_tags(load_table(self._catalog, model.name)) if tag.name == name), None)

    def _pending(self, model: ModelInfo) -> frozenset[date] | None:
        """The days for which a table upstream holds something that has not come to the model's table; None for all."""
        days: frozenset[date] = frozenset()
        for each in self._chain(model):
            pending = self._upstream.pending(each, read_cursor(load_table(self._catalog, each.name)))
            if pending.dates is None:
                return None
            days |= {day_of(interval) for interval in pending.dates}
        return days

    def _chain(self, model: ModelInfo) -> Iterator[ModelInfo]:
        """A model and those that it is made from."""
        yield model
        for upstream in model.depends_on:
            if upstream in self._all:
                yield from self._chain(self._all[upstream])


def _end(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def closed_models(models: Mapping[str, ModelInfo]) -> list[ModelInfo]:
    """The models whose days are closed."""
    return [model for model in models.values() if model.layer == LAYER and model.daily]


def close_name(day: date) -> str:
    """The tag of a day's close."""
    return f"close-{day}"
