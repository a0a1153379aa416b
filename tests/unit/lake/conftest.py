"""A table to compact; a module with tables of its own says what they are."""

from collections.abc import Iterator

import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform

from freshdata.lake.catalog import ensure_table, open_catalog
from freshdata.lake.query import connect
from freshdata.settings import Settings
from tests.compaction import NAME, SCHEMA


@pytest.fixture
def catalog(instance: Settings) -> Catalog:
    return open_catalog(instance)


@pytest.fixture
def table(catalog: Catalog) -> Table:
    return ensure_table(catalog, NAME, SCHEMA, partition_by={"day": IdentityTransform()})


@pytest.fixture
def duck(instance: Settings, table: Table) -> Iterator:
    with connect(instance) as connection:
        yield connection
