"""The errors a user can meet. Each carries its facts as attributes and ends with the remedy."""


class FreshDataError(Exception):
    """Root of every error FreshData raises on purpose.

    Attributes:
        message: What went wrong, with the facts.
        remedy: What the reader can do about it.
    """

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.message = message
        self.remedy = remedy


class ConfigError(FreshDataError):
    """A setting is missing, contradicts another, or names something that does not exist."""


class PrerequisiteError(FreshDataError):
    """A program the platform needs is missing or too old.

    Attributes:
        program: The program's name, for example ``java``.
    """

    def __init__(self, program: str, message: str, *, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.program = program


class ServiceError(FreshDataError):
    """A service did not start, died, or does not answer.

    Attributes:
        service: The service's name, for example ``kafka``.
    """

    def __init__(self, service: str, message: str, *, remedy: str) -> None:
        super().__init__(message, remedy=remedy)
        self.service = service


class RegistryDownError(ServiceError):
    """The schema registry does not answer.

    Attributes:
        url: Its address.
        why: What happened instead.
    """

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            "registry",
            f"The schema registry {url} does not answer: {why}.",
            remedy="Start it (`freshdata up --with registry`) or correct FRESHDATA_SCHEMA_REGISTRY_URL.",
        )
        self.url = url
        self.why = why


class SchemasUnknownError(RegistryDownError):
    """Messages name schemas that are not known, while the registry does not answer.

    Attributes:
        positions: Their positions among those that were to be read.
    """

    def __init__(self, down: RegistryDownError, positions: list[int]) -> None:
        super().__init__(down.url, down.why)
        self.positions = positions


class RegistryError(FreshDataError):
    """The schema registry refuses a request.

    Attributes:
        url: Its address.
        code: Its error code, for example 409 for a schema that is incompatible with the subject's.
    """

    def __init__(self, url: str, code: int, message: str) -> None:
        super().__init__(
            f"The schema registry {url} refuses it ({code}): {message}.", remedy="Correct what it names, and try again."
        )
        self.url = url
        self.code = code


class SchemaError(FreshDataError):
    """A schema that a message names is not registered, or cannot be used.

    Attributes:
        schema: The schema's id.
    """

    def __init__(self, schema: int, message: str, *, remedy: str) -> None:
        super().__init__(f"Schema {schema} {message}", remedy=remedy)
        self.schema = schema


class AlreadyRunningError(FreshDataError):
    """Another process holds the platform's lock.

    Attributes:
        pid: The holder's process id, or None when it could not be read.
    """

    def __init__(self, what: str, pid: int | None, *, remedy: str) -> None:
        super().__init__(f"{what} is already running (pid {pid}).", remedy=remedy)
        self.pid = pid


class ContractError(FreshDataError):
    """A data contract is invalid or lacks what the platform needs.

    Attributes:
        contract: The contract's name or file.
    """

    def __init__(self, contract: str, message: str, *, remedy: str) -> None:
        super().__init__(f"Contract {contract}: {message}", remedy=remedy)
        self.contract = contract


class SampleError(FreshDataError):
    """A stream cannot be made from a sample: it holds no events, or lacks what a stream must have."""


class EvolutionError(ContractError):
    """A new version of a contract would break what is stored or sent, and was not published.

    Attributes:
        published: The published version.
        refused: The version that was refused.
        reasons: Every change that was refused: field, rule and reason.
    """

    def __init__(self, contract: str, published: str, refused: str, reasons: list[str], *, remedy: str) -> None:
        listed = "; ".join(reasons)
        super().__init__(
            contract, f"version {refused} cannot follow {published}, which is published: {listed}.", remedy=remedy
        )
        self.published = published
        self.refused = refused
        self.reasons = reasons


class RuleError(ContractError):
    """A quality rule of a contract cannot be checked as it is written, or could never fail.

    Attributes:
        rule: The rule's id, for example ``tailnum.tailnum_nulls``.
    """

    def __init__(self, contract: str, rule: str, message: str, *, remedy: str) -> None:
        super().__init__(contract, f"rule {rule} {message}", remedy=remedy)
        self.rule = rule


class SuiteError(FreshDataError):
    """A file of expectations cannot be read, belongs to nothing, or holds one that is unusable.

    Attributes:
        file: The file, relative to the project.
    """

    def __init__(self, file: str, message: str, *, remedy: str) -> None:
        super().__init__(f"{file} {message}", remedy=remedy)
        self.file = file


class LakeError(FreshDataError):
    """A table is missing, or its history does not hold what a reader or writer needs.

    Attributes:
        table: The table's identifier, for example ``bronze.flight_events``.
    """

    def __init__(self, table: str, message: str, *, remedy: str) -> None:
        super().__init__(f"Table {table}: {message}", remedy=remedy)
        self.table = table


