"""The gateway's metrics for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What the gateway has answered and written.

    Attributes:
        registry: The metrics.
        bytes_in_flight: Bytes of bodies in memory.
        kafka: 1 when Kafka answers.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("stream", "status")
        self._requests = Counter(
            "freshdata_gateway_requests", "Requests answered.", labels, registry=self.registry
        )  # fmt: skip
        self._events = Counter(
            "freshdata_gateway_events", "Events, by outcome.", ("stream", "tenant", "outcome"), registry=self.registry
        )
        self._limited = Counter(
            "freshdata_gateway_limited", "Requests refused by a limit.", ("tenant", "limit"), registry=self.registry
        )
        self._seconds = Histogram(
            "freshdata_gateway_request_seconds", "Time to answer.", ("stream",), buckets=SECONDS, registry=self.registry
        )
        self.bytes_in_flight = Gauge(
            "freshdata_gateway_bytes_in_flight", "Bytes of bodies in memory.", registry=self.registry
        )
        self.kafka = Gauge("freshdata_gateway_kafka_up", "1 when Kafka answers.", registry=self.registry)

    def answered(self, stream: str, status: int, seconds: float) -> None:
        """A request was answered; ``stream`` is empty when it named none that there is."""
        self._requests.labels(stream, str(status)).inc()
        self._seconds.labels(stream).observe(seconds)

    def events(self, stream: str, tenant: str, *, accepted: int, rejected: int) -> None:
        """Events were written, or not."""
        self._events.labels(stream, tenant, "accepted").inc(accepted)
        self._events.labels(stream, tenant, "rejected").inc(rejected)

    def limited(self, tenant: str, limit: str) -> None:
        """A tenant has reached a limit."""
        self._limited.labels(tenant, limit).inc()
