"""Personal data on its way into the lake: hashed, turned into tokens or left out, as the contract says.

All of it rests on one secret, from which a key is derived for each purpose. Equal values give equal hashes and equal
tokens, in every stream, so they can be joined; without the secret neither can be made, tried out or undone.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from freshdata.contracts import Contract
from freshdata.contracts.model import EXTRA
from freshdata.errors import ConfigError
from freshdata.lake.commits import ATTEMPTS
from freshdata.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

SHORTEST_SECRET = 32  # bytes
TOKEN_PREFIX = "tok_"  # noqa: S105 - what tells a token from other text.
SEALED = b"sealed:"
# Table property: which secret the rows were made with.
SECRET_PROPERTY = "freshdata.privacy-secret"  # noqa: S105 - tells secrets apart, and nothing of them.
# What a reason quotes of an event, which may have quotes itself, and whose end may be cut off. Names of fields stand in
# backticks.
QUOTED = re.compile(r"(?<!\w)(?:'.*'|\".*\"|['\"].*)", re.DOTALL)
REMEDY = (
    "Set FRESHDATA_PRIVACY_SECRET_FILE to a file that holds it, the same for every worker: "
    "`openssl rand -hex 32 > privacy.secret`."
)


class Secret:
    """The instance's secret, and what is made with it.

    Args:
        secret: At least 32 bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def _key(self, purpose: str) -> bytes:
        return hmac.digest(self._secret, b"freshdata " + purpose.encode(), hashlib.sha512)

    @cached_property
    def fingerprint(self) -> str:
        """Tells one secret from another, and nothing of it."""
        return self._key("fingerprint").hex()[:16]

    @cached_property
    def hashed(self) -> Callable[[str], str]:
        """The keyed hash (HMAC-SHA-256, the first 128 bits) of a text."""
        key = self._key("hash")
        return lambda text: hmac.digest(key, text.encode(), hashlib.sha256).hex()[:32]

    @cached_property
    def token(self) -> Callable[[str], str]:
        """The token of a text: the text, encrypted (AES-SIV, RFC 5297), so that equal texts have equal tokens."""
        encrypt = _siv(self._key("token")).encrypt

        def token(text: str) -> str:
            # AES-SIV takes no empty message.
            return TOKEN_PREFIX + base64.urlsafe_b64encode(encrypt(b"\0" + text.encode(), None)).decode().rstrip("=")

        return token

    def text(self, token: str) -> str | None:
        """The text of a token; None when this secret made no such token."""
        from cryptography.exceptions import InvalidTag

        if not token.startswith(TOKEN_PREFIX):
            return None
        encoded = token.removeprefix(TOKEN_PREFIX)
        try:
            sealed = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            return _siv(self._key("token")).decrypt(sealed, None)[1:].decode()
        except (ValueError, InvalidTag):
            return None

    @cached_property
    def seal(self) -> Callable[[bytes | None], bytes | None]:
        """Bytes that only this secret reads; the same for the same bytes, so that a replay writes the same rows."""
        encrypt = _siv(self._key("seal")).encrypt
        return lambda data: None if data is None else SEALED + encrypt(b"\0" + data, None)

    def opened(self, data: bytes | None) -> bytes | None:
        """What was sealed; other bytes as they are.

        Raises:
            ConfigError: another secret has sealed it.
        """
        from cryptography.exceptions import InvalidTag

        if data is None or not data.startswith(SEALED):
            return data
        try:
            return _siv(self._key("seal")).decrypt(data.removeprefix(SEALED), None)[1:]
        except (ValueError, InvalidTag) as error:
            raise ConfigError("An event was sealed with another secret.", remedy="Set the secret of then.") from error


def _siv(key: bytes) -> "AESSIV":
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

    return AESSIV(key)


def load_secret(settings: Settings) -> Secret | None:
    """The instance's secret; None when there is none.

    Raises:
        ConfigError: its file cannot be read, or it is too short.
    """
    if settings.privacy_secret_file is not None:
        try:
            found = settings.privacy_secret_file.read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"The privacy secret cannot be read: {error}.", remedy=REMEDY) from error
    elif settings.privacy_secret is not None:
        found = settings.privacy_secret.get_secret_value().strip().encode()
    else:
        return None
    if len(found) < SHORTEST_SECRET:
        raise ConfigError(f"The privacy secret has {len(found)} bytes.", remedy=f"It needs {SHORTEST_SECRET}. {REMEDY}")
    return Secret(found)


class Protector:
    """Protects the events of one stream.

    Args:
        contract: The stream's contract, which protects some field.
        secret: The instance's secret.
    """

    def __init__(self, contract: Contract, secret: Secret) -> None:
        self.contract = contract
        self.secret = secret
        make = {"hash": secret.hashed, "tokenize": secret.token}
        self._made = {name: make[how] for name, how in contract.protected.items() if how in make}
        if contract.rules.unknown_fields == "keep":
            # What is in there nobody has classified.
            self._made[EXTRA] = secret.token
        self._dropped = [name for name, how in contract.protected.items() if how == "drop"]

    def rows(self, rows: pa.Table) -> pa.Table:
        """Decoded rows as Bronze may have them; each distinct value is worked on once."""
        for name, made in self._made.items():
            values = rows[name].cast(pa.string()).combine_chunks().dictionary_encode()
            distinct = pa.array([made(value) for value in values.dictionary.to_pylist()], pa.string())
            field = rows.schema.field(name).with_type(pa.string())
            rows = rows.set_column(rows.schema.get_field_index(name), field, distinct.take(values.indices))
        return rows.drop_columns(self._dropped) if self._dropped else rows

    def sealed(self, data: Sequence[bytes | None]) -> list[bytes | None]:
        """Keys or payloads of rejected events: what is in them cannot be told, so all of it is sealed."""
        return [self.secret.seal(each) for each in data]

    @staticmethod
    def reason(reason: str) -> str:
        """A reason without what it quotes of the event."""
        return QUOTED.sub("'…'", reason)


def protector(contract: Contract, secret: Secret | None) -> Protector | None:
    """What protects a stream's events; None when nothing is to be protected.

    Raises:
        ConfigError: something is, and there is no secret.
    """
    if not contract.protected:
        return None
    if secret is None:
        fields = ", ".join(contract.protected)
        raise ConfigError(f"The contract {contract.name} protects {fields}, and there is no secret.", remedy=REMEDY)
    return Protector(contract, secret)


def keep_secret(table: Table, secret: Secret) -> None:
    """Note in a table which secret its rows are made with, the first time; refuse another one.

    Raises:
        ConfigError: its rows are made with another: the same value would be two.
    """
    for _ in range(ATTEMPTS):
        known = table.properties.get(SECRET_PROPERTY)
        if known == secret.fingerprint:
            return
        if known is not None:
            stream = table.name()[-1]
            raise ConfigError(
                f"The rows of {'.'.join(table.name())} were made with another privacy secret.",
                remedy="Set that one again; or, to give it up, stop the worker and rebuild the rows with the new one: "
                f"`freshdata replay {stream} --from-offset 0`.",
            )
        with suppress(CommitFailedException), table.transaction() as transaction:
            transaction.set_properties({SECRET_PROPERTY: secret.fingerprint})
        table.refresh()
