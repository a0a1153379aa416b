"""Deploy an environment's models to production, and take a deployment back: code and tables."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pyiceberg.catalog import Catalog
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.update import SetCurrentSchemaUpdate, SetSnapshotRefUpdate

from freshdata.environments.build import Tell
from freshdata.environments.catalog import table_at
from freshdata.environments.changes import ModelChange, model_changes
from freshdata.environments.compose import compose_models
from freshdata.environments.records import (
    Environment,
    environment_settings,
    locked,
    read_environment,
    user,
    write_environment,
)
from freshdata.errors import DeploymentError, TransformError
from freshdata.lake.catalog import load_table, open_catalog
from freshdata.lake.cursors import read_cursor
from freshdata.lake.snapshots import commit_on_head
from freshdata.lake.tags import create_tag, drop_tag, list_tags
from freshdata.settings import Settings
from freshdata.transform.context import open_context, refuse_lint_errors
from freshdata.transform.manifest import ModelInfo, load_models
from freshdata.transform.results import ModelRun
from freshdata.transform.retry import retry
from freshdata.transform.runner import Runner
from freshdata.transform.versions import (
    Version,
    keep_models,
    models_fingerprint,
    read_versions,
    version_dir,
    write_versions,
)

PRODUCTION = "production"
# Keeps the rows from before a promotion until the next one, for a rollback.
TAG = "before-"


@dataclass(frozen=True)
class Deployment:
    """What was deployed to production.

    Attributes:
        version: The version that production follows now.
        changes: What it changed.
        restored: The tables that were rolled back to the snapshot before.
        runs: The runs that brought the affected tables up to date.
        failures: Model to why its table could not be, or must not be, brought up to date.
    """

    version: Version
    changes: tuple[ModelChange, ...]
    restored: tuple[str, ...]
    runs: tuple[ModelRun, ...]
    failures: dict[str, str]


def promote(settings: Settings, name: str, *, tell: Tell = lambda _: None) -> Deployment:
    """Deploy an environment's models to production, and rebuild the tables that they affect.

    Args:
        settings: The instance, with the working copy as its project.
        name: The environment's name.
        tell: Called with what is being done.

    Raises:
        DeploymentError: there is no such environment, or it may not be promoted.
        TransformError: the models cannot be deployed; production is as it was.
    """
    with locked(settings, PRODUCTION), locked(settings, name):
        environment = read_environment(settings, name)
        versions = read_versions(settings)
        if reasons := _reasons(settings, environment, versions):
            raise DeploymentError(
                name, "cannot be promoted", reasons, remedy=f"Settle them, and plan anew: `freshdata plan {name}`."
            )
        own = environment_settings(settings, name)
        fingerprint = keep_models(settings, version_dir(own, environment.fingerprint), environment.commit)
        version = Version(fingerprint, "promoted", user(), environment=name)
        done = _follow(settings, versions, version, tell=tell)
        write_environment(settings, replace(environment, state="promoted"))
        return done


def rollback(settings: Settings, model: str | None = None, *, tell: Tell = lambda _: None) -> Deployment:
    """Take back the last promotion, or return one model to its version before; the rest stays as it is.

    Tables get the rows of the snapshot before, and what was added upstream since is taken in anew; where that snapshot
    is gone, or was made by other code, the table is rebuilt.

    Args:
        settings: The instance.
        model: The model; None takes back everything that was promoted last.
        tell: Called with what is being done.

    Raises:
        DeploymentError: there is nothing to go back to.
        TransformError: the models cannot be deployed, for example because another one needs what the model would lose;
            production is as it was.
    """
    with locked(settings, PRODUCTION):
        versions = read_versions(settings)
        if model is None:
            if len(versions) < 2:  # The first is what was deployed before any promotion.
                raise _nothing("nothing was promoted")
            return _follow(settings, versions[:-1], None, heads=versions[-1].heads, tell=tell)
        position = _introduced(versions, model)
        before = versions[position - 1].fingerprint
        fingerprint = compose_models(settings, versions[-1].fingerprint, model, before)
        version = Version(fingerprint, "rolled back", user(), restored={model: before})
        return _follow(settings, versions, version, heads=versions[position].heads, tell=tell)


def follow_files(settings: Settings) -> None:
    """Have an instance run the project's own files again, whatever was promoted to it."""
    with locked(settings, PRODUCTION):
        write_versions(settings, [])


def _reasons(settings: Settings, environment: Environment, versions: list[Version]) -> list[str]:
    """Why an environment may not be promoted."""
    reasons = list(environment.reasons)
    if environment.state == "planning":
        reasons.append("its plan did not complete")
    if environment.state == "same" or (versions and versions[-1].fingerprint == environment.fingerprint):
        reasons.append("its models are production's")
    elif not versions:
        reasons.append("production runs the project's own files")
    elif versions[-1].fingerprint != environment.base:
        last = versions[-1]
        source = f" from {last.environment}" if last.environment else ""
        reasons.append(f"production has moved on since the plan: {last.by} {last.how}{source} at {last.at}")
    if models_fingerprint(settings.working_models_dir) != environment.fingerprint:
        reasons.append("the models' files have changed since the plan")
    return reasons


