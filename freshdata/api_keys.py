"""API keys: each belongs to one tenant. Only a hash of a key is kept, so whoever reads the file can use none of them.

A tenant may have any number of valid keys: a key is rotated by creating a second one, giving it to the sender, and
revoking the first. Whoever checks keys looks at the file each time, so that a change counts at once.
"""

import fcntl
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from freshdata.errors import ConfigError
from freshdata.files import replace_file
from freshdata.settings import Settings
from freshdata.watched import Watched

TOKEN = re.compile(r"fdk_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
# What an unknown key is compared with, so that it takes as long as a known one.
NO_DIGEST = "0" * 64


class ApiKey(msgspec.Struct, frozen=True):
    """One key, without its secret.

    Attributes:
        id: Its public part, by which it is listed and revoked.
        digest: SHA-256 of the whole key, in hexadecimal. The secret part is 256 random bits: a slow hash adds nothing.
        tenant: The tenant whose events it may write.
        streams: The streams it may write to; all when empty.
        label: What its owner calls it.
        created: When it was created.
        revoked: When it was revoked, or None.
    """

    id: str
    digest: str
    tenant: str
    streams: tuple[str, ...]
    label: str
    created: datetime
    revoked: datetime | None = None

    def may_write(self, stream: str) -> bool:
        """Whether it may write to a stream."""
        return not self.streams or stream in self.streams


def keys_file(settings: Settings) -> Path:
    """File that keeps the keys."""
    return settings.api_keys or settings.gateway_dir / "api-keys.json"


def read_keys(path: Path) -> list[ApiKey]:
    """All keys, revoked ones too, in the order of their creation.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[ApiKey])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(
            f"The API keys in {path} cannot be read: {error}.", remedy="Restore the file, or remove it and create keys."
        ) from error


def create_key(path: Path, *, tenant: str, streams: Sequence[str] = (), label: str = "") -> tuple[ApiKey, str]:
    """Create a key.

    Args:
        path: File that keeps the keys.
        tenant: The tenant whose events it may write.
        streams: The streams it may write to; all when empty.
        label: What its owner calls it.

    Returns:
        The key, and its secret text: it cannot be had again.

    Raises:
        ConfigError: the tenant has no name, or the file cannot be read.
    """
    if not tenant.strip():
        raise ConfigError("The tenant has no name.", remedy="Name the tenant as its events do.")
    identifier = secrets.token_hex(6)
    token = f"fdk_{identifier}_{secrets.token_urlsafe(32)}"
    key = ApiKey(identifier, _digest(token), tenant, tuple(streams), label, datetime.now(UTC))
    with _locked(path):
        _write(path, [*read_keys(path), key])
    return key, token


def revoke_key(path: Path, identifier: str) -> ApiKey:
    """Revoke a key: it counts at once. To revoke it again changes nothing.

    Raises:
        ConfigError: there is no such key, or the file cannot be read.
    """
    with _locked(path):
        keys = {key.id: key for key in read_keys(path)}
        if identifier not in keys:
            raise ConfigError(f"There is no key {identifier}.", remedy="`freshdata key list` shows them.")
        key = keys[identifier]
        if key.revoked is None:
            key = keys[identifier] = msgspec.structs.replace(key, revoked=datetime.now(UTC))
            _write(path, list(keys.values()))
    return key


class KeyRing:
    """The valid keys of a file, as the file is now."""

    def __init__(self, path: Path) -> None:
        self._keys: Watched[dict[str, ApiKey]] = Watched(path, _valid_keys, {})

    def find(self, token: str) -> ApiKey | None:
        """The valid key that a text is, or None.

        Raises:
            ConfigError: the file cannot be read: which keys are revoked is not known.
        """
        keys = self._keys()
        parts = TOKEN.fullmatch(token)
        key = keys.get(parts[1]) if parts else None
        same = hmac.compare_digest(_digest(token), key.digest if key else NO_DIGEST)
        return key if same else None


def _valid_keys(path: Path) -> dict[str, ApiKey]:
    return {key.id: key for key in read_keys(path) if key.revoked is None}


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, keys: list[ApiKey]) -> None:
    replace_file(path, msgspec.json.format(msgspec.json.encode(keys), indent=2).decode(), private=True)
