"""The databases an instance follows: how to reach them, and which of their tables are captured."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from freshdata.contracts.capture import topic_of
from freshdata.contracts.loader import IDENTIFIER
from freshdata.errors import CaptureError, PrerequisiteError
from freshdata.files import replace_file
from freshdata.settings import Settings

if TYPE_CHECKING:
    import psycopg2.extensions

TIMEOUT_SECONDS = 10
# What Debezium's replication connection needs to know of an address.
PARAMETERS = ("host", "port", "dbname", "user", "password", "sslmode", "sslrootcert")
LONGEST_NAME = 40
# Not the name of a usual role: a schema of the role's name comes first in its search path.
CAPTURE_SCHEMA = "freshdata_cdc"


@dataclass(frozen=True)
class Source:
    """A database that is followed.

    Attributes:
        name: Its name: the first part of its topics' and contracts' names.
        system: The identifier of its database cluster, which a copy on another host keeps.
        address: libpq parameters, with the password.
        tables: The captured tables, ``schema.table``.
        without: Columns that are left out, ``schema.table.column``.
        avro: Whether changes are written as Avro, with their schema in the registry, instead of as JSON.
        read: The version of its contract under which each table was last read whole, or asked to be.
    """

    name: str
    system: str
    address: dict[str, str]
    tables: tuple[str, ...]
    without: tuple[str, ...]
    avro: bool = False
    read: dict[str, str] = field(default_factory=dict)

    @property
    def slot(self) -> str:
        """Name of its replication slot, and of its publication."""
        return f"freshdata_{self.name}"

    @property
    def signal_table(self) -> tuple[str, str]:
        """Schema and name of the table, in the database, by which Debezium is told to read a table again."""
        return CAPTURE_SCHEMA, f"signal_{self.name}"

    def topic(self, table: str) -> str:
        """The topic of a captured table, as Debezium names it."""
        return topic_of(self.name, table)


def read_sources(settings: Settings) -> dict[str, Source]:
    """The sources of an instance by name."""
    found = {}
    for path in sorted(_folder(settings).glob("*.json")):
        content = json.loads(path.read_text())
        found[path.stem] = Source(
            content["name"],
            content["system"],
            content["address"],
            tuple(content["tables"]),
            tuple(content["without"]),
            avro=content["avro"],
            read=content.get("read", {}),
        )
    return found


def known_source(settings: Settings, name: str | None) -> Source:
    """The source of a name; without one, the only source there is.

    Raises:
        CaptureError: there is none, or no name was given and there are several.
    """
    sources = read_sources(settings)
    if name in sources:
        return sources[name]
    if name is None and len(sources) == 1:
        return next(iter(sources.values()))
    listed = ", ".join(sources) or "none"
    raise CaptureError(
        name or "?",
        ["there is no such source in this instance" if name else "this instance has not exactly one source"],
        remedy=f"Name one of: {listed}." if sources else "Add one with `freshdata cdc add`.",
    )


def write_source(settings: Settings, source: Source) -> None:
    """Remember a source; its file holds the password, so that only its owner can read it."""
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"{source.name}.json", json.dumps(asdict(source)), private=True)


def forget_source(settings: Settings, name: str) -> None:
    """Remove what is remembered of a source."""
    (_folder(settings) / f"{name}.json").unlink(missing_ok=True)


def make_source(dsn: str, name: str | None) -> Source:
    """A source without tables, of a database that answers.

    Args:
        dsn: libpq address, ``postgresql://user:password@host:port/database``; what it lacks is taken from libpq's usual
            places (``PGPASSWORD``, the password file).
        name: Its name; None takes the database's.

    Raises:
        CaptureError: the database does not answer, or has no name that could be used.
    """
    with _connection(dsn, name or "?") as connection:
        info = connection.info
        with connection.cursor() as cursor:
            cursor.execute("SELECT system_identifier::text FROM pg_control_system()")
            (system,) = cursor.fetchone()
        # Some of them are None when they are not in use.
        used = {key: str(value) for key, value in info.dsn_parameters.items() if key in PARAMETERS and value}
        address = used | {"host": info.host or "", "port": str(info.port), "password": info.password or ""}
    name = name or re.sub(r"[^a-z0-9]+", "_", address["dbname"].lower()).strip("_")
    if not IDENTIFIER.fullmatch(name) or len(name) > LONGEST_NAME:
        raise CaptureError(
            name,
            [f"its name would be {name!r}"],
            remedy=f"Give it one with --name: at most {LONGEST_NAME} lower case letters, digits and underscores.",
        )
    if not address["host"] or address["host"].startswith("/"):
        raise CaptureError(
            name, ["it is reached by a Unix socket, which Debezium cannot use"], remedy="Name a host in the DSN."
        )
    return Source(name, system, address, (), ())


@contextmanager
def connect(source: Source) -> Iterator["psycopg2.extensions.connection"]:
    """A connection to a source's database, each statement a transaction of its own.

    Raises:
        CaptureError: it does not answer.
    """
    with _connection(_dsn(source.address), source.name) as connection:
        yield connection


def _dsn(address: dict[str, str]) -> str:
    from psycopg2.extensions import make_dsn

    return str(make_dsn(**{name: value for name, value in address.items() if value}))


@contextmanager
def _connection(dsn: str, name: str) -> Iterator["psycopg2.extensions.connection"]:
    try:
        import psycopg2
    except ImportError as error:
        raise PrerequisiteError(
            "psycopg2", "The driver for PostgreSQL is not installed.", remedy="Install freshdata[postgres]."
        ) from error
    try:
        connection = psycopg2.connect(dsn, connect_timeout=TIMEOUT_SECONDS, application_name="freshdata")
    except psycopg2.Error as error:
        # libpq's messages name the host and the user, never the password.
        reason = (str(error).strip().splitlines() or ["no reason was given"])[0]
        raise CaptureError(
            name, [f"its database does not answer: {reason}"], remedy="Correct the DSN, or start the database."
        ) from error
    try:
        connection.autocommit = True
        yield connection
    finally:
        connection.close()


def _folder(settings: Settings) -> Path:
    return settings.home / "cdc"
