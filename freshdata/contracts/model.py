"""What the platform needs to know of a data contract, read once from its ODCS document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

import pyarrow as pa

from freshdata.intervals import Granularity

Kind = Literal["stream", "lookup"]
UnknownFields = Literal["quarantine", "ignore", "keep"]
ClusteringOrder = Literal["sort", "zorder"]
Compatibility = Literal[
    "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE", "NONE"
]
SchemaFormat = Literal["avro", "json"]
Protection = Literal["hash", "tokenize", "drop"]
# The column that keeps an event's unknown fields. A contract's own names begin with a letter.
EXTRA = "_extra"


@dataclass(frozen=True)
class Column:
    """One field of a contract.

    Attributes:
        name: Field and column name.
        type: Arrow type of the column.
        required: Whether an event without it breaks the contract.
        description: What it means, or an empty string.
        enum: The only values allowed, or an empty tuple.
        limits: msgspec constraints (``ge``, ``le``, ``gt``, ``lt``, ``pattern``, ``min_length``, ``max_length``).
        source_name: What the field is called where it comes from: in an event, or in a database's table.
        id: What it is known by over versions, whatever its name: the ODCS element id, else its name.
        aliases: Older names, by which events may still carry it.
        deprecated: Whether producers should stop sending it.
        protection: What becomes of it on the way into Bronze; None stores it as it comes.
    """

    name: str
    type: pa.DataType
    required: bool
    description: str
    enum: tuple[Any, ...]
    limits: dict[str, Any]
    source_name: str
    id: str = ""
    aliases: tuple[str, ...] = ()
    deprecated: bool = False
    protection: Protection | None = None


@dataclass(frozen=True)
class Enrichment:
    """Columns that the worker adds from a lookup table.

    Attributes:
        lookup: Name of the lookup contract, for example ``airlines``.
        key: The stream's column that holds the lookup's primary key.
        columns: Lookup column to the name it gets in Bronze.
    """

    lookup: str
    key: str
    columns: dict[str, str]


@dataclass(frozen=True)
class Validity:
    """When each row of a lookup is valid: its key has one row for each begin.

    Attributes:
        begin: Column that says from when on.
        end: Column that says until when, exclusive (null: open); None when a row is valid until the next one begins.
    """

    begin: str
    end: str | None


@dataclass(frozen=True)
class Operations:
    """Which of a stream's events insert, update and delete the row of their key.

    Attributes:
        field: Column that holds an event's operation.
        insert: Its values that insert a row.
        update: Its values that change one.
        delete: Its values that delete one.
        delete_mode: Whether Silver removes a deleted row (``hard``), or keeps and flags it (``soft``).
    """

    field: str
    insert: tuple[str, ...]
    update: tuple[str, ...]
    delete: tuple[str, ...]
    delete_mode: Literal["hard", "soft"]


@dataclass(frozen=True)
class ChangeCapture:
    """The table of a database whose changes a stream carries.

    Attributes:
        source: Name of the database: Debezium's topic prefix, and the tenant of all rows.
        table: The table, with its schema.
    """

    source: str
    table: str


@dataclass(frozen=True)
class CommitPolicy:
    """When a worker commits what it holds: at the first limit that is reached.

    Attributes:
        max_rows: Rows of a commit.
        max_bytes: Bytes of a commit's decoded events in memory.
        max_open_partitions: Table partitions of a commit: each is at least one data file.
        max_age: How long the oldest event of a commit may wait.
        min_file_rows: A commit with fewer rows for each open partition is a small one. Small commits that follow one
            another wait twice as long each time, so that a trickle of events is no stream of tiny files.
        max_idle_age: How long an event of a small commit may wait at most, and one that is read while the worker works
            off a backlog.
    """

    max_rows: int = 250_000
    max_bytes: int = 128 * 1024 * 1024
    max_open_partitions: int = 5_000
    max_age: timedelta = timedelta(seconds=2)
    min_file_rows: int = 100
    max_idle_age: timedelta = timedelta(seconds=10)


@dataclass(frozen=True)
class Heartbeat:
    """The longest silence of a tenant that is normal.

    Attributes:
        longest: Of every tenant but those named.
        tenants: Tenant to its own.
    """

    longest: timedelta
    tenants: Mapping[str, timedelta] = field(default_factory=dict)

    def of(self, tenant: str) -> timedelta:
        """The longest silence of a tenant that is normal."""
        return self.tenants.get(tenant, self.longest)


@dataclass(frozen=True)
class AnomalyRules:
    """How far the measures of a day may be from what the days before it let expect.

    Attributes:
        volume: Robust deviations that a day's number of rows may be off.
        nulls: The same of a column's share of nulls.
        distribution: The same of where its values lie.
        ignored: Columns that are not judged.
    """

    volume: float = 5.0
    nulls: float = 5.0
    distribution: float = 5.0
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Webhook:
    """How the deliveries of a webhook's sender become events of a stream.

    Attributes:
        signature: How a delivery is signed: as Stripe does, or as GitHub does.
        fields: Field to where its value comes from: ``body``, ``body.PATH``, ``header.NAME`` or ``received``.
    """

    signature: Literal["stripe", "github"]
    fields: Mapping[str, str]


@dataclass(frozen=True)
class StreamRules:
    """How a stream's events are keyed, timed, deduplicated and laid out.

    Attributes:
        topic: Kafka topic.
        topic_partitions: Number of partitions the topic is created with.
        tenant_field: Column that names the tenant.
        event_time_field: Column that says when the event happened (UTC).
        event_date_field: Column that says which day's Silver and Gold partitions the event belongs to.
        derives_event_date: Whether the worker computes that column, as the UTC date of the event time.
        dedupe_key: Columns that identify an event: the one that is the Kafka message key, or of a change, together with
            its version, its row's primary key and its operation.
        dedupe_window: How long (event time) a key is remembered.
        version_field: Column that orders versions of one key, or None when events are never corrected.
        allowed_lateness: How far behind the newest event time an event may be before it is flagged late.
        partition_idle_after: A Kafka partition without a record for this long no longer holds back the watermark.
        max_future: How far ahead of its Kafka timestamp an event time may be before the event is refused.
        unknown_fields: What happens to an event that carries fields the contract does not name: it goes to quarantine,
            they are left out, or they are kept in the column ``_extra``.
        granularity: Whether Bronze has partitions by day or by hour of the ingestion time.
        tenant_buckets: Number of hash buckets for the tenant partition; None partitions by the tenant itself.
        clustering: Columns that rows of a file are sorted by, before event time.
        clustering_order: Order that a compaction gives the rows: sorted by the clustering columns one after another, or
            along a Z-order curve through all of them.
        commit: When a worker commits what it holds.
        publish_clean: Whether accepted events are also published, each once, to ``<topic>.clean``.
        publish_clean_from: Where that begins when it is switched on for a table that has rows.
        freshness: SLA: the newest event of each tenant may be this old.
        heartbeat: How long a tenant may be silent: within it, it is not late, and a day is complete. None: as long as
            the SLA.
        idle_after: A tenant silent for longer is not expected any more: it counts as idle, not as late.
        enrichments: Lookup columns the worker adds.
        operations: Which events insert, update and delete; None when none of them says.
        capture: The table whose changes the events are; None when they are events of their own.
        anomalies: What counts as unusual of a day.
        webhooks: Sender to how its webhooks become events.
        compatibility: How a version must be compatible with those that were published before it.
        schema_format: What the contract is registered as in a schema registry.
    """

    topic: str
    topic_partitions: int
    tenant_field: str
    event_time_field: str
    event_date_field: str
    derives_event_date: bool
    dedupe_key: tuple[str, ...]
    dedupe_window: timedelta
    version_field: str | None
    allowed_lateness: timedelta
    partition_idle_after: timedelta
    max_future: timedelta
    unknown_fields: UnknownFields
    granularity: Granularity
    tenant_buckets: int | None
    clustering: tuple[str, ...]
    clustering_order: ClusteringOrder
    commit: CommitPolicy
    publish_clean: bool
    publish_clean_from: Literal["beginning", "now"]
    freshness: timedelta
    heartbeat: Heartbeat | None
    idle_after: timedelta
    enrichments: tuple[Enrichment, ...]
    operations: Operations | None
    capture: ChangeCapture | None
    anomalies: AnomalyRules
    webhooks: Mapping[str, Webhook]
    compatibility: Compatibility
    schema_format: SchemaFormat

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that tell which event a row is: of a change, with its place in the database's log."""
        return (*self.dedupe_key, self.version_field) if self.capture and self.version_field else self.dedupe_key


