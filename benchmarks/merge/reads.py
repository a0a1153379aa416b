"""Read a compacted partition after ten merges, after the upkeep they call for, and after a whole compaction."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from benchmarks.merge.contenders import Live
from benchmarks.merge.lake import DAY_COLUMN, FIRST, SILVER, Lake, days, make_lake
from benchmarks.merge.merges import CARRIERS, told
from benchmarks.merge.peer import Contender, Measured, Peer
from benchmarks.merge.rows import FIRST_DAY, News, news
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.clustering import clustering_of
from freshdata.lake.compaction import compact
from freshdata.lake.health import Thresholds
from freshdata.lake.upkeep import plan_upkeep
from freshdata.settings import Settings

MERGES = 10
LIMIT = 300.0  # seconds
TAILNUM = "N00123"
MERGED, LOOKED_AFTER, COMPACTED = "bench.merged", "bench.looked_after", "bench.compacted"
TABLES = (MERGED, LOOKED_AFTER, COMPACTED)
SELECTIVE = {False: "the whole partition", True: "one plane's rows"}


class DuckReader:
    """DuckDB, through the catalog's REST face."""

    def __init__(self, settings: Settings) -> None:
        from freshdata.lake.query import connect

        self._connection = connect(settings)

    def read(self, table: str, selective: bool) -> int:  # noqa: FBT001 - called by name and position.
        """Fetch rows; returns their number."""
        where, values = f"{DAY_COLUMN} = ?", [FIRST_DAY.isoformat()]
        if selective:
            where, values = f"{where} AND tailnum = ?", [*values, TAILNUM]
        query = f"SELECT * FROM {table} WHERE {where}"  # noqa: S608 - names of this file.
        return int(self._connection.execute(query, values).to_arrow_table().num_rows)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class IcebergReader:
    """PyIceberg."""

    def __init__(self, settings: Settings) -> None:
        self._catalog = open_catalog(settings)

    def read(self, table: str, selective: bool) -> int:  # noqa: FBT001 - as above.
        """Fetch rows; returns their number."""
        where = f"{FIRST} and tailnum == '{TAILNUM}'" if selective else FIRST
        return len(load_table(self._catalog, table).scan(row_filter=where).to_arrow())

    def close(self) -> None:
        """Nothing was started."""


READERS: dict[str, type[Contender]] = {"DuckDB": DuckReader, "PyIceberg": IcebergReader}


@dataclass(frozen=True)
class Read:
    """One reading.

    Attributes:
        reader: Who read.
        selective: Whether one plane's rows were read, or all.
        table: Which table.
        measured: What it took; its value is the number of rows.
    """

    reader: str
    selective: bool
    table: str
    measured: Measured


def measure_reads(rows: int, batch: int, rounds: int, home: Path, bars: Progress) -> list[Read]:
    """Both readers, all tables, both kinds of reading, several rounds, interleaved.

    Args:
        rows: Rows of the partition.
        batch: Rows of each merge.
        rounds: Rounds; each reads everything three times.
        home: A folder for the lake.
        bars: Shows how far it is.
    """
    lake = make_lake(home, CARRIERS)
    lake.follow()
    lake.fill(SILVER, days(1), rows, lambda _: None)
    _compact(lake, SILVER)
    expected = _merge(lake, [news(batch, rows, number) for number in range(MERGES)], home, bars)
    _name(lake)
    _look_after(lake, bars)
    _compact(lake, COMPACTED)
    found: list[Read] = []
    turns = [(name, table, one) for _ in range(3 * rounds) for name in READERS for one in SELECTIVE for table in TABLES]
    with ExitStack() as stack:
        peers = {name: Peer(make, lake.settings, log=home / f"{name}.log") for name, make in READERS.items()}
        for peer in peers.values():
            stack.callback(peer.close)
        for name, table, one in dict.fromkeys(turns):
            peers[name].ask("read", table, one, limit=LIMIT)  # It is warm now.
        for name, table, one in bars.track(turns, description="reading"):
            measured = peers[name].ask("read", table, one, limit=LIMIT)
            if not measured.problem and not one and measured.value != expected:
                measured = Measured(problem=f"it read {measured.value:,} rows, {expected:,} are right")
            found.append(Read(name, one, table, measured))
    _check(found)
    return found


def _merge(lake: Lake, batches: list[News], home: Path, bars: Progress) -> int:
    """Merge the batches; returns the rows that the day has then."""
    base = lake.state()
    peer = Peer(Live, lake.settings, log=home / "live.log")
    try:
        for batch in bars.track(batches, description="ten merges"):
            lake.land(batch)
            measured = peer.ask("merge", limit=LIMIT)
            bars.console.print(f"merge  {told(measured)}")
            if measured.problem:
                raise RuntimeError(measured.problem)
    finally:
        peer.close()
    expected = lake.merged(batches)
    if problem := lake.wrong(expected, base):
        raise RuntimeError(problem)
    return expected.rows


def _name(lake: Lake) -> None:
    """Give the table as it is more names."""
    location = lake.table(SILVER).metadata_location
    lake.catalog.create_namespace_if_not_exists("bench")
    for name in TABLES:
        lake.catalog.register_table(name, location)


def _look_after(lake: Lake, bars: Progress) -> None:
    """Do what the platform's maintenance sensor would have done by now, if anything."""
    plan = plan_upkeep(lake.catalog, LOOKED_AFTER)
    bars.console.print(f"upkeep: {', '.join(plan.reasons) if plan.urgent else 'none is called for'}")
    if plan.urgent:
        clustering = clustering_of(lake.table(SILVER), load_contracts(lake.settings.contracts_dir))
        compact(lake.table(LOOKED_AFTER), clustering)


def _compact(lake: Lake, name: str) -> None:
    clustering = clustering_of(lake.table(SILVER), load_contracts(lake.settings.contracts_dir))
    compact(lake.table(name), clustering, Thresholds(everything=True))


def _check(found: list[Read]) -> None:
    counts = {read.measured.value for read in found if read.selective and not read.measured.problem}
    if len(counts) > 1:
        raise RuntimeError(f"The readers do not agree on one plane's rows: {counts}.")
