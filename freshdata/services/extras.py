"""The services that ``freshdata up --with`` starts beside the platform's own."""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freshdata.settings import Settings


class Extra(StrEnum):
    """A service that runs on request only."""

    GATEWAY = "gateway"
    REGISTRY = "registry"


def prepare(settings: "Settings", extra: Extra) -> None:
    """Fetch what a service needs, here where the download is seen and a missing program is told at once.

    Raises:
        PrerequisiteError: something is missing.
    """
    from freshdata.services.registry import prepare_registry

    # What is configured to be elsewhere needs nothing here.
    needed = {} if settings.schema_registry_url else {Extra.REGISTRY: prepare_registry}
    if extra in needed:
        needed[extra](settings)
