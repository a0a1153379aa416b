"""The Iceberg REST protocol over any PyIceberg catalog, served inside this process on a loopback port.

DuckDB reads and writes Iceberg only through a REST catalog; the platform's own is a SQLite file. This face answers
just what DuckDB asks: read namespaces and tables, and commit to existing tables. Tables are created with PyIceberg
(``ensure_table``), never through here. Every snapshot committed through the face carries the properties that
:meth:`CatalogFace.stamp` set for its table, or is refused by it: that is how a merge run by DuckDB gets its cursor into
the same commit as its rows.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlparse

from pydantic import ValidationError
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    NamespaceAlreadyExistsError,
    NamespaceNotEmptyError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import CommitTableRequest, CommitTableResponse, Table
from pyiceberg.table.metadata import TableMetadata

from freshdata.errors import OvertakenError

SEPARATOR = "\x1f"
# Error class to HTTP status and the name the protocol gives it; the first match counts.
ERRORS: tuple[tuple[type[Exception], int, str], ...] = (
    (NoSuchTableError, 404, "NoSuchTableException"),
    (NoSuchNamespaceError, 404, "NoSuchNamespaceException"),
    (TableAlreadyExistsError, 409, "AlreadyExistsException"),
    (NamespaceAlreadyExistsError, 409, "AlreadyExistsException"),
    (NamespaceNotEmptyError, 409, "NamespaceNotEmptyException"),
    (CommitFailedException, 409, "CommitFailedException"),
    (OvertakenError, 409, "CommitFailedException"),
    (CommitStateUnknownException, 500, "CommitStateUnknownException"),
    (ValidationError, 400, "BadRequestException"),
    (ValueError, 400, "BadRequestException"),
    (Exception, 500, "InternalServerError"),
)


@dataclass(frozen=True)
class Answer:
    """A response: HTTP status and JSON body, or no body."""

    status: int
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Request:
    """A request: the path's variable parts in order, its query, and its JSON body."""

    parts: tuple[str, ...]
    query: dict[str, str]
    body: dict[str, Any]

    @property
    def namespace(self) -> tuple[str, ...]:
        """The namespace that the path names."""
        return tuple(self.parts[0].split(SEPARATOR))

    @property
    def table(self) -> tuple[str, ...]:
        """The table that the path names."""
        return (*self.namespace, self.parts[1])


