"""A REST catalog whose answers can be broken: a real HTTP proxy in front of the in-process one."""

import http.client
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import urlparse

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import TableAlreadyExistsError
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortOrder

from freshdata.lake.rest_catalog import Answer, CatalogFace, Request

COMMIT = re.compile(r"/v1/namespaces/[^/]+/tables/[^/]+")
LATE_SECONDS = 0.3
SLOW_SECONDS = 3.0


class WritableFace(CatalogFace):
    """The project's REST face, which also creates tables, as a full REST catalog does."""

    ROUTES: ClassVar[tuple[tuple[str, str, str], ...]] = (
        *CatalogFace.ROUTES,
        ("POST", "/v1/namespaces/{namespace}/tables", "_create_table"),
    )

    def _create_table(self, request: Request) -> Answer:
        name, body = (*request.namespace, request.body["name"]), request.body
        if self.catalog.table_exists(name):
            raise TableAlreadyExistsError(f"Table {name} exists")
        table = self.catalog.create_table(
            name,
            Schema.model_validate(body["schema"]),
            partition_spec=PartitionSpec.model_validate(body["partition-spec"]),
            sort_order=SortOrder.model_validate(body["write-order"]),
            properties=body["properties"],
        )
        return self._load_table(Request((request.parts[0], table.name()[-1]), {}, {}))


class FaultyCatalog:
    """Serves a catalog over HTTP and breaks the answers it was told to; a context manager.

    Args:
        catalog: The catalog.
        kill: Kills the client of a name.

    Attributes:
        url: The REST endpoint; a client appends its name, as in ``http://…/7``.
        injected: How often each fault happened.
    """

    def __init__(self, catalog: Catalog, kill: Callable[[str], None]) -> None:
        self.kill = kill
        self._stack = ExitStack()
        self.upstream = urlparse(self._stack.enter_context(WritableFace(catalog)).url).netloc
        self.injected: Counter[str] = Counter()
        self._armed: list[str] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, name="catalog-proxy", daemon=True).start()
        self._stack.callback(server.server_close)
        self._stack.callback(server.shutdown)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def arm(self, fault: str, count: int) -> None:
        """Break the next commits, or for ``catalog down`` the next requests of any kind."""
        with self._lock:
            self._armed += [fault] * count

    @property
    def armed(self) -> int:
        """Number of faults that have not happened yet."""
        with self._lock:
            return len(self._armed)

    def fault_of(self, verb: str, path: str) -> str:
        """The fault that this request meets, which is then used up, or nothing."""
        with self._lock:
            commits = verb == "POST" and COMMIT.fullmatch(urlparse(path).path)
            if not self._armed or not (commits or self._armed[0] == "catalog down"):
                return ""
            fault = self._armed.pop(0)
            self.injected[fault] += 1
            return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyCatalog
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle_request(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        client, _, rest = self.path.removeprefix("/").partition("/")
        self.path = f"/{rest}"
        match self.proxy.fault_of(self.command, self.path):
            case "catalog down":
                self._answer(503, b'{"error": {"message": "down", "type": "ServiceUnavailable", "code": 503}}')
            case "catalog answer lost":
                self._forward(raw)
                self._hang_up()
            case "kill before answer":
                self._forward(raw)
                self.proxy.kill(client)
                self.close_connection = True
            case "catalog error after success":
                self._forward(raw)
                self._answer(500, b'{"error": {"message": "broken", "type": "InternalServerError", "code": 500}}')
            case "catalog commits late":
                # The client has been cut off, and perhaps has tried again, when its request takes effect.
                self._hang_up()
                threading.Event().wait(LATE_SECONDS)
                self._forward(raw)
            case "catalog slow":
                threading.Event().wait(SLOW_SECONDS)
                self._answer(*self._forward(raw))
            case _:
                self._answer(*self._forward(raw))

    def _forward(self, raw: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, raw, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name.
        """Say nothing."""

    do_GET = do_POST = do_HEAD = do_DELETE = handle_request  # noqa: N815 - the base class's names.