class FencedError(LakeError):
    """Another writer already committed these offsets: this batch must be dropped and the partitions re-seeked.

    Attributes:
        partition: The Kafka partition whose offset had moved.
        expected: The offset at which the batch began.
        found: The offset the table holds.
    """

    def __init__(self, table: str, partition: int, expected: int, found: int) -> None:
        super().__init__(
            table,
            f"partition {partition} is at offset {found}, the batch began at {expected}: another worker owns it.",
            remedy="Drop the batch and seek to the table's offset (the worker does so by itself).",
        )
        self.partition = partition
        self.expected = expected
        self.found = found


class OvertakenError(LakeError):
    """Another run has changed how far the table has followed its upstream tables: the rows to write are the wrong ones.

    The runner begins such a run anew by itself.
    """

    def __init__(self, table: str) -> None:
        super().__init__(table, "another run moved its cursor in the meantime.", remedy="Run the model again.")


class ForgottenError(LakeError):
    """Somebody was forgotten after this batch was made, and may be in it: it must be read again.

    The worker does so by itself.
    """

    def __init__(self, table: str) -> None:
        super().__init__(table, "somebody was forgotten meanwhile.", remedy="Read the batch again.")


class ClusterMismatchError(LakeError):
    """The table's offsets belong to another Kafka cluster.

    Attributes:
        recorded: The cluster id in the table.
        connected: The id of the cluster the worker is connected to.
    """

    def __init__(self, table: str, recorded: str, connected: str) -> None:
        super().__init__(
            table,
            f"its offsets belong to Kafka cluster {recorded}, but this broker is of cluster {connected}: the cluster "
            "was created or restored anew, or this is another one's address. Offsets mean other records there; to "
            "continue would skip or repeat some, so nothing was read or written.",
            remedy=f"Connect to {recorded} again; or {_ways_on(table)}",
        )
        self.recorded = recorded
        self.connected = connected


class OffsetLostError(LakeError):
    """The topic's log does not hold the offset at which the table continues.

    Attributes:
        partition: The Kafka partition.
        offset: The offset at which the table continues.
        first: The log's first offset.
        end: The offset after the log's last record.
    """

    def __init__(self, table: str, partition: int, offset: int, first: int, end: int) -> None:
        why = (
            f"ends at {end}: the topic was deleted and created anew, or restored from an older copy. To wait for that "
            "offset would skip every record before it"
            if offset > end
            else f"begins at {first}: Kafka has deleted records that were never ingested"
        )
        super().__init__(
            table,
            f"it continues at offset {offset} of partition {partition}, but the topic's log {why}.",
            remedy=f"Restore the topic; or {_ways_on(table)}",
        )
        self.partition = partition
        self.offset = offset
        self.first = first
        self.end = end


def _ways_on(table: str) -> str:
    stream = table.rpartition(".")[2]
    return (
        f"rebuild the table, if the topic holds everything: `freshdata replay {stream} --from-offset 0`; or keep its "
        f"rows and continue at the topic's first record: `freshdata replay {stream} --keep`."
    )


class QuarantineError(FreshDataError):
    """Rejected events that were named do not exist, or a correction of them cannot be read.

    Attributes:
        stream: The stream's name.
    """

    def __init__(self, stream: str, message: str, *, remedy: str) -> None:
        super().__init__(f"Quarantine of {stream}: {message}", remedy=remedy)
        self.stream = stream


class TransformError(FreshDataError):
    """A Silver or Gold model could not be built.

    Attributes:
        model: The model's name, for example ``gold.carrier_day``.
    """

    def __init__(self, model: str, message: str, *, remedy: str) -> None:
        super().__init__(f"Model {model}: {message}", remedy=remedy)
        self.model = model


class QueryError(FreshDataError):
    """A query given by a user could not be run."""


class DeploymentError(FreshDataError):
    """An environment of models cannot be planned, promoted or rolled back.

    Attributes:
        environment: The environment's name, or ``production``.
        reasons: Every reason.
    """

    def __init__(self, environment: str, message: str, reasons: list[str], *, remedy: str) -> None:
        super().__init__(f"Environment {environment} {message}: {'; '.join(reasons)}.", remedy=remedy)
        self.environment = environment
        self.reasons = reasons


class CaptureError(FreshDataError):
    """A database cannot be followed, or is not followed any more.

    Attributes:
        source: The source's name.
        reasons: Every reason, each with what helps.
    """

    def __init__(self, source: str, reasons: list[str], *, remedy: str) -> None:
        listed = f"{reasons[0]}." if len(reasons) == 1 else "".join(f"\n- {reason}." for reason in reasons) + "\n"
        super().__init__(f"Source {source}: {listed}", remedy=remedy)
        self.source = source
        self.reasons = reasons
