"""Run a write again when another writer came first, and tell what passes by itself from what does not."""

import errno
import random
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    ServerError,
    ServiceUnavailableError,
    TooManyRequestsError,
)
from requests.exceptions import RequestException
from sqlalchemy.exc import InterfaceError, OperationalError

from freshdata.errors import TransformError

ATTEMPTS = 10
FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 5.0
Answer = TypeVar("Answer")
# A catalog, a store or a database that is down, overloaded or locked; what another writer holds up for long.
PASSING = (
    CommitFailedException,
    CommitStateUnknownException,
    ConnectionError,
    InterfaceError,
    OperationalError,
    RequestException,
    ServerError,
    ServiceUnavailableError,
    TimeoutError,
    TooManyRequestsError,
)
# Arrow's file systems tell of all that goes wrong in a store by these.
PASSING_ERRNOS = (None, errno.EIO, errno.ENOSPC, errno.EAGAIN, errno.EBUSY)


def passes(error: BaseException) -> bool:
    """Whether what went wrong may well be gone a moment later, so that the same is worth another attempt."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PASSING) or (type(cause) is OSError and cause.errno in PASSING_ERRNOS):
            return True
        if (duckdb := sys.modules.get("duckdb")) and isinstance(cause, duckdb.HTTPException):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def lost_commit(error: Exception) -> bool:
    """Whether PyIceberg lost a commit to another writer."""
    return isinstance(error, CommitFailedException)


def retry(write: Callable[[], Answer], model: str, lost: Callable[[Exception], bool] = lost_commit) -> Answer:
    """Run a write until no other writer gets in its way.

    Args:
        write: The write; each run begins with the tables as they are then.
        model: The model whose table is written.
        lost: Whether an error means that another writer came first.

    Raises:
        TransformError: it lost every time.
    """
    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        try:
            return write()
        except Exception as error:
            if not lost(error):
                raise
            failure = error
        delay = min(FIRST_DELAY_SECONDS * 2**attempt, LONGEST_DELAY_SECONDS)
        time.sleep(delay * (0.5 + random.random()))  # noqa: S311 - jitter.
    raise TransformError(
        model,
        f"another writer won {ATTEMPTS} times in a row: {failure}.",
        remedy="Run it again; if it persists, find what else writes to its table.",
    ) from failure