class CatalogFace:
    """Serves a catalog on ``127.0.0.1`` until it is closed; a context manager.

    Attributes:
        catalog: The catalog behind.
        url: The REST endpoint.
    """

    ROUTES: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("GET", "/v1/config", "_config"),
        ("GET", "/v1/namespaces", "_list_namespaces"),
        ("POST", "/v1/namespaces", "_create_namespace"),
        ("GET", "/v1/namespaces/{namespace}", "_load_namespace"),
        ("HEAD", "/v1/namespaces/{namespace}", "_has_namespace"),
        ("DELETE", "/v1/namespaces/{namespace}", "_drop_namespace"),
        ("GET", "/v1/namespaces/{namespace}/tables", "_list_tables"),
        ("GET", "/v1/namespaces/{namespace}/tables/{table}", "_load_table"),
        ("HEAD", "/v1/namespaces/{namespace}/tables/{table}", "_has_table"),
        ("POST", "/v1/namespaces/{namespace}/tables/{table}", "_commit_table"),
        ("DELETE", "/v1/namespaces/{namespace}/tables/{table}", "_drop_table"),
    )

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._stamps: dict[str, Callable[[Table], dict[str, str]]] = {}
        self._lock = threading.Lock()
        self._routes: list[tuple[str, re.Pattern[str], Callable[[Request], Answer]]] = [
            (verb, re.compile(re.sub(r"\{\w+\}", "([^/]+)", path)), getattr(self, name))
            for verb, path, name in self.ROUTES
        ]
        handler = type("Handler", (_Handler,), {"face": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="catalog-face", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def stamp(self, table: str, properties: Callable[[Table], dict[str, str]]) -> Iterator[None]:
        """Within the context, every snapshot committed to a table carries these summary properties.

        Args:
            table: Table identifier, ``namespace.table``.
            properties: Gives the summary properties of a snapshot that follows a table's current one; what it raises
                keeps the snapshot out.
        """
        with self._lock:
            self._stamps[table] = properties
        try:
            yield
        finally:
            with self._lock:
                self._stamps.pop(table, None)

    def stamped(self, table: Table) -> dict[str, str]:
        """The properties that a table's next snapshot must carry; for writers that do not come through the face.

        Args:
            table: The table as it is when the snapshot is committed.
        """
        with self._lock:
            properties = self._stamps.get(".".join(table.name()))
        return properties(table) if properties else {}

    def answer(self, verb: str, target: str, raw: bytes) -> Answer:
        """Answer one request; every failure becomes an Iceberg REST error body."""
        url = urlparse(target)
        try:
            for known, pattern, handler in self._routes:
                if known == verb and (match := pattern.fullmatch(url.path)):
                    query = {name: values[0] for name, values in parse_qs(url.query).items()}
                    parts = tuple(unquote(part) for part in match.groups())
                    return handler(Request(parts, query, json.loads(raw) if raw else {}))
        except Exception as error:  # noqa: BLE001 - the client gets every failure, as the protocol's error body.
            status, name = next((status, name) for kind, status, name in ERRORS if isinstance(error, kind))
            return _error(status, name, str(error))
        # 501 tells the client that it asked for something the face does not offer, such as creating a table or a commit
        # over several tables (which no catalog behind the face could make atomic).
        return _error(501, "UnsupportedOperationException", f"{verb} {url.path} is not offered.")

    def _config(self, _: Request) -> Answer:
        endpoints = [f"{verb} {path.replace('/v1/', '/v1/{prefix}/')}" for verb, path, _name in self.ROUTES[1:]]
        return Answer(200, {"defaults": {}, "overrides": {}, "endpoints": endpoints})

    def _list_namespaces(self, request: Request) -> Answer:
        parent = request.query.get("parent", "")
        found = self.catalog.list_namespaces(tuple(parent.split(SEPARATOR)) if parent else ())
        return Answer(200, {"namespaces": [list(name) for name in found]})

    def _create_namespace(self, request: Request) -> Answer:
        name, properties = request.body["namespace"], request.body.get("properties") or {}
        self.catalog.create_namespace(tuple(name), properties)
        return Answer(200, {"namespace": name, "properties": properties})

    def _load_namespace(self, request: Request) -> Answer:
        properties = self.catalog.load_namespace_properties(request.namespace)
        return Answer(200, {"namespace": list(request.namespace), "properties": properties})

    def _has_namespace(self, request: Request) -> Answer:
        self.catalog.load_namespace_properties(request.namespace)
        return Answer(204)

    def _drop_namespace(self, request: Request) -> Answer:
        self.catalog.drop_namespace(request.namespace)
        return Answer(204)

    def _list_tables(self, request: Request) -> Answer:
        found = self.catalog.list_tables(request.namespace)
        return Answer(200, {"identifiers": [{"namespace": list(name[:-1]), "name": name[-1]} for name in found]})

    def _load_table(self, request: Request) -> Answer:
        table = self.catalog.load_table(request.table)
        # DuckDB writes manifests to a local folder but does not create it.
        if table.metadata.location.startswith("file://"):
            Path(table.metadata.location.removeprefix("file://"), "metadata").mkdir(parents=True, exist_ok=True)
        return Answer(200, _described(table.metadata_location, table.metadata) | {"config": {}})

    def _has_table(self, request: Request) -> Answer:
        return Answer(204 if self.catalog.table_exists(request.table) else 404)

    def _drop_table(self, request: Request) -> Answer:
        self.catalog.drop_table(request.table)
        return Answer(204)

    def _commit_table(self, request: Request) -> Answer:
        # A commit of rows asserts the head that it saw: were the table to move after it is loaded, it would be refused.
        table = self.catalog.load_table(request.table)
        properties = self.stamped(table)
        for update in request.body.get("updates", ()):
            if update.get("action") == "add-snapshot":
                update["snapshot"].setdefault("summary", {}).update(properties)
        commit = CommitTableRequest.model_validate(
            {"identifier": {"namespace": list(request.namespace), "name": request.table[-1]}} | request.body
        )
        response = _commit(self.catalog, table, commit)
        return Answer(200, _described(response.metadata_location, response.metadata))


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, asks the face, writes the answer."""

    face: CatalogFace
    protocol_version = "HTTP/1.1"
    # Without it each call stalls for 40 ms: the kernel waits for a delayed acknowledgement.
    disable_nagle_algorithm = True

    def handle_request(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        answer = self.face.answer(self.command, self.path, self.rfile.read(length) if length else b"")
        body = json.dumps(answer.body).encode() if answer.body is not None else b""
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name.
        """Say nothing: a query asks the face dozens of times."""

    do_GET = do_POST = do_HEAD = do_DELETE = handle_request  # noqa: N815 - the base class's names.


def _commit(catalog: Catalog, table: Table, request: CommitTableRequest) -> CommitTableResponse:
    return catalog.commit_table(table, tuple(request.requirements), tuple(request.updates))


def _described(location: str | None, metadata: TableMetadata) -> dict[str, Any]:
    return {"metadata-location": location, "metadata": json.loads(metadata.model_dump_json())}


def _error(status: int, name: str, message: str) -> Answer:
    return Answer(status, {"error": {"message": message, "type": name, "code": status}})
