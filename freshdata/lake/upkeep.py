"""Everything that keeps a table small and quick to read, done as far as it is needed and not by the calendar."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyiceberg.catalog import Catalog

from freshdata.contracts import Contract
from freshdata.lake.catalog import load_table
from freshdata.lake.clustering import clustering_of
from freshdata.lake.compaction import Compacted, compact
from freshdata.lake.health import TableHealth, Thresholds, file_groups, measure
from freshdata.lake.inventory import Reader
from freshdata.lake.maintenance import Maintained, Retention, expirable, followers, maintain, mergeable


@dataclass(frozen=True)
class Plan:
    """What a table needs.

    Attributes:
        health: How it stands.
        rewrite: Data files to be rewritten.
        rewrite_bytes: Their size.
        remove: Delete files that can go without a rewrite.
        merge: Manifests to be merged.
        expire: Snapshots to be expired.
        urgent: Whether that is worth a run of its own.
    """

    health: TableHealth
    rewrite: int
    rewrite_bytes: int
    remove: int
    merge: int
    expire: int
    urgent: bool

    @property
    def reasons(self) -> list[str]:
        """What is to be done, in words; nothing when the table needs nothing."""
        parts = len(self.health.needy)
        return [
            what
            for count, what in (
                (self.rewrite, f"rewrite {self.rewrite} files of {parts} partition{'s' * (parts != 1)}"),
                (self.remove, f"remove {self.remove} delete files"),
                (self.merge, f"merge {self.merge} manifests"),
                (self.expire, f"expire {self.expire} snapshots"),
            )
            if count
        ]


@dataclass(frozen=True)
class Upkeep:
    """What was done to a table.

    Attributes:
        compacted: To its files.
        maintained: To its metadata and its folder.
    """

    compacted: Compacted
    maintained: Maintained


def plan_upkeep(
    catalog: Catalog, name: str, thresholds: Thresholds | None = None, retention: Retention | None = None
) -> Plan:
    """Measure a table, and say what it needs.

    Orphan files are not looked for: that reads the table's folder.

    Args:
        catalog: The catalog.
        name: Table identifier.
        thresholds: What is needed; the default :class:`Thresholds` when None.
        retention: How much of the past is kept; the default :class:`Retention` when None.

    Raises:
        LakeError: there is no such table.
    """
    table, chosen = load_table(catalog, name), thresholds or Thresholds()
    reader = Reader(table)
    inventory = reader.inventory()
    kept = retention or Retention()
    groups = file_groups(table, inventory, chosen)
    dangling = len(reader.dangling(inventory))
    health = measure(table, inventory, chosen, dangling)
    merge = sum(len(group) for group in mergeable(table))
    expire = len(expirable(table, followers(catalog, name), kept))
    old = 0 < expire < kept.keep  # So few are expired only when one of them is too old.
    return Plan(
        health=health,
        rewrite=sum(len(group.inputs) for group in groups),
        rewrite_bytes=sum(group.bytes for group in groups),
        remove=dangling,
        merge=merge,
        expire=expire,
        urgent=bool(groups or dangling or merge >= chosen.manifests or expire >= chosen.snapshots or old),
    )


def keep_up(
    catalog: Catalog,
    name: str,
    contracts: Mapping[str, Contract],
    thresholds: Thresholds | None = None,
    retention: Retention | None = None,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Upkeep:
    """Do what a table needs: compact it, merge its manifests, expire its snapshots, remove its orphan files.

    Args:
        catalog: The catalog.
        name: Table identifier.
        contracts: The contracts by name: they say how the rows of a stream's tables are clustered.
        thresholds: What is needed; the default :class:`Thresholds` when None.
        retention: How much of the past is kept; the default :class:`Retention` when None.
        on_progress: Called with the bytes of data files that have been rewritten, bit by bit.

    Raises:
        LakeError: there is no such table.
    """
    table = load_table(catalog, name)
    compacted = compact(table, clustering_of(table, contracts), thresholds, on_progress=on_progress)
    return Upkeep(compacted, maintain(catalog, name, retention))
