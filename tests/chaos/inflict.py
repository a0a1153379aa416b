"""The faults of a plan, one function a kind: each ends when what it was to provoke has happened."""

import os
import resource
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from pyiceberg.exceptions import CommitFailedException

from freshdata.services.broker import address_file, running_broker
from freshdata.services.processes import read_json
from tests.chaos.harness import PATIENCE, Chaos, ChaosError, Member
from tests.chaos.launch import SQLITE_ANSWER
from tests.chaos.schedule import ON_ASSIGNMENT, Step

FULL_RECORDS = 400  # What a full disk, or a locked catalog, lasts for: several commits.
ATTEMPTS = 3


def run(chaos: Chaos) -> None:
    """All steps of the plan, then recovery and a clean end with everything caught up.

    Raises:
        ChaosError: something did not happen.
    """
    for number, step in enumerate(chaos.plan.steps):
        if number == len(chaos.plan.steps) // 2:
            # Beside the traffic and the faults; it is done again at the end, with what came since.
            chaos.until(chaos.committed, "a first commit")
            chaos.transformer.begin()
        if step.calm:
            chaos.until(chaos.settled, f"recovering before: {step}")
            chaos.until(chaos.committed, "a first commit")
        chaos.until_sent(step.gap)
        KINDS[step.kind](chaos, step)
        chaos.faults[f"{step.kind} {step.point}".strip()] += 1
    chaos.finish()


def _target(chaos: Chaos, step: Step) -> Member:
    chaos.replace_the_dead()
    return chaos.members[step.target % len(chaos.members)]


def _busy(chaos: Chaos, step: Step) -> Member:
    """The worker that a step hits, of those that have partitions.

    Of workers that keep their names and come at once, Kafka may leave some without any: when the one that was first is
    killed, its successor gets all that it had, and the group counts as stable.
    """
    found: list[Member] = []

    def owners() -> bool:
        owned = chaos.owned()
        found[:] = [member for member in chaos.members if owned.get(member.name)]
        return bool(found)

    chaos.until(owners, f"an owner of partitions before: {step}")
    return found[step.target % len(found)]


def _armed(chaos: Chaos, step: Step, action: str) -> Member:
    """The worker that was told what to do at the step's point; points of an assignment need a worker that gets one."""
    if step.point not in ON_ASSIGNMENT:
        member = _busy(chaos, step)
    else:
        member = _target(chaos, step)
        # Of a partition without rows there is nothing to rebuild, and a group that still forms may have none to give.
        chaos.until(chaos.settled, f"recovering before: {step}")
        partitions = chaos.contract.rules.topic_partitions
        while len(chaos.members) > partitions:  # Of more workers one has nothing, perhaps the one that comes.
            _remove_worker(chaos, replace(step, target=-1))
            chaos.until(chaos.settled, "the group's farewell to a worker")
            member = _target(chaos, step)
        chaos.until(lambda: len(chaos.committed()) == partitions, "a first commit of every partition")
        chaos.kill(member)
        member = chaos.members[-1]
    member.tell(action, step.point)
    return member


def _kill(chaos: Chaos, step: Step) -> None:
    chaos.kill(_target(chaos, step))


def _kill_at(chaos: Chaos, step: Step) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        member = _armed(chaos, step, "kill")
        member.doomed = True
        try:
            chaos.until(
                lambda member=member: member.ended, f"the end of a worker by: {step}", patience=PATIENCE / ATTEMPTS
            )
        except ChaosError:
            # Its partitions may have gone to another one meanwhile.
            if attempt == ATTEMPTS:
                raise
            member.untell()
            member.doomed = False
            continue
        # It may have ended of an earlier fault.
        if member.process.exitcode == -signal.SIGKILL:
            return
    raise ChaosError(f"no worker was killed by: {step}\n{chaos.tails()}")


def _fail_at(chaos: Chaos, step: Step) -> None:
    """An error that comes from nowhere: the worker survives it, or ends and is started again."""
    member = _armed(chaos, step, "fail")
    chaos.until(lambda: member.ended or not member.fault.exists(), f"reaching: {step}")


def _after_answer(chaos: Chaos, step: Step) -> None:
    """The catalog has committed, but the worker that asked is killed before it knows, or told of an error."""
    if chaos.proxy:
        _catalog_fault(chaos, step)
    elif step.kind == "kill before answer":
        _kill_at(chaos, replace(step, point=SQLITE_ANSWER))
    else:
        _fail_at(chaos, replace(step, point=SQLITE_ANSWER))


def _hold_at(chaos: Chaos, step: Step) -> None:
    member = _armed(chaos, step, "hold")
    chaos.until(lambda: member.held or member.ended, f"reaching: {step}")
    chaos.until_sent(step.gap)
    member.untell()


