"""``python -m serving_api.gateway``: run the gateway on loopback until SIGTERM."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from freshdata.settings import Settings

HOST = "127.0.0.1"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
STOP_SECONDS = 12  # for the requests that are being answered


def main() -> int:
    """Run the gateway; returns the exit code."""
    # Before the imports, which take seconds.
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    from freshdata.errors import FreshDataError
    from freshdata.settings import load_settings

    try:
        return _serve(load_settings())
    except FreshDataError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _serve(settings: "Settings") -> int:
    import uvicorn

    from freshdata.contracts import load_contracts
    from freshdata.services.metrics_target import write_target
    from serving_api.gateway.app import Gateway
    from serving_api.gateway.kafka import EventWriter

    contracts = load_contracts(settings.contracts_dir)
    writer = EventWriter(settings, [contract.rules.topic for contract in contracts.values() if contract.stream])
    gateway = Gateway(settings, contracts, writer)
    config = uvicorn.Config(
        gateway.app(),
        http="httptools",
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whose address a client has is of no use here, and a header could say anything.
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = uvicorn.Server(config)

    # Python's collector counts new objects: events made it walk over all imported modules again and again, for three
    # quarters of the time of a large request.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in STOP_SIGNALS:  # It has handlers of its own while it serves; afterwards it raises anew what they got.
        signal.signal(number, stop)

    async def run() -> None:
        async def end_if_broken() -> None:
            await writer.broken.wait()
            stop()

        watch = asyncio.create_task(end_if_broken())
        await server.serve(sockets=[listener])
        watch.cancel()

    with _bound(settings.gateway_port) as listener:
        target = write_target(settings, "gateway", settings.gateway_port, job="freshdata-gateway")
        try:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(run())
        finally:
            target.unlink(missing_ok=True)
    return 1 if writer.broken.is_set() else 0


def _bound(port: int) -> socket.socket:
    from freshdata.errors import ServiceError

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise ServiceError(
            "gateway",
            f"Port {port} cannot be used: {error.strerror}.",
            remedy="Set FRESHDATA_GATEWAY_PORT to another one.",
        ) from error
    return listener


if __name__ == "__main__":
    sys.exit(main())
