"""``python -m stream_workers STREAM``: run one worker until SIGTERM."""

import faulthandler
import logging
import os
import signal
import sys

# A supervisor waits for 30 s before it kills. To be killed is no harm: what was not committed is read again.
STOP_SECONDS = 25.0
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def main(arguments: list[str]) -> int:
    """Run a worker.

    Args:
        arguments: The stream's name.

    Returns:
        The exit code: 0 after a stop, 2 for a mistake in the call, 1 for a failure.
    """
    if len(arguments) != 1:
        sys.stderr.write("Usage: python -m stream_workers STREAM\n")
        return 2
    # Before the imports, which take seconds: a container's first process does not end by a signal that it does not
    # handle, nor does the child of a process that ignores it.
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    for noisy in ("pyiceberg", "quixstreams"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It warns of each old metadata file that the maintenance has removed first.
    logging.getLogger("pyiceberg.catalog").setLevel(logging.ERROR)
    return _serve(arguments[0])


def _serve(stream: str) -> int:
    from freshdata.errors import FreshDataError
    from freshdata.settings import load_settings
    from stream_workers.policy import LAKE_DOWN
    from stream_workers.worker import Worker

    try:
        worker = Worker(load_settings(), stream)

        def stop(*_: object) -> None:
            worker.stop()
            # From here to the process's end. It does not need the interpreter's lock, and says where each thread hangs.
            faulthandler.dump_traceback_later(STOP_SECONDS, exit=True)

        for number in STOP_SIGNALS:
            signal.signal(number, stop)
        worker.run()
    except FreshDataError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except LAKE_DOWN as error:
        # Before the loop runs: in it, the worker waits for the lake.
        sys.stderr.write(f"The lake does not answer: {error}. Start its catalog and its store, then this worker.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