def _zombie(chaos: Chaos, step: Step) -> None:
    """A worker is stopped until others own and have worked off its partitions, and then goes on as if nothing were."""
    member = _busy(chaos, step)
    if step.point:
        member.tell("hold", step.point)
        chaos.until(lambda: member.held or member.ended, f"reaching: {step}")
    if member.ended:
        return
    os.kill(member.pid, signal.SIGSTOP)
    chaos.members.remove(member)
    chaos.zombies.append(member)
    chaos.start(member.slot if chaos.plan.named else None)
    if not chaos.plan.named:
        chaos.until(chaos.settled, "the group's farewell to a stopped worker")
    chaos.until_past(chaos.ends(), "the work of a stopped worker's successors")
    member.untell()
    os.kill(member.pid, signal.SIGCONT)
    if chaos.plan.named:
        # Of two that claim a name Kafka refuses the one that came first, for good: it has to end. That may be the
        # successor, if the other woke up as a newcomer; started again, it takes the name back.
        chaos.until(lambda: member.ended, "the end of a worker whose name was taken")
    else:
        chaos.zombies.remove(member)
        chaos.members.append(member)
        chaos.until(chaos.settled, "the return of a stopped worker")


def _disk_full(chaos: Chaos, step: Step) -> None:
    before = len(chaos.exits)
    goal = chaos.traffic.sent + FULL_RECORDS * step.count
    if chaos.own_disk:
        balloon = chaos.settings.home / "balloon"
        _fill(balloon)
    else:
        # Without a disk of its own: the kernel refuses to make any file longer. New processes are not hit.
        for member in chaos.members:
            resource.prlimit(member.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    chaos.until(lambda: chaos.traffic.sent >= goal or len(chaos.exits) > before + 1, "noticing a full disk")
    if chaos.own_disk:
        balloon.unlink()
    else:
        for member in chaos.members:
            with suppress(ProcessLookupError):
                resource.prlimit(member.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def _fill(balloon: Path) -> None:
    with balloon.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    with balloon.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))


def _conflict(chaos: Chaos, step: Step) -> None:
    """A foreign writer commits while a worker has looked at the table but not committed yet."""
    chaos.until(chaos.committed, "a first commit")
    member = _busy(chaos, step)
    member.tell("hold", "before-commit")
    chaos.until(lambda: member.held or member.ended, f"reaching: {step}")
    for number in range(step.count):
        _foreign_commit(chaos, number)
    member.untell()


def _foreign_commit(chaos: Chaos, number: int) -> None:
    def committed() -> bool:
        table = chaos.catalog.load_table(chaos.contract.table)
        try:
            with table.transaction() as transaction:
                transaction.set_properties({"foreign.number": str(number)})
                with transaction.update_snapshot().fast_append():
                    pass
        except CommitFailedException:
            return False
        return True

    chaos.until(committed, "a foreign commit")


def _catalog_fault(chaos: Chaos, step: Step) -> None:
    proxy = chaos.proxy
    assert proxy is not None
    proxy.arm(step.kind, step.count)
    chaos.until(lambda: proxy.armed == 0, f"meeting: {step}")


def _catalog_locked(chaos: Chaos, step: Step) -> None:
    """Somebody else keeps the catalog's file locked."""
    with closing(sqlite3.connect(chaos.settings.home / "catalog.db", timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        chaos.until_sent(FULL_RECORDS * step.count)
        connection.execute("ROLLBACK")


def _broker_pid(chaos: Chaos) -> int:
    return int(read_json(address_file(chaos.broker))["pid"])


def _broker_restart(chaos: Chaos, step: Step) -> None:
    before = _broker_pid(chaos)
    os.kill(before, signal.SIGKILL)
    chaos.until(lambda: running_broker(chaos.broker) and _broker_pid(chaos) != before, "the broker's restart")


def _stop_without_broker(chaos: Chaos, step: Step) -> None:
    """A worker is told to end while the broker does not answer."""
    chaos.until(chaos.settled, f"recovering before: {step}")
    broker, member = _broker_pid(chaos), _target(chaos, step)
    os.kill(broker, signal.SIGSTOP)
    try:
        chaos.until_sent(step.gap)
        chaos.members.remove(member)
        chaos.zombies.append(member)
        chaos.stop(member, may_give_up=True)
    finally:
        os.kill(broker, signal.SIGCONT)
    chaos.start(member.slot)


def _add_worker(chaos: Chaos, step: Step) -> None:
    chaos.start()
    chaos.until(chaos.settled, "the entry of a new worker")


def _remove_worker(chaos: Chaos, step: Step) -> None:
    """A worker is told to end; the last one gets a successor."""
    member = _target(chaos, step)
    chaos.members.remove(member)
    chaos.zombies.append(member)
    chaos.stop(member)
    if not chaos.members:
        chaos.start(member.slot)


KINDS: dict[str, Callable[[Chaos, Step], None]] = {
    "kill": _kill,
    "kill at": _kill_at,
    "hold at": _hold_at,
    "fail at": _fail_at,
    "zombie": _zombie,
    "zombie at": _zombie,
    "disk full": _disk_full,
    "conflict": _conflict,
    "catalog answer lost": _catalog_fault,
    "catalog error after success": _after_answer,
    "kill before answer": _after_answer,
    "catalog commits late": _catalog_fault,
    "catalog down": _catalog_fault,
    "catalog slow": _catalog_fault,
    "catalog locked": _catalog_locked,
    "broker restart": _broker_restart,
    "stop without broker": _stop_without_broker,
    "add worker": _add_worker,
    "remove worker": _remove_worker,
}
