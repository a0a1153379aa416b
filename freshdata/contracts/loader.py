"""Read data contracts (Open Data Contract Standard v3 YAML) from a folder."""

import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import yaml
from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, SchemaProperty
from pydantic import ValidationError

from freshdata.contracts.anomalies import read_anomalies
from freshdata.contracts.capture import CHANGE_COLUMNS, CHANGED_ON, OPERATION, read_capture
from freshdata.contracts.commits import read_commit_policy
from freshdata.contracts.enrichments import check_enrichments, read_enrichments, read_validity
from freshdata.contracts.heartbeat import read_duration, read_heartbeat
from freshdata.contracts.lifecycle import read_contact, read_lifecycle
from freshdata.contracts.model import (
    ClusteringOrder,
    Column,
    Compatibility,
    Contract,
    Enrichment,
    SchemaFormat,
    StreamRules,
)
from freshdata.contracts.operations import read_operations
from freshdata.contracts.protection import check_protection, read_protection, read_subject
from freshdata.contracts.webhooks import read_webhooks
from freshdata.errors import ContractError

SUFFIX = ".odcs.yaml"
# Names become table, topic and column identifiers: nothing that would need quoting anywhere.
IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}")
# Files of a commit stay few however many tenants there are.
DEFAULT_TENANT_PARTITION = "bucket(32)"
VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
PHYSICAL: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamptz": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"),
}
# What databases have besides: only changes carry it.
CAPTURED = {"binary": pa.binary(), "time": pa.time64("us")}
ARRAY = re.compile(r"array<(.+)>")
DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(\d{1,2})\)")
LIMITS = {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt"}
STRING_LIMITS = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern"}


def load_contracts(folder: Path) -> dict[str, Contract]:
    """Read every contract of a folder.

    Args:
        folder: Folder with ``*.odcs.yaml`` files.

    Returns:
        The contracts by name, sorted.

    Raises:
        ContractError: a file is not a valid contract, two files use one name or one topic, or a lookup does not fit its
            stream.
    """
    contracts: dict[str, Contract] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        contract = load_contract(path)
        if contract.name in contracts:
            raise ContractError(path.name, f"the name {contract.name} is taken.", remedy="Rename one of the two.")
        contracts[contract.name] = contract
    if not contracts:
        raise ContractError(str(folder), "no contract found.", remedy=f"Put a *{SUFFIX} file there.")
    topics: dict[str, str] = {}
    for contract in contracts.values():
        if contract.stream and (other := topics.setdefault(contract.rules.topic, contract.name)) != contract.name:
            raise ContractError(
                contract.name,
                f"reads the topic {contract.rules.topic}, as {other} does: their workers would share its partitions.",
                remedy="Give each stream a topic of its own.",
            )
    check_enrichments(contracts)
    return contracts


def stream_contract(contracts: dict[str, Contract], name: str) -> Contract:
    """The stream contract of a name.

    Raises:
        ContractError: there is none.
    """
    contract = contracts.get(name)
    if contract is None or contract.kind != "stream":
        streams = ", ".join(c.name for c in contracts.values() if c.kind == "stream")
        raise ContractError(name, "there is no stream contract of this name.", remedy=f"Choose one of: {streams}.")
    return contract


def load_contract(path: Path) -> Contract:
    """Read one contract.

    Raises:
        ContractError: the file is not ODCS, or lacks what the platform needs.
    """
    try:
        # With the C loader: every run's process reads all contracts, and the library's own takes 30 ms for each.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, yaml.YAMLError) as error:
        raise ContractError(path.name, f"cannot be read: {error}.", remedy="See docs/contracts.md.") from error
    return contract_of(path.name, document)


def contract_of(source: str, document: Any) -> Contract:
    """The contract that an ODCS document is.

    Args:
        source: Where the document comes from, for error messages.
        document: Its content.

    Raises:
        ContractError: it is not ODCS, or lacks what the platform needs.
    """
    try:
        return _contract(source, OpenDataContractStandard.model_validate(document))
    except ValidationError as error:
        raise ContractError(source, f"cannot be read: {error}.", remedy="See docs/contracts.md.") from error


def contract_text(contract: Contract) -> str:
    """A contract's document as JSON, as it is published: the same for the same contents, comments left out."""
    text: str = contract.odcs.model_dump_json(by_alias=True, exclude_none=True)
    return text


def parse_contract(source: str, text: str) -> Contract:
    """Read what :func:`contract_text` wrote.

    Args:
        source: Where the text comes from, for error messages.
        text: The document.

    Raises:
        ContractError: it lacks what the platform needs.
    """
    try:
        return _contract(source, OpenDataContractStandard.model_validate_json(text))
    except ValidationError as error:
        raise ContractError(source, f"cannot be read: {error}.", remedy="Publish the contract again.") from error


def version_key(version: str) -> tuple[int, ...]:
    """A version's place in the order of versions: ``1.10`` comes after ``1.9``, and ``1.0`` is ``1``."""
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _contract(source: str, odcs: OpenDataContractStandard) -> Contract:
    if not odcs.schema_ or len(odcs.schema_) != 1:
        raise ContractError(source, "must hold exactly one schema.", remedy="Write one contract for each stream.")
    return _Reader(source, odcs, odcs.schema_[0]).contract()


class _Reader:
    """Reads one ODCS schema object; every complaint names the file and the field."""

    def __init__(self, file: str, odcs: OpenDataContractStandard, schema: SchemaObject) -> None:
        self.file = file
        self.odcs = odcs
        self.schema = schema
        self.custom: dict[str, Any] = {str(item.property): item.value for item in schema.customProperties or []}
        self.captured = read_capture(file, self.custom)
        if self.captured is not None:
            self.custom |= self.captured.implied

    def error(self, message: str, remedy: str) -> ContractError:
        return ContractError(self.file, message, remedy=remedy)

    def contract(self) -> Contract:
        columns = tuple(self.column(item) for item in self.schema.properties or [])
        if not columns:
            raise self.error("has no properties.", "List the fields under schema.properties.")
        name = self.identifier(self.schema.name)
        written = Counter(name for column in columns for name in (column.source_name, *column.aliases))
        if twice := [source for source, count in written.items() if count > 1]:
            raise self.error(f"has two fields for {twice[0]!r}.", "Give each a physicalName and aliases of its own.")
        if twice := [each for each, count in Counter(column.id for column in columns).items() if count > 1]:
            raise self.error(f"has two fields with the id {twice[0]!r}.", "Give each an id of its own.")
        kind = self.custom.get("kind", "stream")
        if kind not in ("stream", "lookup"):
            raise self.error(f"kind is {kind!r}.", "Use stream or lookup.")
        if kind == "lookup" and any(column.protection for column in columns):
            raise self.error("is a lookup and protects a field.", "Protect it where the table is made.")
        keys = [item for item in self.schema.properties or [] if item.primaryKey]
        if not keys:
            raise self.error("has no primary key.", "Mark a property with primaryKey: true.")
        keys.sort(key=lambda item: item.primaryKeyPosition or 0)
        if not VERSION.fullmatch(str(self.odcs.version)):
            raise self.error(f"the version is {self.odcs.version!r}.", "Use numbers and dots, such as 1.2.0.")
        primary_key = tuple(str(item.name) for item in keys)
        return Contract(
            name=name,
            version=str(self.odcs.version),
            kind=kind,
            description=self.schema.description or "",
            owner=(self.odcs.team.name if self.odcs.team and hasattr(self.odcs.team, "name") else "") or "unowned",
            contact=read_contact(self.odcs),
            lifecycle=read_lifecycle(self.file, self.odcs),
            columns=columns,
            primary_key=primary_key,
            stream=self.rules({column.name: column for column in columns}, primary_key) if kind == "stream" else None,
            validity=read_validity(self.file, kind, self.custom, columns, primary_key),
            odcs=self.odcs,
            subject=read_subject(self.file, self.custom.get("subjectField"), columns),
        )

    def identifier(self, name: str | None) -> str:
        if not name or not IDENTIFIER.fullmatch(name):
            raise self.error(f"{name!r} is not a valid name.", "Use lower case letters, digits and underscores.")
        return name

    def column(self, item: SchemaProperty) -> Column:
        options, kind = item.logicalTypeOptions or {}, self.type(item)
        names = LIMITS if item.logicalType in ("integer", "number") else STRING_LIMITS
        limits = {ours: options[theirs] for theirs, ours in names.items() if theirs in options}
        if "pattern" in limits:
            # JSON's `$` ends the text; Python's also accepts a newline after it ("UA\n" passed "^[A-Z]+$").
            limits["pattern"] = re.sub(r"\$$", r"\\Z", limits["pattern"])
        return Column(
            name=self.identifier(item.name),
            type=kind,
            required=bool(item.required or item.primaryKey),
            description=item.description or "",
            enum=tuple(value.value for value in item.enum or []),
            limits=limits,
            source_name=item.physicalName or str(item.name),
            id=item.id or str(item.name),
            aliases=self.aliases(item),
            deprecated=bool(item.deprecated),
            protection=read_protection(self.file, item, kind),
        )

    def aliases(self, item: SchemaProperty) -> tuple[str, ...]:
        given: Any = next((each.value for each in item.customProperties or [] if each.property == "aliases"), [])
        if not isinstance(given, list):
            raise self.error(f"field {item.name}: aliases is {given!r}.", "List the field's older names.")
        return tuple(map(str, given))

    def type(self, item: SchemaProperty) -> pa.DataType:
        physical = (item.physicalType or "").lower()
        if self.captured is not None:
            if match := ARRAY.fullmatch(physical):
                return pa.list_(self.type(item.model_copy(update={"physicalType": match[1]})))
            if physical in CAPTURED:
                return CAPTURED[physical]
        if match := DECIMAL.fullmatch(physical):
            return pa.decimal128(int(match[1]), int(match[2]))
        if physical not in PHYSICAL:
            raise self.error(
                f"field {item.name}: physicalType {item.physicalType!r} is not supported.",
                f"Use one of {', '.join(PHYSICAL)} or decimal(p,s).",
            )
        return PHYSICAL[physical]

    def rules(self, columns: dict[str, Column], primary_key: tuple[str, ...]) -> StreamRules:
        dedupe_key = tuple(self.custom.get("dedupeKey") or ())
        captured = self.captured
        if captured is not None:
            dedupe_key = (*primary_key, OPERATION)
        tenant = self.custom.get("tenantPartition", DEFAULT_TENANT_PARTITION)
        buckets = re.fullmatch(r"bucket\(([1-9]\d{0,3})\)", str(tenant))
        if tenant != "tenant" and not buckets:
            raise self.error(f"tenantPartition is {tenant!r}.", "Use tenant or bucket(N).")
        freshness, idle_after = self.sla("freshness"), self.duration("tenantIdleAfter", "P7D")
        enrichments = self.enrichments(columns)
        rules = StreamRules(
            topic=str(self.custom.get("topic") or self.schema.name),
            topic_partitions=int(self.custom.get("topicPartitions", 1)),
            tenant_field=str(self.custom.get("tenantField", "tenant_id")),
            event_time_field=str(self.custom.get("eventTimeField", "event_time")),
            event_date_field=CHANGED_ON if captured else str(self.custom.get("eventDateField", "event_date")),
            derives_event_date="eventDateField" not in self.custom,
            dedupe_key=dedupe_key,
            dedupe_window=self.duration("dedupeWindow", "P1D"),
            version_field=self.custom.get("versionField"),
            allowed_lateness=self.duration("allowedLateness", "PT1H"),
            partition_idle_after=self.duration("partitionIdleAfter", "PT1M"),
            max_future=self.duration("maxFuture", "PT1H"),
            unknown_fields=self.custom.get("unknownFieldPolicy", "quarantine"),
            granularity=self.custom.get("partitionGranularity", "day"),
            tenant_buckets=int(buckets[1]) if buckets else None,
            clustering=tuple(self.custom.get("clusteringColumns") or ()),
            clustering_order=self.clustering_order(),
            commit=read_commit_policy(self.file, self.custom.get("commitPolicy")),
            publish_clean=self.publish_clean(),
            publish_clean_from=self.custom.get("publishCleanFrom", "beginning"),
            freshness=freshness,
            heartbeat=read_heartbeat(self.file, self.custom.get("heartbeat"), freshness, idle_after),
            idle_after=idle_after,
            enrichments=enrichments,
            operations=captured.operations
            if captured
            else read_operations(self.file, self.custom.get("operations"), columns),
            capture=captured.capture if captured else None,
            anomalies=read_anomalies(self.file, self.custom.get("anomalies"), columns, enrichments),
            webhooks=read_webhooks(
                self.file, self.custom.get("webhooks"), columns, str(self.custom.get("tenantField", "tenant_id"))
            ),
            compatibility=self.one_of("compatibility", get_args(Compatibility)),
            schema_format=self.one_of("schemaFormat", get_args(SchemaFormat)),
        )
        self.check(rules, columns | (CHANGE_COLUMNS if captured else {}))
        check_protection(self.file, columns, rules)
        return rules

    def enrichments(self, columns: dict[str, Column]) -> tuple[Enrichment, ...]:
        event_date = str(self.custom.get("eventDateField", "event_date"))
        return read_enrichments(self.file, self.custom.get("enrichments") or [], columns, event_date, self.identifier)

    def one_of(self, name: str, known: tuple[Any, ...]) -> Any:
        """A property's value; the first of the known ones when it has none."""
        value = self.custom.get(name, known[0])
        if value not in known:
            raise self.error(f"{name} is {value!r}.", f"Use one of {', '.join(known)}.")
        return value

    def check(self, rules: StreamRules, columns: dict[str, Column]) -> None:
        dated = () if rules.derives_event_date else (rules.event_date_field,)
        required = [rules.tenant_field, rules.event_time_field, *dated, *rules.dedupe_key]
        named = [*required, *rules.clustering, *([rules.version_field] if rules.version_field else [])]
        for name in named:
            if name not in columns:
                raise self.error(f"names the field {name}, which it does not have.", "Add it to schema.properties.")
        added = {"ingestion_date", "ingestion_hour"} | ({rules.event_date_field} if rules.derives_event_date else set())
        if clash := sorted(added & columns.keys()):
            raise self.error(
                f"has the field {clash[0]}, which Bronze adds.", "Rename it, or name it as eventDateField."
            )
        for name in required:
            if not columns[name].required:
                raise self.error(f"field {name} must be required.", "Set required: true on it.")
        one_key = len(rules.dedupe_key) == 1 and self.custom.get("messageKey") == rules.dedupe_key[0]
        if rules.capture is None and not one_key:
            # Deduplication is per Kafka partition: it is right only when equal keys share one.
            raise self.error(
                "the dedupe key must be one field and the Kafka message key.",
                "Set dedupeKey: [FIELD] and messageKey: FIELD to the same field.",
            )
        if columns[rules.event_time_field].type != PHYSICAL["timestamptz"]:
            raise self.error(f"field {rules.event_time_field} must be a timestamptz.", "Correct its physicalType.")
        if dated and columns[rules.event_date_field].type != PHYSICAL["date"]:
            raise self.error(f"field {rules.event_date_field} must be a date.", "Correct its physicalType.")
        if rules.unknown_fields not in ("quarantine", "ignore", "keep") or rules.granularity not in ("day", "hour"):
            raise self.error(
                "unknownFieldPolicy or partitionGranularity has an unknown value.",
                "Use quarantine|ignore|keep and day|hour.",
            )

    def clustering_order(self) -> ClusteringOrder:
        value: ClusteringOrder = self.custom.get("clusteringOrder", "sort")
        if value not in ("sort", "zorder") or (value == "zorder" and not self.custom.get("clusteringColumns")):
            raise self.error(f"clusteringOrder is {value!r}.", "Use sort, or zorder beside clusteringColumns.")
        return value

    def publish_clean(self) -> bool:
        value = self.custom.get("publishClean", False)
        start = self.custom.get("publishCleanFrom", "beginning")
        if not isinstance(value, bool) or start not in ("beginning", "now"):
            raise self.error(
                f"publishClean is {value!r}, publishCleanFrom is {start!r}.", "Use true|false and beginning|now."
            )
        return value

    def duration(self, name: str, default: str) -> timedelta:
        return read_duration(self.file, name, self.custom.get(name, default))

    def sla(self, name: str) -> timedelta:
        for item in self.odcs.slaProperties or []:
            if item.property == name:
                unit = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}.get(str(item.unit))
                if unit is None:
                    raise self.error(f"SLA {name} has the unit {item.unit!r}.", "Use d, h, m or s.")
                return timedelta(**{unit: float(str(item.value))})
        raise self.error(f"has no {name} SLA.", f"Add slaProperties with property: {name}.")
