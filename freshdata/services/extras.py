"""The services that ``freshdata up --with`` starts beside the platform's own."""

from collections.abc import Callable
from enum import StrEnum

from freshdata.settings import Settings


class Extra(StrEnum):
    """A service that runs on request only."""

    GATEWAY = "gateway"
    REGISTRY = "registry"
    CDC = "cdc"


def prepare(settings: Settings, extra: Extra) -> None:
    """Fetch what a service needs, here where the download is seen and a missing program is told at once.

    Raises:
        PrerequisiteError: something is missing.
    """
    from freshdata.services.registry import prepare_registry

    needed: dict[Extra, Callable[[Settings], object]] = {Extra.CDC: _prepare_cdc}
    if not settings.schema_registry_url:  # What is configured to be elsewhere needs nothing here.
        needed[Extra.REGISTRY] = prepare_registry
    if extra in needed:
        needed[extra](settings)


def _prepare_cdc(settings: Settings) -> None:
    from freshdata.services.connect import prepare_connect
    from freshdata.services.postgres import find_postgres

    find_postgres()
    prepare_connect(settings)
