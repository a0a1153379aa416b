"""What Dagster's event log says of an instance's runs."""

from functools import cached_property
from typing import TYPE_CHECKING

from freshdata.demo.outcome import CheckOutcome
from freshdata.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance


class Runs:
    """The runs and asset checks of one instance."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _instance(self) -> "DagsterInstance":
        from dagster import DagsterInstance

        return DagsterInstance.from_config(str(self._settings.dagster_home))

    def unfinished(self) -> int:
        """Number of runs that wait or run."""
        from dagster import RunsFilter
        from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

        return self._instance.get_runs_count(RunsFilter(statuses=NOT_FINISHED_STATUSES))

    def failures(self) -> list[str]:
        """The runs that failed and were not retried with success, one line each."""
        from dagster import DagsterRunStatus, RunsFilter

        failed = self._instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
        retried = {run.parent_run_id for run in self._instance.get_runs() if run.parent_run_id}
        return [f"run {run.run_id} of {run.job_name} failed" for run in failed if run.run_id not in retried]

    def checks(self) -> list[CheckOutcome]:
        """The last evaluation of every asset check."""
        from dagster import DagsterEventType

        latest: dict[tuple[str, str], CheckOutcome] = {}
        for run in reversed(self._instance.get_runs()):
            for entry in self._instance.all_logs(run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION):
                data = entry.get_dagster_event().asset_check_evaluation_data
                asset = ".".join(data.asset_key.path)
                latest[asset, data.check_name] = CheckOutcome(asset, data.check_name, data.passed, data.severity.value)
        return list(latest.values())
