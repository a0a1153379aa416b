"""Compare two versions of a contract: what changed, and whether what is stored and sent still fits.

Fields are told apart by their ids, so one that is called otherwise is still the same. What a change breaks has three
kinds, and the contract's mode says which may not be broken:

- *storage*: what the stored rows rest on. It may never be broken, whatever the mode.
- *backward* (``BACKWARD``, ``FULL``): an event that the published version accepts, its successor accepts too, with the
  same values in the same columns. Then a worker may change versions between two batches, and a replay under the newest
  version gives what the older ones stored.
- *forward* (``FORWARD``, ``FULL``): an event that the new version accepts, whoever reads by the published one
  understands; fields that are new he passes over.

With ``_TRANSITIVE`` they hold against every earlier version, not just the last.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import pyarrow as pa

from freshdata.contracts.loader import contract_text, version_key
from freshdata.contracts.model import Column, Contract, Operations, StreamRules
from freshdata.contracts.operations import KINDS
from freshdata.errors import EvolutionError

# What the rows that are stored already rest on: attribute of the rules, its name in the contract, and the reason.
FIXED = {
    "topic": ("topic", "the table's offsets are the former topic's"),
    "capture": ("changeCapture", "the rows stored so far are changes of the former table"),
    "tenant_field": ("tenantField", "the table's files are partitioned by the former"),
    "tenant_buckets": ("tenantPartition", "the table's files are partitioned by the former"),
    "granularity": ("partitionGranularity", "the table's files are partitioned by the former"),
    "event_time_field": ("eventTimeField", "the rows stored so far are timed by the former"),
    "event_date_field": ("eventDateField", "Silver and Gold are partitioned by the former"),
    "derives_event_date": ("eventDateField", "Silver and Gold are partitioned by the former"),
    "dedupe_key": ("dedupeKey", "repeats of the events stored so far would not be recognised"),
    "version_field": ("versionField", "repeats of the events stored so far would not be recognised"),
}
Breaks = Literal["storage", "backward", "forward"]
NARROWED = "events that were right would go to quarantine"
JUDGED_APART = {"compatibility", "unknown_fields", "max_future", "enrichments", "operations"}
REMEDY = (
    "`freshdata contract diff {name}` compares the file with what is published. What cannot stay as it is becomes a "
    "new optional field beside it, or a new stream: a contract with another name and topic."
)


@dataclass(frozen=True)
class Change:
    """One difference between two versions of a contract.

    Attributes:
        field: The field, or the stream's property, or an empty string for the document as a whole.
        rule: What of it changed, for example ``type`` or ``enum``.
        reason: What changed from what to what; of an incompatible change also why it is refused.
        compatible: Whether the change may be published in the contract's mode.
        judging: Whether it changes what events must look like, or which columns they get: the version must go up.
        breaks: What it breaks, whatever the mode.
    """

    field: str
    rule: str
    reason: str
    compatible: bool = True
    judging: bool = True
    breaks: tuple[Breaks, ...] = ()


def _refused(field: str, rule: str, reason: str) -> Change:
    return Change(field, rule, reason, judging=field != "", breaks=("storage",))


def compare(published: Contract, new: Contract, earlier: Sequence[Contract] = ()) -> list[Change]:
    """All differences between a published contract and a new version of it; none when the two say the same.

    Args:
        published: The contract that is published.
        new: The contract that is to follow it.
        earlier: The versions that were published before: in a transitive mode they are compared too, and what they
            forbid comes last.
    """
    mode = mode_of(new)
    changes = [_judged(change, mode, published) for change in _changes(published, new)]
    if mode.endswith("_TRANSITIVE"):
        known = {(change.field, change.rule) for change in changes if not change.compatible}
        for before in earlier:
            for change in _event_changes(before, new):
                judged = _judged(change, mode, before)
                if not judged.compatible and (change.field, change.rule) not in known:
                    known.add((change.field, change.rule))
                    changes.append(replace(judged, reason=f"{judged.reason} (since version {before.version})"))
    return changes


def mode_of(contract: Contract) -> str:
    """How a contract's versions must be compatible; a lookup's are by the stored rows alone."""
    return contract.stream.compatibility if contract.stream else "BACKWARD"


def renames(published: Contract, new: Contract) -> dict[str, str]:
    """The columns that have another name by now: former name to new one."""
    names = {column.id: column.name for column in published.columns}
    return {names[column.id]: column.name for column in new.columns if names.get(column.id, column.name) != column.name}


def _judged(change: Change, mode: str, published: Contract) -> Change:
    forbidden = {"storage"} | {kind for kind in ("backward", "forward") if mode.lower().startswith((kind, "full"))}
    broken = forbidden & set(change.breaks)
    reason = change.reason
    if broken == {"forward"}:
        reason += f": whoever reads by version {published.version} would not understand the new events ({mode})"
    return replace(change, reason=reason, compatible=not broken)


def _changes(published: Contract, new: Contract) -> list[Change]:
    changes = list(_event_changes(published, new))
    if published.stream and new.stream:
        changes += _rule_changes(published.stream, new.stream)
    elif published.kind != new.kind:
        changes.append(_refused("", "kind", f"{published.kind} cannot become {new.kind}: its data lies elsewhere"))
    if not changes and published.version == new.version and contract_text(published) != contract_text(new):
        changes.append(Change("", "document", "descriptions, owner or quality rules changed", judging=False))
    before, after = version_key(published.version), version_key(new.version)
    if before < after:
        changes.append(Change("", "version", f"{published.version} becomes {new.version}", judging=False))
    elif before > after:
        changes.append(_refused("", "version", f"{new.version} is older than {published.version}"))
    elif any(change.judging for change in changes):
        reason = f"{new.version} is published already, with other contents: raise it"
        changes.append(_refused("", "version", reason))
    return changes


def _event_changes(published: Contract, new: Contract) -> Iterator[Change]:
    """What changes of the fields."""
    before = {column.id: column for column in published.columns}
    after = {column.id: column for column in new.columns}
    names = {column.name: column.id for column in published.columns}
    for identity, column in after.items():
        if identity in before:
            yield from _changes_of(before[identity], column, tenant=_is_tenant(published, before[identity].name))
        elif column.name in names:
            reason = f"is published with the id {names[column.name]}: another field needs another name"
            yield _refused(column.name, "id", reason)
        elif column.required:
            reason = "a new field cannot be required: the events sent so far lack it, and so do the stored rows"
            yield Change(column.name, "required", f"{reason}; make it optional", breaks=("backward",))
        else:
            yield Change(column.name, "added", f"new optional field, {column.type}")
    for column in [column for column in published.columns if column.id not in after]:
        # Also how a file that was written from an older version is told from one that means it: it may not leave out
        # what somebody else has published meanwhile.
        reason = "is published and not in the file, which may stem from an older version; producers may still send it"
        why = f"{reason}, and the stored rows have it: leave it in, as an optional field"
        yield Change(column.name, "removed", why, breaks=("backward", "forward") if column.required else ("backward",))


def refuse_breaking(published: Contract, new: Contract, changes: list[Change]) -> None:
    """Refuse changes that may not be published.

    Raises:
        EvolutionError: some are incompatible; it names every one of them.
    """
    breaking = [change for change in changes if not change.compatible]
    if breaking:
        raise EvolutionError(
            new.name, published.version, new.version, [described(change) for change in breaking],
            remedy=REMEDY.format(name=new.name),
        )  # fmt: skip


def described(change: Change) -> str:
    """A change in one line."""
    return ": ".join(part for part in (change.field, change.rule, change.reason) if part)


def widens(before: pa.DataType, after: pa.DataType) -> bool:
    """Whether every value of a type is one of another, and Iceberg reads its old files as the other."""
    if pa.types.is_decimal(before) and pa.types.is_decimal(after):
        return bool(after.scale == before.scale and after.precision >= before.precision)
    return before == after or (before, after) == (pa.int32(), pa.int64())


def _is_tenant(contract: Contract, name: str) -> bool:
    return contract.stream is not None and contract.stream.tenant_field == name


def _changes_of(before: Column, after: Column, *, tenant: bool) -> Iterator[Change]:
    name = after.name
    moved: tuple[Breaks, ...] = ("forward",) if before.source_name != after.source_name else ()
    if before.name != name:
        yield Change(name, "renamed", f"{before.name} becomes {name}", breaks=moved)
    elif moved:
        what = f"{before.source_name} becomes {after.source_name} in events"
        yield Change(name, "physicalName", what, breaks=moved)
    if lost := {before.source_name, *before.aliases} - {after.source_name, *after.aliases}:
        reason = f"events so far may name it {', '.join(sorted(lost))}: list that in its aliases"
        yield Change(name, "aliases", reason, breaks=("backward",))
    if before.protection != after.protection:
        what = f"{before.protection or 'none'} cannot become {after.protection or 'none'}"
        reason = f"{what}: the stored values are what the former made of them"
        yield Change(name, "protection", reason, breaks=("storage",))
    if before.type != after.type:
        fits = widens(before.type, after.type) and not tenant
        why = "" if fits else ": the table's files are partitioned by it" if tenant else ": stored values would not fit"
        yield Change(
            name, "type", f"{before.type} becomes {after.type}{why}", breaks=("forward",) if fits else ("storage",)
        )
    if before.required and not after.required:
        yield Change(name, "required", "required becomes optional", breaks=("forward",))
    elif after.required and not before.required:
        why = "optional cannot become required: stored rows and sent events lack it"
        yield Change(name, "required", why, breaks=("backward",))
    yield from _enum_changes(before, after)
    # An enum's members are tested alone, without the limits.
    yield from _limit_changes(name, {} if before.enum else before.limits, {} if after.enum else after.limits)
    if before.description != after.description:
        yield Change(name, "description", "changed", judging=False)


def _enum_changes(before: Column, after: Column) -> Iterator[Change]:
    old, new = (tuple(f"{value!r}" for value in column.enum) for column in (before, after))
    if set(old) == set(new):
        return
    if not new:
        yield Change(after.name, "enum", "any value is allowed", breaks=("forward",))
    elif not old or not set(old) <= set(new):
        gone = ", ".join(value for value in old if value not in new)
        what = f"{gone} cannot be removed" if old else "cannot be added to a field that took any value"
        gained = old and set(new) - set(old)
        broken: tuple[Breaks, ...] = ("backward", "forward") if gained else ("backward",)
        yield Change(after.name, "enum", f"{what}: {NARROWED}", breaks=broken)
    else:
        what = f"gained {', '.join(value for value in new if value not in old)}"
        yield Change(after.name, "enum", what, breaks=("forward",))


def _limit_changes(name: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for rule, closed, strict, sign in (
        ("minimum", "ge", "gt", 1),
        ("maximum", "le", "lt", -1),
        ("minLength", "min_length", "", 1),
        ("maxLength", "max_length", "", -1),
    ):
        old, new = _bound(before, closed, strict, sign), _bound(after, closed, strict, sign)
        if old != new:
            shown = [limits.get(closed, limits.get(strict, "no limit")) for limits in (before, after)]
            why = f"{shown[0]} becomes {shown[1]}" + (f": {NARROWED}" if new > old else "")
            yield Change(name, rule, why, breaks=("forward",) if new < old else ("backward",))
    if (pattern := after.get("pattern")) != before.get("pattern"):
        why = "cannot be shown to take all that the former took; only removing it is sure to" if pattern else "removed"
        broken: tuple[Breaks, ...] = ("forward",) if not pattern else ("backward",)
        yield Change(
            name, "pattern", why, breaks=("backward", "forward") if pattern and "pattern" in before else broken
        )


def _bound(limits: dict[str, Any], closed: str, strict: str, sign: int) -> tuple[Any, bool]:
    """The tightest bound on one side: greater is narrower, whichever side."""
    bounds: list[tuple[Any, bool]] = [(-math.inf, False)]
    bounds += [(sign * limits[closed], False)] if closed in limits else []
    bounds += [(sign * limits[strict], True)] if strict in limits else []
    return max(bounds)


def _rule_changes(before: StreamRules, after: StreamRules) -> Iterator[Change]:
    seen: set[str] = set()
    for field in fields(StreamRules):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new or field.name in JUDGED_APART:
            continue
        if field.name not in FIXED:
            yield Change(field.name, "setting", f"{old} becomes {new}", judging=False)
        elif (name := FIXED[field.name][0]) not in seen:
            seen.add(name)
            yield _refused(name, "fixed", f"{old} cannot become {new}: {FIXED[field.name][1]}")
    if before.unknown_fields != after.unknown_fields:
        narrowed = after.unknown_fields == "quarantine"
        why = ": events with unknown fields were right so far" if narrowed else ""
        what = f"{before.unknown_fields} {'cannot become' if narrowed else 'becomes'} {after.unknown_fields}"
        yield Change("unknownFieldPolicy", "policy", what + why, breaks=("backward",) if narrowed else ())
    if before.max_future != after.max_future:
        narrowed = after.max_future < before.max_future
        why = f": {NARROWED}" if narrowed else ""
        what = f"{before.max_future} becomes {after.max_future}{why}"
        yield Change("maxFuture", "limit", what, breaks=("backward",) if narrowed else ())
    if before.compatibility != after.compatibility:
        what = f"{before.compatibility} becomes {after.compatibility}, from this version on"
        yield Change("compatibility", "mode", what, judging=False)
    yield from _enrichment_changes(before, after)
    yield from _operation_changes(before.operations, after.operations)


def _enrichment_changes(before: StreamRules, after: StreamRules) -> Iterator[Change]:
    old, new = (
        {name: enrichment for enrichment in rules.enrichments for name in enrichment.columns.values()}
        for rules in (before, after)
    )
    for name in [name for name in new if name not in old]:
        yield Change(name, "enrichment", f"new column, from {new[name].lookup}")
    for name in [name for name in old if name not in new]:
        reason = "is published and not in the file, which may stem from an older version: leave it in"
        yield _refused(name, "enrichment", reason)
    for name, enrichment in old.items():
        if enrichment != new.get(name, enrichment):
            yield Change(name, "enrichment", f"comes from {new[name].lookup} in another way from now on")


def _operation_changes(before: Operations | None, after: Operations | None) -> Iterator[Change]:
    # Silver is rebuilt from the stored rows when what deletes has changed: what they mean must not change with it.
    if before is None or after is None:
        if after is not None:
            yield Change("operations", "setting", f"{after.field} says from now on what an event does")
        elif before is not None:
            yield _refused("operations", "removed", "the stored deletes would count as rows")
        return
    if before.field != after.field:
        reason = f"{before.field} cannot become {after.field}: the stored rows say in the former what they do"
        yield _refused("operations", "field", reason)
        return
    old, new = ({value: kind for kind in KINDS for value in getattr(side, kind)} for side in (before, after))
    for value in [value for value in old if new.get(value, old[value]) != old[value]]:
        reason = f"{value!r} cannot become {new[value]}: the stored rows mean {old[value]} by it"
        yield _refused("operations", "values", reason)
    for value in [value for value in new if value not in old]:
        yield Change("operations", "values", f"{value!r} is a new {new[value]}")
    if before.delete_mode != after.delete_mode:
        reason = f"{before.delete_mode} becomes {after.delete_mode}: Silver is rebuilt"
        yield Change("operations", "deleteMode", reason)
