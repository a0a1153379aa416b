"""What passes by itself is told from what somebody must mend."""

import errno
import os

import pytest
from pyiceberg.exceptions import NoSuchTableError, ServiceUnavailableError
from requests.exceptions import ConnectTimeout
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from freshdata.errors import TransformError
from freshdata.transform.retry import passes


def wrapped(cause: Exception) -> TransformError:
    error = TransformError("gold.carrier_day", "failed.", remedy="Run it again.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
        ConnectTimeout("the store"),
        ServiceUnavailableError("503"),
        OSError("When reading information for key: AWS Error NETWORK_CONNECTION"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    ],
)
def test_what_is_down_or_overloaded_passes(error: Exception) -> None:
    assert passes(error)
    assert passes(wrapped(error))


@pytest.mark.parametrize(
    "error", [NoSuchTableError("gold.carrier_day"), FileNotFoundError("a data file"), ValueError("a bug")]
)
def test_what_somebody_must_mend_does_not(error: Exception) -> None:
    assert not passes(error)
    assert not passes(wrapped(error))


def test_a_database_that_cannot_be_reached_passes() -> None:
    engine = create_engine("sqlite:////no/such/folder/catalog.db")
    with pytest.raises(OperationalError) as caught, engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    assert passes(caught.value)
