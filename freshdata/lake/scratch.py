"""Tables that live no longer than a run: where an engine that commits by itself reads news and writes results."""

import time
import uuid
from datetime import timedelta

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table

from freshdata.lake.catalog import ensure_namespace
from freshdata.lake.replace import fork_table

# Two underscores: environments and queries leave it alone.
NAMESPACE = "__scratch"
# A run that was killed leaves its tables behind.
LONGEST_RUN = timedelta(days=1)


def create_scratch_table(catalog: Catalog, live: Table) -> Table:
    """Create an empty table of the shape of another, within its folder; drops those that killed runs left."""
    ensure_namespace(catalog, NAMESPACE)
    oldest = (time.time() - LONGEST_RUN.total_seconds()) * 1000
    for name in catalog.list_tables(NAMESPACE):
        try:
            if catalog.load_table(name).metadata.last_updated_ms < oldest:
                catalog.drop_table(name)
        except NoSuchTableError:
            continue  # Dropped since it was listed, by its own run.
    return fork_table(catalog, live, f"{NAMESPACE}.{live.name()[-1]}_{uuid.uuid4().hex[:12]}", {})
