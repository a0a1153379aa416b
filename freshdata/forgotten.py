"""Who was forgotten: keyed hashes, so that nobody can be read from the list, and a replay does not bring them back.

The list is a table of the lake, ``privacy.forgotten``. Each Bronze table names in a property the state of the list that
its rows are clean by: a worker whose batch was made by another state may not commit it.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.contracts.capture import BEFORE
from freshdata.contracts.named import NamedSchemas, Schemas
from freshdata.errors import ConfigError, SchemasUnknownError
from freshdata.lake.catalog import UTC_TIMESTAMP, ensure_table
from freshdata.lake.replace import append_rows
from freshdata.privacy import REMEDY, Secret

NAME = "privacy.forgotten"
# Table property: how many entries of the list the table's rows are clean by, and at which one it ends.
FORGOTTEN_PROPERTY = "freshdata.forgotten"
SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("person", pa.string(), nullable=False),  # Hash of tenant and subject.
        pa.field("subject", pa.string(), nullable=False),  # Hash of the subject alone.
        pa.field("forgotten_at", UTC_TIMESTAMP, nullable=False),
    ]
)
# Texts and numbers in what may be no JSON at all.
SCALARS = re.compile(rb'"((?:[^"\\]|\\.)*)"|([A-Za-z0-9_.@+:-]+)')


@dataclass(frozen=True)
class Person:
    """Somebody to forget.

    Attributes:
        tenant: The tenant.
        key: Value of the subject field, as events have it.
    """

    tenant: str
    key: str

    def hashes(self, secret: Secret) -> tuple[str, str]:
        """The hashes that the list has of it: of both together, and of the key alone."""
        return _person(secret, self.tenant, self.key), _subject(secret, self.key)


class Forgotten:
    """Those who were forgotten in one stream.

    Args:
        contract: The stream's contract, which has a subject.
        secret: The instance's secret.
        entries: Hashes of person and subject.
        schemas: Where the schemas are that messages name; None when there is no registry.
    """

    def __init__(
        self, contract: Contract, secret: Secret, entries: list[tuple[str, str]], schemas: Schemas | None = None
    ) -> None:
        self._contract = contract
        self._named = NamedSchemas(schemas)
        self._secret = secret
        self._persons = {person for person, _ in entries}
        self._subjects = {subject for _, subject in entries}

    def mask(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Which decoded rows, as yet unprotected, are about one of them."""
        return self._known(rows, rows[str(self._contract.subject)].cast(pa.string()).combine_chunks())

    def cleared(self, rows: pa.Table) -> pa.Table:
        """Decoded rows, those that a change took from one of them without the row before."""
        if self._contract.rules.capture is None:
            return rows
        gone = pa.array(self._known(rows, subjects_before(self._contract, rows)))
        kept = pc.if_else(gone, pa.scalar(None, pa.string()), rows[BEFORE])
        return rows.set_column(rows.schema.get_field_index(BEFORE), BEFORE, kept)

    def _known(self, rows: pa.Table, named: pa.Array) -> npt.NDArray[np.bool_]:
        """Whether those whom rows name are among them."""
        found = np.zeros(rows.num_rows, dtype=np.bool_)
        subjects = named.dictionary_encode()
        suspect = [_subject(self._secret, value) in self._subjects for value in subjects.dictionary.to_pylist()]
        if not any(suspect):
            return found
        codes = subjects.indices.fill_null(len(suspect)).to_numpy()
        tenants = rows[self._contract.rules.tenant_field]
        for row in np.flatnonzero(np.append(np.array(suspect), [False])[codes]).tolist():
            found[row] = self.holds(str(tenants[row].as_py()), subjects[row].as_py())
        return found

    def holds(self, tenant: str, key: str) -> bool:
        """Whether somebody was forgotten."""
        return _person(self._secret, tenant, key) in self._persons

    def named_in(self, payload: bytes | None) -> bool:
        """Whether the bytes of a rejected event name one of them; in doubt, of whichever tenant, they do."""
        if payload is None:
            return False
        if (told := persons(self._contract, payload, self._named)) is not None:
            return any(self.holds(*person) for person in told)
        return any(_subject(self._secret, text) in self._subjects for text in scalars(payload))


