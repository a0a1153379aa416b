"""Runs whose process is gone.

When the machine or the whole platform is killed, nobody is left to mark its runs as failed: they would stay "started",
hold their place in the queue and keep the sensor from asking for another run, for ever. Dagster's default launcher
offers run monitoring no health check, so the sensor looks itself.
"""

import dagster as dg
import psutil


def fail_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Mark started runs whose process on this machine is gone as failed, so that they can be retried.

    Returns:
        Their run ids.
    """
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        pid, since = _process(instance, run.run_id)
        if pid is None or _lives(pid, since):
            continue
        again = instance.get_run_by_id(run.run_id)  # It may have ended well between the two looks.
        if again is not None and again.status == dg.DagsterRunStatus.STARTED:
            instance.report_run_failed(again, f"Its process (pid {pid}) is gone: the platform was killed.")
            # Run monitoring would do it too, but the next run waits for its turn.
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            failed.append(run.run_id)
    return failed


def _process(instance: dg.DagsterInstance, run_id: str) -> tuple[int | None, float]:
    """The process that a run was started in, as its engine events tell, and when it said so."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event is not None else None
        if pid is not None:
            return int(str(pid.value)), entry.timestamp
    return None, 0.0


def _lives(pid: int, since: float) -> bool:
    """Whether a process that was there at a time still is: after a restart its id may be another's."""
    try:
        # Its creation is known to a hundredth of a second.
        return psutil.Process(pid).create_time() <= since + 1
    except psutil.NoSuchProcess:
        return False