def _introduced(versions: list[Version], model: str) -> int:
    """The position of the version that gave a model its present state.

    Raises:
        DeploymentError: it has no earlier one.
    """
    position = len(versions) - 1
    while position > 0:
        version = versions[position]
        if model in version.restored:
            fingerprints = [earlier.fingerprint for earlier in versions[:position]]
            position = fingerprints.index(version.restored[model])
        elif model in version.changed:
            return position
        else:
            position -= 1
    raise _nothing(f"no promotion has changed {model}, or it is back at its first version")


def _follow(
    settings: Settings,
    versions: list[Version],
    version: Version | None,
    *,
    heads: Mapping[str, tuple[int, int]] | None = None,
    tell: Tell,
) -> Deployment:
    """Have production follow another version.

    Args:
        settings: The instance.
        versions: The versions that it has followed.
        version: The next one; None makes it the last of the versions.
        heads: Table to the snapshot and schema to which it is rolled back, if the version made them.
        tell: Called with what is being done.
    """
    fingerprint = version.fingerprint if version else versions[-1].fingerprint
    target = settings.for_models(version_dir(settings, fingerprint))
    production, models = load_models(settings), load_models(target)
    changes = model_changes(production, settings.models_dir, models, target.models_dir)
    affected = [change.model for change in changes if change.rebuilt]
    catalog = open_catalog(settings)
    tell("Deploying")
    with open_context(target) as context:
        refuse_lint_errors(context)
        if version:
            direct = tuple(change.model for change in changes if change.kind != "downstream")
            version = replace(version, changed=direct, heads=_heads(catalog, affected))
            _tag(catalog, version)
            versions = [*versions, version]
        restored = tuple(name for name in affected if _rewind(catalog, models[name], (heads or {}).get(name)))
        runner = Runner(target, context, {})
        runner.deploy()
        write_versions(settings, versions)
        runs, failures = _bring_up_to_date(runner, affected, tell)
    return Deployment(versions[-1], changes, restored, runs, failures)


def _bring_up_to_date(runner: Runner, affected: list[str], tell: Tell) -> tuple[tuple[ModelRun, ...], dict[str, str]]:
    """Run the affected models live: a table of other code is rebuilt, in one commit; any other takes in its news."""
    runs, failures = [], {}
    for name in affected:
        if culprits := [upstream for upstream in runner.manifest[name].depends_on if upstream in failures]:
            failures[name] = f"not run, because {', '.join(culprits)} failed"
            continue
        tell(f"Rebuilding {name}")
        try:
            run = runner.run_live(name)
        except TransformError as error:
            failures[name] = error.message
            continue
        runs.append(run)
        if refused := [audit for audit in run.audits if audit.blocking and not audit.passed]:
            failures[name] = ", ".join(f"its audit {audit.name} refuses {audit.count:,} rows" for audit in refused)
    return tuple(runs), failures


def _heads(catalog: Catalog, tables: list[str]) -> dict[str, tuple[int, int]]:
    heads = {}
    for name in tables:
        if catalog.table_exists(name):
            table = catalog.load_table(name)
            if head := table.current_snapshot():
                heads[name] = (head.snapshot_id, table.metadata.current_schema_id)
    return heads


def _tag(catalog: Catalog, version: Version) -> None:
    """Keep the rows from before a version, and no longer those from before the versions before it."""
    for name, (snapshot_id, _) in version.heads.items():
        table = catalog.load_table(name)
        for tag in list_tags(table):
            if tag.name.startswith(TAG):
                drop_tag(table, tag.name)
        create_tag(table, TAG + version.fingerprint, snapshot_id=snapshot_id)


def _rewind(catalog: Catalog, info: ModelInfo, head: tuple[int, int] | None) -> bool:
    """Roll a table back to a snapshot, with the columns it had, if a model's present code made that snapshot."""
    from freshdata.transform.deletes import deletes_table

    # What a table of deletes says was deleted is what the newer code took for deletes: it is made anew with its table.
    if head is None or not catalog.table_exists(info.name) or catalog.table_exists(deletes_table(info.name)):
        return False
    snapshot_id, schema_id = head
    table = catalog.load_table(info.name)
    if table.snapshot_by_id(snapshot_id) is None:
        return False
    cursor = read_cursor(table_at(table, snapshot_id))
    if cursor is None or cursor.fingerprint != info.code_version:
        return False
    main = SetSnapshotRefUpdate.model_validate(
        {"ref-name": MAIN_BRANCH, "type": SnapshotRefType.BRANCH, "snapshot-id": snapshot_id}
    )
    updates = (main, SetCurrentSchemaUpdate.model_validate({"schema-id": schema_id}))
    retry(lambda: commit_on_head(load_table(catalog, info.name), updates), info.name)
    return True


def _nothing(reason: str) -> DeploymentError:
    return DeploymentError(
        PRODUCTION, "cannot be rolled back", [reason], remedy="`freshdata environments` shows what production follows."
    )
