"""The gateway's HTTP interface."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from freshdata.api_keys import ApiKey, KeyRing, keys_file
from freshdata.contracts import Contract
from freshdata.errors import ConfigError
from freshdata.settings import Settings
from serving_api.gateway.answers import outcome, problem, status_of
from serving_api.gateway.body import MAX_BODY, read_body, split_events, too_large
from serving_api.gateway.intake import Intake
from serving_api.gateway.kafka import EventWriter
from serving_api.gateway.limits import Admission, Limits
from serving_api.gateway.metrics import Metrics
from serving_api.gateway.openapi import docs_page, openapi
from serving_api.gateway.refusals import RefusedError, unavailable
from serving_api.gateway.store import Store, digest
from serving_api.gateway.streams import Streams
from serving_api.gateway.webhooks import to_event, verify, webhook_secrets

ANSWERS_KEPT = timedelta(hours=24)
# GitHub signs no time: a recorded delivery would be taken again for ever.
DELIVERIES_KEPT = timedelta(days=30)
SAVE_SECONDS = 5.0
FORGET_SECONDS = 600.0
LONGEST_KEY = 255

logger = logging.getLogger(__name__)


class Gateway:
    """Takes events by HTTP and writes them to Kafka.

    Attributes:
        streams: The streams.
        writer: The way to Kafka.
        metrics: What it has done.

    Raises:
        ServiceError: its store cannot be used.
    """

    def __init__(self, settings: Settings, contracts: Mapping[str, Contract], writer: EventWriter) -> None:
        self.streams = Streams(settings, contracts, writer)
        self.writer = writer
        self.metrics = Metrics()
        self._keys = KeyRing(keys_file(settings))
        self._secrets = webhook_secrets(settings)
        self._limits = Limits(settings, limited=self.metrics.limited)
        self._store = Store(settings.gateway_dir / "memory.db")
        self._limits.restore(self._store.usage())
        self._under_way: set[bytes] = set()

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route("/v1/streams/{stream}/events", self._answered(self.post_events), methods=["POST"]),
                Route("/v1/webhooks/{stream}/{sender}", self._answered(self.post_webhook), methods=["POST"]),
                Route("/openapi.json", self.get_openapi),
                Route("/docs", self.get_docs),
                Route("/healthz", self.get_health),
                Route("/readyz", self.get_ready),
                Route("/metrics", self.get_metrics),
            ],
            exception_handlers={HTTPException: _http_problem, Exception: _unexpected},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self.writer.probe()
        tasks = [asyncio.create_task(work()) for work in (self.writer.watch, self.streams.follow, self._keep)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.writer.close()
            self._store.save_usage(self._limits.usage)
            self._store.close()

    async def _keep(self) -> None:
        """Save what tenants have used, and forget old answers, until cancelled."""
        forgotten = 0.0
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            try:
                self._store.save_usage(self._limits.usage)
                if time.monotonic() - forgotten > FORGET_SECONDS:
                    self._store.forget(time.time())
                    forgotten = time.monotonic()
            except sqlite3.Error as error:
                logger.warning("memory.db cannot be written: %s", error)

    async def post_events(self, request: Request) -> Response:
        """Take events with an API key."""
        key = self._authenticated(request)
        intake = self.streams.intake(request.path_params["stream"])
        name = intake.contract.name
        if not key.may_write(name):
            raise RefusedError(403, f"The key may not write to {name}.", remedy="Use a key that may.")
        idempotency_key = request.headers.get("idempotency-key")
        if idempotency_key is not None and not (
            0 < len(idempotency_key) <= LONGEST_KEY and idempotency_key.isprintable()
        ):
            raise RefusedError(
                400, f"The Idempotency-Key is not 1 to {LONGEST_KEY} printable characters.", remedy="Use a UUID."
            )
        with self._limits.admit(key.tenant) as admission:
            media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            body = await self._body(request, admission, request.headers.get("content-encoding", "").strip().lower())
            events = split_events(body, media_type)
            if idempotency_key is None:
                status, answer = await self._write(intake, key.tenant, events, admission)
                return _outcome(status, answer)
            scope = digest("key", key.tenant, name, idempotency_key)
            return await self._once(
                [scope], body, ANSWERS_KEPT, lambda: self._write(intake, key.tenant, events, admission)
            )

    async def post_webhook(self, request: Request) -> Response:
        """Take a delivery that a known sender has signed."""
        intake = self.streams.intake(request.path_params["stream"])
        contract, sender = intake.contract, request.path_params["sender"]
        webhook = contract.rules.webhooks.get(sender)
        if webhook is None:
            raise RefusedError(404, f"{contract.name} takes no webhooks of {sender!r}.", remedy="See /docs.")
        # Whose it is is known when all of it has been read: until then anybody may have sent it, and uses up no limit.
        with self._limits.hold(f"{contract.name}/{sender}") as unknown:
            body = await self._body(request, unknown, "")
        tenants = self._secrets().get(contract.name, {}).get(sender, {})
        tenant, signatures = verify(webhook, request.headers, body, tenants)
        event = to_event(contract, sender, request.headers, body, tenant=tenant, received=datetime.now(UTC))
        with self._limits.admit(tenant) as admission:
            admission.received(len(body))
            # By each: whoever has recorded it could leave one out.
            scopes = [digest("webhook", contract.name, sender, signature) for signature in signatures]
            return await self._once(
                scopes, body, DELIVERIES_KEPT, lambda: self._write(intake, tenant, [event], admission)
            )

    async def get_openapi(self, _request: Request) -> Response:
        """The description of this interface."""
        return Response(openapi(self.streams.contracts), media_type="application/json")

    async def get_docs(self, _request: Request) -> Response:
        """The same as a page."""
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return Response(docs_page(self.streams.contracts), media_type="text/html", headers=policy)

    async def get_health(self, _request: Request) -> Response:
        """Whether the event loop turns."""
        return PlainTextResponse("ok\n")

    async def get_ready(self, _request: Request) -> Response:
        """Whether events would be taken now."""
        ready = self.writer.available
        return PlainTextResponse("ok\n" if ready else "Kafka does not answer\n", 200 if ready else 503)

    async def get_metrics(self, _request: Request) -> Response:
        """Metrics for Prometheus."""
        self.metrics.kafka.set(self.writer.available)
        self.metrics.bytes_in_flight.set(self._limits.size)
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    def _authenticated(self, request: Request) -> ApiKey:
        style, _, token = request.headers.get("authorization", "").partition(" ")
        key = self._keys.find(token.strip())
        if key is None or style.lower() != "bearer":
            raise RefusedError(
                401,
                "There is no valid API key.",
                remedy="Send Authorization: Bearer KEY; `freshdata key create` makes one.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return key

    async def _body(self, request: Request, admission: Admission, encoding: str) -> bytes:
        if int(request.headers.get("content-length", 0)) > MAX_BODY:  # The server takes nothing but numbers for it.
            raise too_large(f"The body is larger than {MAX_BODY:,} bytes.")
        return await read_body(request.stream(), encoding, admission.received)

    async def _write(self, intake: Intake, tenant: str, events: list[bytes], admission: Admission) -> tuple[int, bytes]:
        if not self.writer.available:
            raise unavailable("Kafka does not answer.")
        admission.spend(len(events))
        submission = await intake.submit(tenant, events)
        admission.give_back(len(submission.errors))
        self.metrics.events(intake.contract.name, tenant, accepted=submission.accepted, rejected=len(submission.errors))
        return status_of(submission), outcome(submission)

    async def _once(
        self, scopes: Sequence[bytes], body: bytes, kept: timedelta, write: Callable[[], Awaitable[tuple[int, bytes]]]
    ) -> Response:
        """Write what is sent under any of some scopes once: sent again, it gets the answer that it got before."""
        request = digest(body)
        now = time.time()
        if known := next(filter(None, (self._store.answer(scope, now) for scope in scopes)), None):
            before, status, answer = known
            if before != request:
                raise RefusedError(
                    422, "The Idempotency-Key was used for another request.", remedy="Use a new key for new events."
                )
            return _outcome(status, answer, {"Idempotent-Replayed": "true"})
        if not self._under_way.isdisjoint(scopes):
            raise RefusedError(409, "The same request is being answered.", remedy="Wait for its answer.")
        self._under_way.update(scopes)
        try:
            status, answer = await write()
            if status < 300:  # Of what was not written there is nothing to repeat; it may be sent again, corrected.
                self._store.remember(scopes, request, status, answer, time.time() + kept.total_seconds())
        finally:
            self._under_way.difference_update(scopes)
        return _outcome(status, answer)

    def _answered(self, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        """A handler whose refusals are answers, counted like others."""

        async def answer(request: Request) -> Response:
            began = time.perf_counter()
            try:
                response = await handle(request)
            except RefusedError as error:
                response = problem(error.status, str(error), error.headers)
            except (ConfigError, sqlite3.Error):
                logger.exception("a file of the gateway cannot be used")
                refused = unavailable("The gateway cannot use its own files; its log says which.")
                response = problem(refused.status, str(refused), refused.headers)
            except ClientDisconnect:
                response = problem(400, "The client has gone.")
            name = request.path_params["stream"]
            known = name if name in self.streams.contracts else ""
            self.metrics.answered(known, response.status_code, time.perf_counter() - began)
            return response

        return answer


def _outcome(status: int, answer: bytes, headers: dict[str, str] | None = None) -> Response:
    again = {"Retry-After": "2"} if status == 503 else {}
    return Response(answer, status, {**(headers or {}), **again}, media_type="application/json")


async def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for no other
    return problem(error.status_code, f"{error.detail}. See /docs.", error.headers)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return problem(500, "The gateway failed; its log says where. Send the request again.")
