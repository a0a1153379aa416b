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
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table

from freshdata.contracts import Contract, load_contracts
from freshdata.environments.records import read_environments
from freshdata.errors import ConfigError, ContractError, LakeError
from freshdata.files import replace_file
from freshdata.forgotten import FORGOTTEN_PROPERTY, Person, parsed, remember, scalars
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
from freshdata.settings import Settings
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
        ConfigError: there is no secret, or environments hold copies.
        ContractError: no contract names whom its rows are about.
    """

    def __init__(self, settings: Settings, person: Person) -> None:
        self.settings, self.person = settings, person
        self.catalog: Catalog = open_catalog(settings)
        secret = load_secret(settings)
        if secret is None:
            raise ConfigError("Whom to forget is remembered as a keyed hash, and there is no secret.", remedy=REMEDY)
        self.secret: Secret = secret
        self.contracts = [
            self._followed(each) for each in load_contracts(settings.contracts_dir).values() if each.subject
        ]
        if not self.contracts:
            raise ContractError(
                "subjectField",
                "no contract says whom its rows are about.",
                remedy="Name the column that does, as its customProperty subjectField, and publish it.",
            )
        if environments := [each.name for each in read_environments(settings)]:
            raise ConfigError(
                f"The environments {', '.join(environments)} hold copies of the rows.",
                remedy="Remove them first: `freshdata environments --remove NAME`.",
            )

    def _followed(self, contract: Contract) -> Contract:
        if contract.kind == "lookup" or not self.catalog.table_exists(contract.table):
            return contract
        return followed_contract(self.catalog.load_table(contract.table), contract)

    @cached_property
    def models(self) -> dict[str, ModelInfo]:
        """The models that are made from tables of the contracts, upstream before downstream."""
        known = load_manifest(self.settings)
        roots = {contract.table for contract in self.contracts}
        return {name: model for name, model in known.items() if roots & sources(known, model)}

    @cached_property
    def traces(self) -> Traces:
        """What the person leaves."""
        key, streams = self.person.key, [each for each in self.contracts if each.stream]
        protected = {how for each in streams if (how := each.protected.get(str(each.subject)))}
        # What both were used for is not known for certain: a contract's protection is fixed, a stream's name is not.
        made = {self.secret.hashed(key), self.secret.token(key)} if protected else set()
        return Traces(
            tenants={each.rules.tenant_field: self.person.tenant for each in streams},
            subjects=frozenset(str(each.subject) for each in self.contracts),
            values=frozenset({key} | made),
            made=frozenset(made),
            named_in=self.named_in,
        )

    def named_in(self, payload: bytes | None) -> bool:
        """Whether the bytes of a rejected event, sealed or not, name the person; in doubt they do."""
        opened = self.secret.opened(payload)
        if opened is None:
            return False
        event = parsed(opened)
        for contract in self.contracts if event is not None else ():
            written = {column.name: column.source_name for column in contract.columns}
            subject = event.get(written[str(contract.subject)]) if event else None
            tenant = event.get(written[contract.rules.tenant_field]) if event and contract.stream else None
            if subject is not None and tenant is not None:
                return (str(tenant), str(subject)) == (self.person.tenant, self.person.key)
        # What begins with a zero byte names a schema: its texts lie in it without quotes.
        return self.person.key.encode() in opened if opened[:1] == b"\0" else self.person.key in scalars(opened)

    def plan(self) -> list[Found]:
        """What would go, of each table."""
        found = []
        for name in self._affected():
            table = self.catalog.load_table(name)
            rows = table.scan().to_arrow_batch_reader()
            count = sum(
                pc.sum(self.traces.in_rows(pa.Table.from_batches([each])), min_count=0).as_py() for each in rows
            )
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
            outcome.rows[name] = erase(table, self.traces.in_rows)
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
            if self.traces.subjects & set(self.catalog.load_table(name).schema().column_names):
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
                column = contract.rules.event_date_field
                for batch in self.catalog.load_table(contract.table).scan().to_arrow_batch_reader():
                    rows = pa.Table.from_batches([batch])
                    days |= set(rows.filter(self.traces.in_rows(rows))[column].unique().to_pylist())
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._journal, json.dumps(sorted(day.isoformat() for day in days)))
        return days

    def _erase_landed(self, contract: Contract, outcome: Outcome) -> dict[str, int]:
        """Erase rows of a contract's tables; each table to the sequence number from which on it is clean."""
        if not self.catalog.table_exists(contract.table):
            return {}
        landed = self.catalog.load_table(contract.table)
        past: dict[str, int] = {}
        if contract.stream:
            state = remember(self.catalog, contract, self.person, self.secret)
            quarantine = self.catalog.load_table(contract.quarantine_table)
            for table in (quarantine, landed):
                _mark(table, state)
                # A commit that did not see the mark yet is refused: the head is another from here on.
                begin_anew(table)
            outcome.rows[contract.quarantine_table] = erase(quarantine, self.traces.in_rows, ("key", "payload"))
            past[contract.quarantine_table] = begin_anew(quarantine)
        outcome.rows[contract.table] = erase(landed, self.traces.in_rows)
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
            traced = set(prove_table(table, self.traces).found)
            removed += remove_files(self.catalog, table, others & traced)
        outcome.files += len(removed)


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
