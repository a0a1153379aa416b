"""What somebody has chosen of a new stream, and what was inferred of it."""

from dataclasses import dataclass, field
from datetime import timedelta

from freshdata.streams.fields import Field, Kept
from freshdata.streams.samples import Sample


@dataclass(frozen=True)
class Choices:
    """What somebody has chosen; each is inferred where it is None.

    Attributes:
        key: Field that identifies an event.
        version: Field that orders the versions of one key.
        event_time: Field that says when it happened.
        tenant: Field that says whose it is.
        types: Field to its ``physicalType``.
        topic: Kafka topic.
        partitions: Number of its partitions.
        granularity: Bronze's partitions, ``day`` or ``hour``.
        tenant_partition: ``tenant`` or ``bucket(N)``.
        lateness: ``allowedLateness``.
        freshness: The SLA.
        owner: Owning team.
    """

    key: str | None = None
    version: str | None = None
    event_time: str | None = None
    tenant: str | None = None
    types: dict[str, str] = field(default_factory=dict)
    topic: str | None = None
    partitions: int | None = None
    granularity: str | None = None
    tenant_partition: str | None = None
    lateness: timedelta | None = None
    freshness: timedelta | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Decision:
    """One thing that was decided.

    Attributes:
        what: What it is about.
        value: What was decided.
        why: Why.
        review: Whether somebody should look at it: a wrong guess would cost more than a change of the file.
    """

    what: str
    value: str
    why: str
    review: bool = False


@dataclass(frozen=True)
class Inferred:
    """A stream, as a sample lets expect it.

    Attributes:
        name: Its name.
        sample: The sample.
        fields: The contract's fields.
        kept: Fields without a place of their own.
        key: Column that identifies an event.
        version: Column that orders its versions, or None.
        event_time: Column that says when it happened.
        event_date: Column that says its day.
        derives_date: Whether that is the UTC date of the event time.
        tenant: Column that says whose it is.
        topic: Kafka topic.
        partitions: Its number of partitions.
        granularity: Bronze's partitions.
        tenant_partition: How tenants are partitioned.
        lateness: How late an event may be.
        dedupe_window: How long a key is remembered.
        freshness: How old a tenant's newest event may be.
        owner: Owning team.
        decisions: What was decided, and why.
    """

    name: str
    sample: Sample
    fields: tuple[Field, ...]
    kept: tuple[Kept, ...]
    key: str
    version: str | None
    event_time: str
    event_date: str
    derives_date: bool
    tenant: str
    topic: str
    partitions: int
    granularity: str
    tenant_partition: str
    lateness: timedelta
    dedupe_window: timedelta
    freshness: timedelta
    owner: str
    decisions: tuple[Decision, ...]

    def field(self, name: str) -> Field:
        """The field of a column."""
        return next(each for each in self.fields if each.name == name)
