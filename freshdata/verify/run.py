"""Run every comparison over an instance."""

from collections.abc import Callable

from freshdata.contracts import load_contracts
from freshdata.errors import LakeError
from freshdata.lake.catalog import open_catalog
from freshdata.services.kafka import local_broker
from freshdata.settings import Settings
from freshdata.verify.ingest import verify_ingest
from freshdata.verify.layers import verify_models
from freshdata.verify.report import Report


def verify_platform(settings: Settings, *, step: Callable[[str], None] = lambda _: None) -> Report:
    """Compare Kafka, Bronze, quarantine, Silver and Gold row by row.

    The topics are read up to the offsets that Bronze has committed, and each layer is judged by the snapshots that it
    has seen, so a platform may be verified while data flows. A local broker that is not running is started for the time
    it takes.

    Args:
        settings: The instance's settings.
        step: Called with what is being compared.

    Raises:
        LakeError: nothing has been ingested yet.
    """
    streams = [c for c in load_contracts(settings.contracts_dir).values() if c.kind == "stream"]
    catalog = open_catalog(settings)
    if not any(catalog.table_exists(contract.table) for contract in streams):
        raise LakeError(
            "bronze",
            f"nothing has been ingested in {settings.home}.",
            remedy="Run freshdata demo or freshdata up first.",
        )
    findings, counts = [], {}
    with local_broker(settings):
        for contract in streams:
            if catalog.table_exists(contract.table):
                step(f"{contract.rules.topic} → {contract.table}")
                found, counts[contract.name] = verify_ingest(settings, catalog, contract)
                findings += found
    step("Bronze → Silver → Gold")
    return Report(findings + verify_models(settings, catalog), counts)