@dataclass(frozen=True)
class Lifecycle:
    """Until when a contract is supported.

    Attributes:
        deprecated: Whether its owner asks consumers and producers to leave it.
        end_of_support: Day after which its owner no longer answers for it, or None.
        end_of_life: Day after which its data may be gone, or None.
    """

    deprecated: bool = False
    end_of_support: date | None = None
    end_of_life: date | None = None

    def warning(self, today: date) -> str:
        """What whoever uses the contract must know today; empty when there is nothing."""
        if self.end_of_life and today > self.end_of_life:
            return f"its life ended on {self.end_of_life}"
        if self.end_of_support and today > self.end_of_support:
            return f"its support ended on {self.end_of_support}"
        if not self.deprecated:
            return ""
        end = self.end_of_support or self.end_of_life
        return f"it is deprecated, and supported until {end}" if end else "it is deprecated"


@dataclass(frozen=True)
class Contract:
    """One data contract.

    Attributes:
        name: Schema name: the stream's or lookup's name in every layer.
        version: Contract version.
        kind: ``stream`` (fed by Kafka) or ``lookup`` (a small reference table).
        description: What the data is.
        owner: Owning team.
        contact: Where to reach it, or an empty string.
        lifecycle: Until when it is supported.
        columns: The fields, in contract order.
        primary_key: Primary key columns.
        stream: The stream rules; None for a lookup.
        validity: When a lookup's rows are valid; None when they always are.
        odcs: The parsed ODCS document, for what reads it further (quality rules).
        subject: Column that names the person whom a row is about; None when it is about nobody.
    """

    name: str
    version: str
    kind: Kind
    description: str
    owner: str
    contact: str
    lifecycle: Lifecycle
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    stream: StreamRules | None
    validity: Validity | None
    odcs: Any
    subject: str | None = None

    @property
    def rules(self) -> StreamRules:
        """The stream rules of a contract that is known to be a stream's."""
        if self.stream is None:
            raise TypeError(f"{self.name} is a lookup, not a stream")
        return self.stream

    @property
    def table(self) -> str:
        """Identifier of the table its data lands in."""
        return f"bronze.{self.name}" if self.kind == "stream" else f"lookup.{self.name}"

    @property
    def quarantine_table(self) -> str:
        """Identifier of the table that keeps the events that broke the contract."""
        return f"quarantine.{self.name}"

    @property
    def clean_topic(self) -> str:
        """Name of the topic that accepted events are published to when the contract asks for it."""
        return f"{self.rules.topic}.clean"

    @property
    def arrow_schema(self) -> pa.Schema:
        """The contract's own fields as an Arrow schema; what changes say besides, and ``_extra`` for unknown ones."""
        if self.stream is not None and self.stream.capture is not None:
            from freshdata.contracts.capture import change_schema

            return change_schema(self.columns)
        fields = [pa.field(column.name, column.type, not column.required) for column in self.columns]
        keeps = self.stream is not None and self.stream.unknown_fields == "keep"
        return pa.schema([*fields, pa.field(EXTRA, pa.string())] if keeps else fields)

    @property
    def protected(self) -> dict[str, Protection]:
        """The fields that are protected, and how."""
        return {column.name: column.protection for column in self.columns if column.protection}

    @property
    def stored_schema(self) -> pa.Schema:
        """The fields as Bronze has them: without those that are dropped, and what is hashed or tokenized as text."""
        protected = self.protected
        return pa.schema(
            field.with_type(pa.string()) if field.name in protected else field
            for field in self.arrow_schema
            if protected.get(field.name) != "drop"
        )
