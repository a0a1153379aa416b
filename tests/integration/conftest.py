"""One lake for a module's tests, and a runner on it; a module with a project of its own says what ``settings`` are."""

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import count

import pytest
from pyiceberg.catalog import Catalog

from freshdata.lake.catalog import open_catalog
from freshdata.settings import Settings
from freshdata.transform.runner import Runner, open_runner

days = count()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An instance over the project's contracts and models."""
    return Settings().for_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def catalog(settings: Settings) -> Catalog:
    """The instance's catalog."""
    return open_catalog(settings)


@pytest.fixture(scope="module")
def runner(settings: Settings) -> Iterator[Runner]:
    """A runner on the instance."""
    with open_runner(settings) as runner:
        yield runner


@pytest.fixture
def day() -> date:
    """A day that no other test uses, nor its neighbours."""
    return date(2013, 1, 1) + timedelta(days=4 * next(days))
