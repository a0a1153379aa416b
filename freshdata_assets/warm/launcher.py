"""Dagster's run launcher that has a run forked from the warm process, and started in the ordinary way if it cannot be.

The two talk over a socket in the instance's folder. The child says who it is and waits for a word before it begins, so
that a run whose launcher gave up in between is never executed twice: once here, and once by the fallback.
"""

import json
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import psutil
from dagster import DagsterRun
from dagster._config.config_schema import UserConfigSchema
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClassData, serialize_value

from freshdata.services.processes import alive

PROCESS = "freshdata/process"
TIMEOUT = 5.0  # seconds
GO = b"go\n"


class WarmRunLauncher(DefaultRunLauncher):
    """Launches runs in forks of the process that listens on a socket.

    Args:
        socket: Path of the socket.
        inst_data: Dagster's own.
    """

    def __init__(self, socket: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._socket = socket

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """The launcher's configuration in ``dagster.yaml``."""
        return {"socket": str}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Make the launcher that ``dagster.yaml`` describes."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Launch a run warm, or cold when there is no warm process, or it has yet to load what has changed."""
        run = context.dagster_run
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                self._hand_over(run, connection)
        except (OSError, ValueError) as error:
            self._instance.report_engine_event(
                f"Started cold: the warm process did not take the run ({error}).", run, cls=type(self)
            )
            super().launch_run(context)

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run's process; returns whether there was one."""
        run = self._instance.get_run_by_id(run_id)
        process = _process(run) if run else None
        if run is None or run.is_finished or process is None:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
        self._instance.report_run_canceling(run)
        process.send_signal(signal.SIGTERM)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask for a run's process."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether a run's process lives; of a run that was started cold, there is no telling here."""
        if PROCESS not in run.tags or _process(run) is not None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Its process {run.tags[PROCESS]} is gone.")

    def _hand_over(self, run: DagsterRun, connection: socket.socket) -> None:
        """Have a run's process forked; it begins when all that Dagster must know of it is written down.

        Raises:
            OSError: nobody answers.
            ValueError: the answer is that it will not.
        """
        connection.settimeout(TIMEOUT)
        connection.connect(self._socket)
        if run.job_code_origin is None:
            raise ValueError("the run names no code")
        arguments = ExecuteRunArgs(
            run.job_code_origin, run.run_id, self._instance.get_ref(), set_exit_code_on_failure=True
        )
        connection.sendall(json.dumps({"arguments": serialize_value(arguments)}).encode() + b"\n")
        answer = json.loads(connection.makefile("rb").readline() or b'{"refused": "it is restarting"}')
        if "refused" in answer:
            raise ValueError(answer["refused"])
        self._instance.add_run_tags(run.run_id, {PROCESS: f"{answer['pid']}:{answer['created']}"})
        self._instance.report_engine_event(f"Forked from the warm process (pid: {answer['pid']}).", run, cls=type(self))
        connection.sendall(GO)


def _process(run: DagsterRun) -> psutil.Process | None:
    """The run's process, if it lives; a process id is used again, with its time of creation it is not."""
    pid, _, created = run.tags.get(PROCESS, "").partition(":")
    if not alive(pid, created) or int(pid) == os.getpid():
        return None
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid))
    return None
