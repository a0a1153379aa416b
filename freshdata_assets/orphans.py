"""Runs whose process is gone.

When the machine or the whole platform is killed, nobody is left to mark its runs as failed: they would stay "started",
hold their place in the queue and keep the sensor from asking for another run, for ever. Dagster's default launcher
offers run monitoring no health check, so the sensor looks itself.
"""

from contextlib import suppress

import dagster as dg
import psutil

# A run's process, once found. What names it from then on is not the clock's, which may be corrected by hours.
_found: dict[str, psutil.Process] = {}
# A clock that is put forward puts forward when the machine was started, and every process with it.
_BOOT = psutil.boot_time()


def fail_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Mark started runs whose process on this machine is gone as failed, so that they can be retried.

    Returns:
        Their run ids.
    """
    failed = []
    started = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    for run_id in _found.keys() - {run.run_id for run in started}:
        del _found[run_id]
    for run in started:
        process = _found.get(run.run_id)
        pid, lives = (process.pid, process.is_running()) if process else _look(instance, run.run_id)
        if pid is None or lives:
            continue
        again = instance.get_run_by_id(run.run_id)  # It may have ended well between the two looks.
        if again is not None and again.status == dg.DagsterRunStatus.STARTED:
            instance.report_run_failed(again, f"Its process (pid {pid}) is gone: the platform was killed.")
            # Run monitoring would do it too, but the next run waits for its turn.
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            failed.append(run.run_id)
    return failed


def _look(instance: dg.DagsterInstance, run_id: str) -> tuple[int | None, bool]:
    """The process that a run was started in, as its engine events tell, and whether it lives."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        if event is not None and (told := event.engine_event_data.metadata.get("pid")) is not None:
            pid = int(str(told.value))
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                # After a restart its id may be another's. Its creation is known to a hundredth of a second, by a clock
                # that may have been put forward since the run began.
                if process.create_time() <= entry.timestamp + 1 + max(0.0, psutil.boot_time() - _BOOT):
                    _found[run_id] = process
            return pid, run_id in _found
    return None, False
