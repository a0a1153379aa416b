"""A code location over an instance in a folder of its own, whose present is the fourth of January 2013."""

from datetime import UTC, date, datetime

import pytest

from freshdata.clock import instance_clock
from freshdata.contracts import Contract
from freshdata.settings import Settings
from freshdata.transform.manifest import load_manifest
from freshdata_assets.platform import Platform


@pytest.fixture
def platform(instance: Settings, contracts: dict[str, Contract]) -> Platform:
    instance_clock(instance.home).set(start=date(2013, 1, 1), now=datetime(2013, 1, 4, 5, tzinfo=UTC))
    return Platform(instance, contracts, load_manifest(instance))
