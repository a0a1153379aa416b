"""The process behind ``freshdata up``: owns the instance, runs the platform, and stops it when told to."""

import signal
import sys
import threading
from collections.abc import Callable, Collection
from types import FrameType

from freshdata.errors import FreshDataError
from freshdata.services.extras import Extra
from freshdata.services.instance import own_home
from freshdata.services.platform import LiveSample, Platform
from freshdata.services.processes import write_json
from freshdata.settings import Settings, load_settings

FOLLOW_SECONDS = 2.0


def run_live(
    settings: Settings,
    sample: LiveSample,
    *,
    web_port: int,
    extras: Collection[Extra],
    tell: Callable[[str], None],
    ready: Callable[[str], None],
) -> None:
    """Run the platform until SIGINT or SIGTERM.

    Args:
        settings: The instance.
        sample: How the live sample is produced.
        web_port: Port of the Dagster UI.
        extras: What else to start.
        tell: Called with each step of the start.
        ready: Called with the UI's address once everything answers.

    Raises:
        AlreadyRunningError: the instance runs already.
        FreshDataError: something did not start; everything has been stopped again.
    """
    stop = threading.Event()
    with own_home(settings, keep_old=True, tell=tell), Platform(settings, tell=tell) as platform:

        def end(_number: int, _frame: FrameType | None) -> None:
            stop.set()
            platform.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end)
        try:
            platform.start_live(sample, web_port=web_port, extras=extras)
        except FreshDataError:
            if stop.is_set():
                return
            raise
        ready(platform.web_address or "")
        while not stop.wait(FOLLOW_SECONDS):
            try:
                platform.follow_sources()
            except FreshDataError as error:
                tell(str(error))


def main() -> None:
    """Run detached: ``python -m freshdata.services.supervise SPEED HISTORY_DAYS WEB_PORT [EXTRA...]``."""
    speed, history_days, web_port, *extras = sys.argv[1:]
    settings = load_settings()
    failure = settings.run_dir / "failure.json"
    failure.unlink(missing_ok=True)
    try:
        run_live(
            settings,
            LiveSample(float(speed), int(history_days)),
            web_port=int(web_port),
            extras=[Extra(name) for name in extras],
            tell=lambda text: print(text, flush=True),  # noqa: T201 (its log)
            ready=lambda address: print(f"ready: {address}", flush=True),  # noqa: T201
        )
    except FreshDataError as error:
        write_json(failure, {"message": error.message, "remedy": error.remedy})
        sys.exit(1)


if __name__ == "__main__":
    main()
