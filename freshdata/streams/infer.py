"""What a sample's events are about: what identifies them, when they happened, whose they are, how to store them."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from freshdata.errors import SampleError
from freshdata.streams.fields import PERSONAL_NAME, TOLERATED, Field, Names, infer_fields
from freshdata.streams.model import Choices, Decision, Inferred
from freshdata.streams.samples import Row, Sample
from freshdata.streams.times import STEPS, day, moment, rounded_up, usual_gap

KEYS = (r"event_?id", r"id", r"uuid|guid", r"(\w+_)?(id|uuid|guid|key|number|no|code|ref|reference)")
TIMES = (
    r"event_(time|timestamp)",
    r"(occurred|happened|measured|observed)(_at)?",
    r"timestamp|ts|time|datetime|date_time",
    r"created(_at|_on|_time)?",
    r"\w*_at|\w*time\w*|\w*timestamp\w*",
)
TENANTS = (
    r"tenant(_id|_name)?",
    r"(customer|client|account|organi[sz]ation|org|company|merchant|partner|workspace)(_id|_name|_code)?",
    r"(shop|store|seller|vendor|site|branch|location|station|device|sensor|operator|carrier)(_id|_name|_code)?",
    r"(region|country|state|city|market|brand|channel)(_id|_name|_code)?",
)
VERSIONS = r"version|revision|seq(uence)?|lsn|(updated|modified|changed)(_at|_on|_time)?"
NO_TENANT = re.compile(r"(^|_)(status|type|kind|event|action|name|title|comment|note|message|description)(_|$)")
OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}")
FEW_TENANTS = 8
MANY_ROWS_A_DAY = 50_000_000
LONGEST_LATENESS = timedelta(days=7)
LONGEST_FRESHNESS = timedelta(days=5)  # Below tenantIdleAfter, by default a week.


def infer(name: str, sample: Sample, choices: Choices) -> Inferred:
    """Infer a stream from a sample of its events.

    Raises:
        SampleError: the events lack what a stream must have, or a choice names no field that could be it.
    """
    return _Inference(name, sample, choices).result()


class _Inference:
    def __init__(self, name: str, sample: Sample, choices: Choices) -> None:
        self.name, self.sample, self.choices = name, sample, choices
        if unknown := choices.types.keys() - {each for row in sample.rows for each in row}:
            raise _error(f"{sample.source} has no field {min(unknown)}", "Name a field of the sample.")
        # The one name of Bronze's own that an event may have: then it is the event's day.
        found, self.kept = infer_fields(sample, choices.types, Names(free=["event_date"]))
        self.fields = {each.source_name: each for each in found}
        self.decisions: list[Decision] = []
        self.distinct = list({json.dumps(row, sort_keys=True, default=str): row for row in sample.rows}.values())

    def decide(self, what: str, value: object, why: str, *, review: bool = False) -> None:
        self.decisions.append(Decision(what, str(value), why, review))

    def result(self) -> Inferred:
        event_time = self.event_time()
        key, version = self.key()
        tenant = self.tenant({key, event_time, version or ""})
        needed = [key, event_time, tenant, *([version] if version else [])]
        for source in needed:
            self.require(source)
        derives_date = self.event_date(event_time)
        lateness = self.lateness(event_time)
        tenants = {row.get(tenant) for row in self.sample.rows}
        partitions = self.choices.partitions or self.sample.partitions or 4
        told = self.choices.partitions or self.sample.partitions
        self.decide("topicPartitions", partitions, "as it has them" if told else "up to four workers share it",
                    review=not told)  # fmt: skip
        layout = self.choices.tenant_partition or ("tenant" if len(tenants) <= FEW_TENANTS else "bucket(32)")
        self.decide("tenantPartition", layout, self.told("tenant_partition", f"{len(tenants)} tenants in the sample"),
                    review=self.choices.tenant_partition is None)  # fmt: skip
        granularity = self.granularity(event_time)
        freshness = self.freshness(event_time, tenant)
        window = self.dedupe_window(lateness)
        topic = self.choices.topic or self.sample.topic or self.name
        self.decide("topic", topic, "as told" if self.choices.topic or self.sample.topic else "the stream's name")
        owner = self.choices.owner or "unowned"
        if not OWNER.fullmatch(owner):
            raise _error(f"{owner!r} is no name for an owner", "Name a team, such as web-shop, or an e-mail address.")
        self.decide("owner", owner, "as told" if self.choices.owner else "nobody was named", review=owner == "unowned")
        self.report_fields()
        return Inferred(
            self.name, self.sample, tuple(self.fields.values()), tuple(self.kept),
            key=self.fields[key].name, version=self.fields[version].name if version else None,
            event_time=self.fields[event_time].name, event_date="event_date", derives_date=derives_date,
            tenant=self.fields[tenant].name, topic=topic, partitions=partitions, granularity=granularity,
            tenant_partition=layout, lateness=lateness, dedupe_window=window, freshness=freshness, owner=owner,
            decisions=tuple(self.decisions),
        )  # fmt: skip

    def told(self, choice: str, else_why: str) -> str:
        return "as told" if getattr(self.choices, choice) is not None else else_why

    def chosen(self, name: str, what: str, fits: Callable[[Field], bool], wanted: str) -> str:
        """A field that somebody has named, as events or as the columns call it.

        Raises:
            SampleError: there is none, or it cannot be that.
        """
        for each in self.fields.values():
            if name in (each.source_name, each.name):
                if not fits(each):
                    raise _error(f"{name} cannot be the {what}: it is {each.physical} ({each.why})", wanted)
                self.decide(what, each.source_name, "as told")
                return each.source_name
        names = ", ".join(self.fields)
        raise _error(f"{self.sample.source} has no field {name} that could be the {what}", f"Choose one of: {names}.")

    def event_time(self) -> str:
        what, wanted = "event time", "It must be a time with a zone, such as 2026-01-31T12:00:00Z."
        if self.choices.event_time is not None:
            return self.chosen(self.choices.event_time, what, lambda each: each.physical == "timestamptz", wanted)
        times = [each for each in self.fields.values() if each.physical == "timestamptz" and _nearly_always(each)]
        if not times:
            near = [e.source_name for e in self.fields.values() if e.physical in ("timestamp_ntz", "date")]
            near += [
                e.source_name for e in self.fields.values() if e.logical == "integer" and _rank(e, TIMES) < len(TIMES)
            ]
            hint = f"; {', '.join(near)} may be times, but not of this form" if near else ""
            raise _error(
                f"{self.sample.source}: no field that every event has is a time with a zone{hint}",
                "Let the producer write when each event happened, such as 2026-01-31T12:00:00Z.",
            )
        best = min(times, key=lambda each: _rank(each, TIMES))
        others = ", ".join(each.source_name for each in times if each is not best)
        why = f"a time with a zone in every event; so is {others}" if others else "the only time with a zone"
        self.decide(what, best.source_name, why, review=bool(others))
        return best.source_name

    def key(self) -> tuple[str, str | None]:
        if self.choices.key is not None:
            fits = lambda each: each.physical in ("string", "bigint", "int")  # noqa: E731
            key = self.chosen(self.choices.key, "key", fits, "A key is text or a whole number.")
            self.refuse_other_keys(key)
        elif self.sample.keys is not None:
            key = self.message_key(self.sample.keys)
        else:
            return self.guessed_key()
        return key, self.version(key)

    def message_key(self, keys: list[bytes | None]) -> str:
        for each in self.key_candidates():
            if self.keyed_by(each.source_name, keys):
                self.decide("key", each.source_name, "it is the key of the topic's messages")
                return each.source_name
        raise _error(
            f"the messages of {self.sample.source} are not keyed by one of their fields",
            "Equal events must share a partition, or their repeats are not found: let the producer set the event's id "
            "as the message's key.",
        )

    def keyed_by(self, source: str, keys: list[bytes | None]) -> bool:
        same = sum(str(row.get(source)).encode() == key for row, key in zip(self.sample.rows, keys, strict=True))
        return same >= (1 - TOLERATED) * len(keys)

    def refuse_other_keys(self, key: str) -> None:
        if self.sample.keys is not None and not self.keyed_by(key, self.sample.keys):
            raise _error(
                f"the messages of {self.sample.source} are not keyed by {key}",
                "Let the producer set it as the message's key, or choose the field that it sets.",
            )

    def guessed_key(self) -> tuple[str, str | None]:
        candidates = self.key_candidates()
        unique = [each for each in candidates if self.repeats(each.source_name) == 0]
        named = [each for each in unique if _rank(each, KEYS) < len(KEYS) or _like_ids(each, self.sample.rows)]
        if named:
            best = min(named, key=lambda each: _key_rank(each, self.name))
            others = ", ".join(each.source_name for each in named if each is not best)
            why = "another value in every event" + (f"; so has {others}" if others else "")
            self.decide("key", best.source_name, why, review=bool(others))
            return best.source_name, self.version(best.source_name)
        for each in sorted(candidates, key=lambda each: _key_rank(each, self.name)):
            if _rank(each, KEYS) < len(KEYS) and (version := self.guessed_version(each.source_name)):
                self.decide(
                    "key", each.source_name, f"events of one key differ in {version}: its versions", review=True
                )
                self.decide("version", version, f"with {each.source_name}, another value in every event", review=True)
                return each.source_name, version
        names = ", ".join(each.source_name for each in candidates) or "none"
        raise _error(
            f"{self.sample.source}: no field tells one event from all others (looked at: {names})",
            "Let the producer give each event an id; or name the field with --key, and with --version the one that "
            "orders the versions of a key.",
        )

    def key_candidates(self) -> list[Field]:
        return [e for e in self.fields.values() if e.physical in ("string", "bigint", "int") and _nearly_always(e)]

    def repeats(self, *sources: str) -> int:
        """How many of the distinct events have the values of an earlier one."""
        seen = {tuple(str(row.get(source)) for source in sources) for row in self.distinct}
        return len(self.distinct) - len(seen)

    def version(self, key: str) -> str | None:
        """The version field of a key that is known."""
        if self.choices.version is not None:
            fits = lambda each: each.physical in ("bigint", "int", "timestamptz")  # noqa: E731
            return self.chosen(self.choices.version, "version", fits, "A version is a whole number or a time.")
        if (repeats := self.repeats(key)) == 0:
            return None
        if version := self.guessed_version(key):
            self.decide(
                "version", version, f"{repeats} events have the key of another; it tells them apart", review=True
            )
            return version
        raise _error(
            f"{self.sample.source}: {repeats} events have the {key} of another one, and differ from it",
            "Name with --version the field that orders the versions of a key, or another --key.",
        )

    def guessed_version(self, key: str) -> str | None:
        likely = [
            each
            for each in self.fields.values()
            if each.source_name != key and each.physical in ("bigint", "int", "timestamptz") and _nearly_always(each)
            if re.fullmatch(VERSIONS, each.name) or each.physical == "timestamptz"
        ]
        likely.sort(key=lambda each: not re.fullmatch(VERSIONS, each.name))
        return next((each.source_name for each in likely if self.repeats(key, each.source_name) == 0), None)

    def tenant(self, taken: set[str]) -> str:
        what, wanted = "tenant", "A tenant is text, or a whole number."
        if self.choices.tenant is not None:
            fits = lambda each: each.physical in ("string", "bigint", "int")  # noqa: E731
            return self.chosen(self.choices.tenant, what, fits, wanted)
        values = {
            each.source_name: {row.get(each.source_name) for row in self.sample.rows}
            for each in self.key_candidates()
            if each.source_name not in taken
            and not each.personal
            and (_rank(each, TENANTS) < len(TENANTS) or not NO_TENANT.search(each.name))
        }
        few = {name for name, found in values.items() if 2 * len(found) <= max(len(self.distinct), 2)}
        named = [name for name in few if _rank(self.fields[name], TENANTS) < len(TENANTS)]
        if named:
            best = min(named, key=lambda name: (_rank(self.fields[name], TENANTS), len(values[name])))
            others = ", ".join(name for name in named if name != best)
            why = f"{len(values[best])} values, and its name" + (f"; {others} might be it, too" if others else "")
            self.decide(what, best, why, review=True)
            return best
        texts = [name for name in few if self.fields[name].physical == "string"]
        if not texts:
            names = ", ".join(values) or "none"
            raise _error(
                f"{self.sample.source}: no field says whose an event is (looked at: {names})",
                "Name one with --tenant: a shop, a customer, a region, a sensor; freshness is judged for each.",
            )
        best = min(texts, key=lambda name: (len(values[name]) == 1, len(values[name])))
        self.decide(what, best, f"the text with the fewest values: {len(values[best])}", review=True)
        return best

    def require(self, source: str) -> None:
        each = self.fields[source]
        if not each.required:
            lacking = f"; {each.missing:.1%} of the events lack it, and go to quarantine"
            each = replace(each, required=True, why=each.why + lacking, review=True)
        # What may be, the tenants and keys of tomorrow included, a sample does not show.
        self.fields[source] = replace(each, enum=(), review=each.review and not each.enum)

    def event_date(self, event_time: str) -> bool:
        """Whether the day is derived from the event time; a field that has its name and is no day makes way."""
        given = next((each for each in self.fields.values() if each.name == "event_date"), None)
        if given is not None:
            days = [(day(row.get(given.source_name)), moment(row.get(event_time))) for row in self.sample.rows]
            near = all(found and at and abs((found - at.date()).days) <= 1 for found, at in days)
            if given.physical == "date" and given.required and near:
                self.decide("event date", given.source_name, "a date in every event, within a day of the event time")
                return False
            self.fields[given.source_name] = replace(given, name="event_date_value")
        self.decide("event date", "event_date", "the UTC date of the event time", review=False)
        return True

    def times(self, event_time: str) -> list[tuple[datetime, Row]]:
        return [(at, row) for row in self.sample.rows if (at := moment(row.get(event_time))) is not None]

    def lateness(self, event_time: str) -> timedelta:
        latest, newest = timedelta(0), datetime.min.replace(tzinfo=UTC)
        for at, _ in self.times(event_time):
            latest, newest = max(latest, newest - at), max(newest, at)
        if self.choices.lateness is not None:
            self.decide("allowedLateness", self.choices.lateness, "as told")
            return self.choices.lateness
        if self.sample.types is not None or latest > LONGEST_LATENESS:
            chosen, why = timedelta(hours=6), "the sample is not in the order in which its events came"
        else:
            chosen, why = max(rounded_up(latest * 1.5), timedelta(hours=1)), f"at most {latest} behind the newest"
        self.decide("allowedLateness", chosen, why, review=self.sample.types is not None or latest > LONGEST_LATENESS)
        return chosen

    def dedupe_window(self, lateness: timedelta) -> timedelta:
        window = max(timedelta(days=1), rounded_up(2 * lateness))
        self.decide("dedupeWindow", window, "a day, or twice the lateness")
        return window

    def granularity(self, event_time: str) -> str:
        moments = [at for at, _ in self.times(event_time)]
        days = max((max(moments) - min(moments)) / timedelta(days=1), 1 / 24) if moments else 1.0
        a_day = int(len(moments) / days)
        chosen = self.choices.granularity or ("hour" if a_day >= MANY_ROWS_A_DAY else "day")
        self.decide("partitionGranularity", chosen, self.told("granularity", f"{a_day:,} events a day in the sample"),
                    review=self.choices.granularity is None)  # fmt: skip
        return chosen

    def freshness(self, event_time: str, tenant: str) -> timedelta:
        if self.choices.freshness is not None:
            self.decide("freshness SLA", self.choices.freshness, "as told")
            return self.choices.freshness
        moments: dict[Any, list[datetime]] = defaultdict(list)
        for at, row in self.times(event_time):
            moments[row.get(tenant)].append(at)
        usual = [gap for found in moments.values() if (gap := usual_gap(sorted(found))) is not None]
        longest = max(usual, default=None)
        chosen = min(max(rounded_up(longest * 3), STEPS[0]), LONGEST_FRESHNESS) if longest else timedelta(days=1)
        why = (
            f"three times {longest}, in which 95 of 100 events of the rarest tenant follow one another"
            if longest
            else ""
        )
        self.decide("freshness SLA", chosen, why or "the sample is too small to tell", review=True)
        return chosen

    def report_fields(self) -> None:
        for each in self.fields.values():
            form = f"{each.physical}{', required' if each.required else ''}"
            why = each.why
            if each.enum:
                form, why = f"{form}, one of {', '.join(each.enum)}", f"{why}; other values would go to quarantine"
            if each.personal:
                why = f"{why}; looks like personal data"
            name = each.name if each.name == each.source_name else f"{each.name} ({each.source_name})"
            self.decide(f"field {name}", form, why, review=each.review or each.personal)
        for kept in self.kept:
            columns = ", ".join(inner.name for inner in kept.inner)
            why = f"{kept.why}; Silver: {columns}" if columns else kept.why
            if personal := [inner.name for inner in kept.inner if PERSONAL_NAME.search(inner.name)]:
                why = f"{why}; {', '.join(personal)} looks like personal data"
            self.decide(f"field {kept.source_name}", "kept in _extra", why, review=True)
        if self.sample.broken:
            self.decide("broken messages", self.sample.broken, "they are no JSON objects, and would go to quarantine")


def _nearly_always(each: Field) -> bool:
    return each.missing <= TOLERATED


def _rank(each: Field, patterns: Iterable[str]) -> int:
    return next((number for number, pattern in enumerate(patterns) if re.fullmatch(pattern, each.name)), len(KEYS) * 9)


def _key_rank(each: Field, stream: str) -> tuple[bool, int]:
    # rides: ride_id; orders: order_id.
    own = re.fullmatch(rf"{re.escape(stream.rstrip('s'))}s?_?(id|uuid|key|number)", each.name) is not None
    return not own and _rank(each, KEYS[:1]) != 0, _rank(each, KEYS)


def _like_ids(each: Field, rows: list[Row]) -> bool:
    """Whether texts look made to be unique: all of one length, with digits, and without blanks."""
    if each.physical != "string":
        return False
    texts = [str(row.get(each.source_name)) for row in rows[:1000]]
    common = Counter(map(len, texts)).most_common(1)[0]
    plain = all(re.search(r"\d", text) and re.fullmatch(r"[\w:.-]{8,64}", text) for text in texts)
    return plain and common[1] == len(texts)


def _error(message: str, remedy: str) -> SampleError:
    return SampleError(f"{message}.", remedy=remedy)
