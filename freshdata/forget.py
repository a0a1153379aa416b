"""Erase a person from the lake: all layers, all snapshots, all files; for good, and beside running writers.

The order makes it safe to be killed anywhere, and to be run again. First the person is put on the list of those who are
forgotten, and the tables say so: from then on no worker's commit can bring a row of theirs, nor can a replay. Then rows
go from Bronze and bytes from quarantine, the days concerned are made anew in Silver and Gold, every table gets a
snapshot that needs nothing of its past, and the past goes, with its files. At last every file is read, as proof.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from freshdata.contracts import Contract, load_contracts
from freshdata.contracts.capture import BEFORE
from freshdata.contracts.named import NamedSchemas
from freshdata.environments.records import read_environments
from freshdata.errors import ConfigError, ContractError, LakeError
from freshdata.files import replace_file
from freshdata.forgotten import FORGOTTEN_PROPERTY, Person, persons, remember, scalars, subjects_before
from freshdata.intervals import ranges
from freshdata.lake.catalog import open_catalog
from freshdata.lake.commits import ATTEMPTS
from freshdata.lake.erase import erase
from freshdata.lake.maintenance import tables
from freshdata.lake.orphans import files_in, referred_files
from freshdata.lake.proof import TableProof, Traces, prove, prove_table
from freshdata.lake.publication import followed_contract
from freshdata.lake.purge import begin_anew, purge, remove_files
from freshdata.privacy import REMEDY, Secret, load_secret
from freshdata.registry import schema_source
from freshdata.settings import Settings
from freshdata.transform.consumers import consumers
from freshdata.transform.manifest import ModelInfo, load_manifest, sources
from freshdata.transform.runner import open_runner

# What is computed from rows, or shows some: the rendered reports of quality checks have samples.
CACHES = ("keys", "profiles", "pages/quality")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """What a table holds of the person.

    Attributes:
        table: Its name.
        rows: Rows of its current snapshot.
        tags: Tags and branches that go.
        snapshots: Snapshots that it has, all of which go but the one to come.
    """

    table: str
    rows: int
    tags: list[str]
    snapshots: int


@dataclass
class Outcome:
    """What was done.

    Attributes:
        rows: Table to rows erased, or bytes of rejected events made null.
        models: Models of which days were made anew.
        tags: Tags and branches that went.
        snapshots: Snapshots that went.
        files: Files that were removed.
        proof: What was read of each table at the end.
    """

    rows: dict[str, int] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    snapshots: int = 0
    files: int = 0
    proof: list[TableProof] = field(default_factory=list)

    @property
    def found(self) -> list[str]:
        """The files that still hold a trace."""
        return [path for each in self.proof for path in each.found]


class Forget:
    """Erases one person.

    Args:
        settings: The instance.
        person: The person.

    Raises:
        ConfigError: there is no secret, there is no such source, or environments hold copies.
        ContractError: no contract names whom its rows are about.
    """

    def __init__(self, settings: Settings, person: Person) -> None:
        self.settings, self.person = settings, person
        self.catalog: Catalog = open_catalog(settings)
        secret = load_secret(settings)
        if secret is None:
            raise ConfigError("Whom to forget is remembered as a keyed hash, and there is no secret.", remedy=REMEDY)
        self.secret: Secret = secret
        self._named = NamedSchemas(schema_source(settings))
        written = load_contracts(settings.contracts_dir)
        self.known = {name: self._followed(each) for name, each in written.items()}
        named = [each for each in self.known.values() if each.subject]
        if behind := sorted(name for name, each in written.items() if each.subject and not self.known[name].subject):
            raise ContractError(
                behind[0],
                "names whom its rows are about, and the version that is published does not.",
                remedy=f"Publish it: `freshdata contract publish {behind[0]}`.",
            )
        if not named:
            raise ContractError(
                "subjectField",
                "no contract says whom its rows are about.",
                remedy="Name the column that does, as its customProperty subjectField, and publish it.",
            )
        self.contracts = [each for each in named if _source(each) in (None, person.tenant)]
        if not self.contracts:
            found = ", ".join(sorted({str(_source(each)) for each in named}))
            raise ConfigError(
                f"There is no source {person.tenant}, and persons are named by captured tables only.",
                remedy=f"The tenant of these is the source's name: {found}.",
            )
        if environments := [each.name for each in read_environments(settings)]:
            raise ConfigError(
                f"The environments {', '.join(environments)} hold copies of the rows.",
                remedy="Remove them first: `freshdata environments --drop NAME`.",
            )

    def _followed(self, contract: Contract) -> Contract:
        if contract.kind == "lookup" or not self.catalog.table_exists(contract.table):
            return contract
        return followed_contract(self.catalog.load_table(contract.table), contract)

    @cached_property
    def manifest(self) -> dict[str, ModelInfo]:
        """All models, upstream before downstream."""
        return load_manifest(self.settings)

    @cached_property
    def models(self) -> dict[str, ModelInfo]:
        """The models that are made from tables of the contracts."""
        roots = {contract.table for contract in self.contracts}
        return {name: model for name, model in self.manifest.items() if roots & sources(self.manifest, model)}

    def traces(self, table: str) -> Traces:
        """What the person leaves in a table."""
        return Traces(
            tenant=self.person.tenant,
            tenants=self._columns(
                table, {each.table: each.rules.tenant_field for each in self.contracts if each.stream}
            ),
            subjects=self._columns(table, {each.table: str(each.subject) for each in self.contracts}),
            values=self._made | {self.person.key},
            made=self._made,
            named_in=next((partial(self._named_in, c) for c in self.contracts if c.quarantine_table == table), None),
            before=next((partial(subjects_before, c) for c in self.contracts if _source(c) and c.table == table), None),
        )

    @cached_property
    def _made(self) -> frozenset[str]:
        streams = [each for each in self.contracts if each.stream]
        protected = {how for each in streams if (how := each.protected.get(str(each.subject)))}
        # What both were used for is not known for certain: a contract's protection is fixed, a stream's name is not.
        key = self.person.key
        return frozenset((self.secret.hashed(key), self.secret.token(key)) if protected else ())

    def _columns(self, table: str, named: dict[str, str]) -> frozenset[str]:
        """The columns of a table that hold what some contracts' columns hold, under a name that one of these has.

        The same name elsewhere is something else: of customers and of their orders, ``id`` is.

        Args:
            table: The table.
            named: Bronze or lookup table to its column.
        """
        names = frozenset(named.values())
        tables = {name for each in self.known.values() for name in (each.table, each.quarantine_table)}
        # Beside a table there are what it remembers of deletes, and what a rebuild has come to.
        of = [name for name in tables | self.manifest.keys() if table == name or table.startswith(f"{name}__")]
        if not of:
            return names
        own = max(of, key=len)
        made = {column for table, column in named.items() for column in consumers(self.manifest, table, column)}
        return frozenset(name for name in names if named.get(own) == name or f"{own}.{name}" in made)

    def _named_in(self, contract: Contract, payload: bytes | None) -> bool:
        """Whether the bytes of a rejected event, sealed or not, name the person; in doubt they do."""
        opened = self.secret.opened(payload)
        if opened is None:
            return False
        if (told := persons(contract, opened, self._named)) is not None:
            return (self.person.tenant, self.person.key) in told
        # What begins with a zero byte names a schema, which is not known: its texts lie in it without quotes.
        return self.person.key.encode() in opened if opened[:1] == b"\0" else self.person.key in scalars(opened)

    def plan(self) -> list[Found]:
        """What would go, of each table."""
        found = []
        for name in self._affected():
            table = self.catalog.load_table(name)
            rows, meant = table.scan().to_arrow_batch_reader(), self.traces(name).in_rows
            count = sum(pc.sum(meant(pa.Table.from_batches([each])), min_count=0).as_py() for each in rows)
            tags = [ref for ref in table.refs() if ref != "main"]
            found.append(Found(name, count, tags, len(table.snapshots())))
        return found

    def run(self, tell: Tell = lambda _: None) -> Outcome:
        """Erase, and prove it.

        Raises:
            LakeError: writers came first again and again, or a file still holds a trace. Run again, it goes on.
            TransformError: a model could not be made anew.
        """
        outcome = Outcome()
        past: dict[str, int] = {}
        days = self._days()
        for contract in self.contracts:
            tell(f"Erasing rows of {contract.table}")
            past |= self._erase_landed(contract, outcome)
        past |= self._make_anew(days, outcome, tell)
        for name in sorted(set(self._affected()) - past.keys()):
            # Beside the models' tables: what they remember of deletes, a rebuild that was killed.
            table = self.catalog.load_table(name)
            outcome.rows[name] = erase(table, self.traces(name).in_rows)
            past[name] = begin_anew(table)
        tell("Giving up old snapshots and their files")
        for name, before in past.items():
            self._purge(name, before, outcome)
        for cache in CACHES:
            for path in (self.settings.home / cache).rglob("*"):
                if path.is_file():
                    path.unlink(missing_ok=True)
        tell("Reading every file")
        outcome.proof = list(prove(self.catalog, self.traces))
        if outcome.found:
            raise LakeError(
                ", ".join(each.table for each in outcome.proof if each.found),
                f"{len(outcome.found)} files still hold a trace, first {outcome.found[0]}.",
                remedy="Run the command again: it goes on where it stopped.",
            )
        self._journal.unlink(missing_ok=True)
        return outcome

    def _affected(self) -> list[str]:
        """The tables that may hold something of the person, by name or by column."""
        names = {name for each in self.contracts for name in (each.table, each.quarantine_table)} | self.models.keys()
        for name in tables(self.catalog):
            if self.traces(name).subjects & set(self.catalog.load_table(name).schema().column_names):
                names.add(name)
        return sorted(name for name in names if self.catalog.table_exists(name))

    @property
    def _journal(self) -> Path:
        name = hashlib.sha256("".join(self.person.hashes(self.secret)).encode()).hexdigest()[:16]
        return self.settings.home / "forget" / f"{name}.json"

    def _days(self) -> set[date]:
        """The days on which there are rows of the person; noted, as they are not to be seen once the rows are gone."""
        known = json.loads(self._journal.read_text()) if self._journal.is_file() else []
        days = {date.fromisoformat(day) for day in known}
        for contract in self.contracts:
            if contract.stream and self.catalog.table_exists(contract.table):
                column, meant = contract.rules.event_date_field, self.traces(contract.table).in_rows
                for batch in self.catalog.load_table(contract.table).scan().to_arrow_batch_reader():
                    rows = pa.Table.from_batches([batch])
                    days |= set(rows.filter(meant(rows))[column].unique().to_pylist())
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._journal, json.dumps(sorted(day.isoformat() for day in days)))
        return days

    def _erase_landed(self, contract: Contract, outcome: Outcome) -> dict[str, int]:
        """Erase rows of a contract's tables; each table to the sequence number from which on it is clean."""
        if not self.catalog.table_exists(contract.table):
            return {}
        landed = self.catalog.load_table(contract.table)
        past, traces = dict[str, int](), self.traces(contract.table)
        if contract.stream:
            state = remember(self.catalog, contract, self.person, self.secret)
            quarantine = self.catalog.load_table(contract.quarantine_table)
            for table in (quarantine, landed):
                _mark(table, state)
                # A commit that did not see the mark yet is refused: the head is another from here on.
                begin_anew(table)
            rejected = self.traces(contract.quarantine_table).in_rows
            outcome.rows[contract.quarantine_table] = erase(quarantine, rejected, ("key", "payload"))
            past[contract.quarantine_table] = begin_anew(quarantine)
        outcome.rows[contract.table] = erase(landed, traces.about)
        if traces.before:
            # What a change took from the person is somebody else's by now.
            erase(landed, traces.in_rows, (BEFORE,))
        return past | {contract.table: begin_anew(landed)}

    def _make_anew(self, days: set[date], outcome: Outcome, tell: Tell) -> dict[str, int]:
        roots = {contract.table for contract in self.contracts if contract.stream}
        past: dict[str, int] = {}
        if not self.models:
            return past
        with open_runner(self.settings) as runner:
            for name, model in self.models.items():
                tell(f"Making {name} anew")
                if model.partition_column is None:
                    runner.run_full(name)
                elif roots & set(model.depends_on):
                    for first, last in ranges(days):
                        runner.run_partitions(name, first, last)
                # It follows the snapshot that its upstream tables begin anew with.
                runner.run_live(name)
                past[name] = begin_anew(self.catalog.load_table(name))
                outcome.models.append(name)
        return past

    def _purge(self, name: str, before: int, outcome: Outcome) -> None:
        table = self.catalog.load_table(name)
        tags, snapshots, files = purge(table, before)
        outcome.tags += [f"{name}@{tag}" for tag in tags]
        outcome.snapshots += snapshots
        removed = remove_files(self.catalog, table, files)
        # Files of commits that failed, or whose run was killed between the two steps above.
        table.refresh()
        others = files_in(table).keys() - set(referred_files(table, data=True))
        if others:
            traced = set(prove_table(table, self.traces(name)).found)
            removed += remove_files(self.catalog, table, others & traced)
        outcome.files += len(removed)


def _source(contract: Contract) -> str | None:
    """The source of a captured table, which is the tenant of all its rows; None for others."""
    return contract.rules.capture.source if contract.stream and contract.rules.capture else None


def _mark(table: Table, state: str) -> None:
    for _ in range(ATTEMPTS):
        table.refresh()
        if table.properties.get(FORGOTTEN_PROPERTY) == state:
            return
        try:
            with table.transaction() as transaction:
                transaction.set_properties({FORGOTTEN_PROPERTY: state})
        except CommitFailedException:
            continue
        return
    raise LakeError(
        ".".join(table.name()), f"other writers came first {ATTEMPTS} times.", remedy="Run the command again."
    )


def as_json(outcome: Outcome) -> dict[str, object]:
    """The outcome as JSON values."""
    return asdict(outcome) | {"erased": not outcome.found}
