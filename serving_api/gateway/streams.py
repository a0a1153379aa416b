"""The streams that events are taken for, by the contracts that their workers go by."""

import asyncio
import logging
from collections.abc import Mapping

from pyiceberg.catalog import Catalog

from freshdata.clock import instance_clock
from freshdata.contracts import Contract
from freshdata.errors import ContractError
from freshdata.lake.catalog import open_catalog
from freshdata.lake.publication import followed_contract
from freshdata.settings import Settings
from serving_api.gateway.intake import Intake
from serving_api.gateway.kafka import EventWriter
from serving_api.gateway.refusals import RefusedError

FOLLOW_SECONDS = 10.0

logger = logging.getLogger(__name__)


class Streams:
    """An intake for each stream."""

    def __init__(self, settings: Settings, contracts: Mapping[str, Contract], writer: EventWriter) -> None:
        self._settings = settings
        # What a database's table holds, only its database says.
        self._own = {name: each for name, each in contracts.items() if each.stream and not each.stream.capture}
        self._catalog: Catalog | None = None
        self._problems: dict[str, str] = {}
        clock = instance_clock(settings.home)
        self._intakes = {name: Intake(contract, writer, clock) for name, contract in self._own.items()}

    @property
    def contracts(self) -> dict[str, Contract]:
        """The contracts that judge now, by name."""
        return {name: intake.contract for name, intake in self._intakes.items()}

    def intake(self, name: str) -> Intake:
        """The intake of a stream.

        Raises:
            RefusedError: there is no such stream.
        """
        if name not in self._intakes:
            raise RefusedError(404, f"There is no stream {name!r}.", remedy="/docs lists them.")
        return self._intakes[name]

    async def follow(self) -> None:
        """Look for published contracts again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(FOLLOW_SECONDS)

    async def look(self) -> None:
        """Take up the contracts that are published by now.

        A published contract accepts whatever its predecessor did, so the worker accepts what an older one has let in.
        """
        for name, intake in self._intakes.items():
            try:
                contract = await asyncio.to_thread(self._followed, self._own[name])
            except Exception as error:  # noqa: BLE001 - whatever the lake's libraries raise: it may be away
                if self._problems.get(name) != str(error):
                    self._problems[name] = str(error)
                    logger.warning("%s goes on by the contract that is known: %s", name, error)
                if isinstance(error, ContractError):
                    continue
                return  # The lake is away for the others, too.
            self._problems.pop(name, None)
            if contract != intake.contract:
                logger.warning("%s goes by version %s of its contract now", name, contract.version)
                intake.follow(contract)

    def _followed(self, own: Contract) -> Contract:
        self._catalog = self._catalog or open_catalog(self._settings)
        if not self._catalog.table_exists(own.table):
            return own
        return followed_contract(self._catalog.load_table(own.table), own)