def persons(contract: Contract, payload: bytes, named: NamedSchemas) -> set[tuple[str, str]] | None:
    """Tenant and subject that an event, a change or a message's key names, in JSON or Avro; None when it does not tell.

    Args:
        contract: A stream's contract, which has a subject.
        payload: The bytes.
        named: Finds the schema that they name.
    """
    event = _read(payload, named)
    written = {column.name: column.source_name for column in contract.columns}
    field, rules = written[str(contract.subject)], contract.rules
    if event is None:
        return None
    if rules.capture is None:
        subject, tenant = event.get(field), event.get(written[rules.tenant_field])
        return None if subject is None or tenant is None else {(str(tenant), str(subject))}
    change = event["payload"] if isinstance(event.get("payload"), dict) else event  # Its schema may stand beside it.
    is_key = "op" not in change
    images = [change] if is_key else [change.get("before"), change.get("after")]
    told = [image[field] for image in images if isinstance(image, dict) and field in image]
    found = {(rules.capture.source, str(subject)) for subject in told if subject is not None}
    return found if told or is_key else None


def _read(payload: bytes, named: NamedSchemas) -> dict[str, Any] | None:
    """The object that some bytes are, in JSON or Avro; None when they are none, or nobody tells their schema."""
    try:
        (plain,), readers = named.resolve([payload], [])
        event = readers[0](plain or b"") if readers else parsed(plain or b"")
    except (SchemasUnknownError, ValueError):
        return None
    return event if isinstance(event, dict) else None


def subjects_before(contract: Contract, changes: pa.Table) -> pa.Array:
    """Whom the row before each change was about, as text; null where it does not say."""
    (field,) = (column.source_name for column in contract.columns if column.name == contract.subject)
    images = (parsed(text.encode()) if text else None for text in changes[BEFORE].to_pylist())
    named = (image.get(field) if image else None for image in images)
    return pa.array([None if subject is None else str(subject) for subject in named], pa.string())


def parsed(payload: bytes) -> dict[str, Any] | None:
    """The JSON object of some bytes; None when they are none."""
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def scalars(payload: bytes) -> set[str]:
    """The texts and numbers in some bytes."""
    found = set()
    for quoted, bare in SCALARS.findall(payload):
        found.add((quoted or bare).decode(errors="replace"))
        if b"\\" in quoted:
            try:
                found.add(json.loads(b'"' + quoted + b'"'))
            except ValueError:
                continue
    return found


def read_forgotten(
    catalog: Catalog, contract: Contract, table: Table, secret: Secret | None, schemas: Schemas | None = None
) -> Forgotten | None:
    """Who was forgotten in a stream; None when nobody was.

    Args:
        catalog: The catalog.
        contract: The stream's contract.
        table: Its Bronze table, which says whether there is anybody.
        secret: The instance's secret.
        schemas: Where the schemas are that messages name; None when there is no registry.

    Raises:
        ConfigError: somebody was, and there is no secret.
    """
    if FORGOTTEN_PROPERTY not in table.properties or contract.subject is None:
        return None
    if secret is None:
        raise ConfigError(
            f"Persons were forgotten in {contract.name}, and there is no secret to know them by.", remedy=REMEDY
        )
    topic = contract.rules.topic  # Also that of a table that is being rebuilt, which has another name.
    rows = catalog.load_table(NAME).scan().to_arrow().to_pylist()
    return Forgotten(contract, secret, [(r["person"], r["subject"]) for r in rows if r["topic"] == topic], schemas)


def remember(catalog: Catalog, contract: Contract, person: Person, secret: Secret) -> str:
    """Put somebody on a stream's list, once.

    Returns:
        The state of the list, for :data:`FORGOTTEN_PROPERTY`.
    """
    hashes = person.hashes(secret)
    try:
        table = catalog.load_table(NAME)
    except NoSuchTableError:
        table = ensure_table(catalog, NAME, SCHEMA)
    known = [row for row in table.scan().to_arrow().to_pylist() if row["topic"] == contract.rules.topic]
    if not any(row["person"] == hashes[0] for row in known):
        entry = dict(zip(SCHEMA.names, (contract.rules.topic, *hashes, datetime.now(UTC)), strict=True))
        append_rows(table, pa.Table.from_pylist([entry], schema=SCHEMA))
        known.append(entry)
    return f"{len(known)} {hashes[0]}"


def _person(secret: Secret, tenant: str, key: str) -> str:
    return secret.hashed(f"forgotten\0{tenant}\0{key}")


def _subject(secret: Secret, key: str) -> str:
    return secret.hashed(f"forgotten\0{key}")
