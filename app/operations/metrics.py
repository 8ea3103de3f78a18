"""What the service counts and measures, in a registry of its own, written as Prometheus reads it.

One `Metrics` belongs to one application. Whoever knows a number tells it here by a plain method; nothing here
knows of queues, models or HTTP. Every label has few values: route templates, status and error codes, stages.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.decoding import DecodeStatistics
from app.operations.process_memory import resident_bytes

STAGES = ("queue", "decode", "encode", "retrieve", "generate")
SWAP_OUTCOMES = ("served", "refused")
CONTENT_TYPE = CONTENT_TYPE_LATEST
NO_ROUTE = "(none)"  # an address at which there is nothing
CLIENT_GONE = "client_gone"  # in place of a status: nobody was left to answer

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class _DecodeCollector(Collector):
    """The processes that decode, which `process_…` does not include."""

    def __init__(self) -> None:
        self.statistics: Callable[[], DecodeStatistics] = DecodeStatistics

    def collect(self) -> Iterator[Metric]:
        now = self.statistics()
        yield GaugeMetricFamily(
            "paellera_decode_processes", "Processes that decode images, running.", len(now.processes)
        )
        yield GaugeMetricFamily(
            "paellera_decode_resident_memory_bytes",
            "Their resident memory.",
            resident_bytes(now.processes),
        )
        yield CounterMetricFamily(
            "paellera_decode_process_starts", "How often one of them was started.", now.starts
        )
        failures = CounterMetricFamily(
            "paellera_decode_process_failures", "How often one of them was lost.", labels=("reason",)
        )
        failures.add_metric(("timeout",), now.timeouts)
        failures.add_metric(("crash",), now.crashes)
        yield failures


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # resident memory, CPU seconds, open files
        self._requests = Counter(
            "paellera_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self._request_seconds = Histogram(
            "paellera_request_seconds",
            "From the request's first byte to the answer's last.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._rejected = Counter(
            "paellera_rejected", "Requests answered with an error, by its code.", ("code",), registry=registry
        )
        self._connections = Gauge("paellera_connections", "Connections of clients.", registry=registry)
        self._under_way = Gauge(
            "paellera_requests_under_way", "Requests not answered yet, probes not counted.", registry=registry
        )
        self._cut_connections = Counter(
            "paellera_connections_cut",
            "Connections that the service has ended, by reason.",
            ("reason",),
            registry=registry,
        )
        self._batch_images = Histogram(
            "paellera_batch_images",
            "Images that went through the model together.",
            buckets=_IMAGES,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "paellera_stage_seconds",
            "Time of a caption request in each stage.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._captions = Counter("paellera_captions", "Captions written.", registry=registry)
        self._tokens = Counter(
            "paellera_caption_tokens", "Tokens of the captions written.", registry=registry
        )
        self._queue_depth = Gauge(
            "paellera_queue_depth", "Requests waiting for the model.", registry=registry
        )
        self._oldest_wait = Gauge(
            "paellera_queue_oldest_seconds", "How long the oldest of them has waited.", registry=registry
        )
        self._model_loaded = Gauge(
            "paellera_model_loaded", "1 while the model is in memory, else 0.", registry=registry
        )
        self._model = Info("paellera_model", "The bundle and the datastore served.", registry=registry)
        self._swaps = Counter(
            "paellera_datastore_swaps",
            "New versions of the datastore, by whether they were taken up.",
            ("outcome",),
            registry=registry,
        )
        self._lost_lines = Counter(
            "paellera_log_lines_lost", "Lines of the log that could not be written.", registry=registry
        )
        self._decoding = _DecodeCollector()
        registry.register(self._decoding)
        for stage in STAGES:  # there from the start, so that a rate over them is never "no data"
            self._stage_seconds.labels(stage)
        for outcome in SWAP_OUTCOMES:
            self._swaps.labels(outcome)

    def observe_request(self, route: str | None, status: int | None, seconds: float) -> None:
        """`route` is a template such as /v1/models/{id}, never the path; None where none matched."""
        name = route or NO_ROUTE
        self._requests.labels(name, CLIENT_GONE if status is None else str(status)).inc()
        self._request_seconds.labels(name).observe(seconds)

    def count_rejected(self, code: str) -> None:
        """`code` is that of a problem document."""
        self._rejected.labels(code).inc()

    def count_cut_connection(self, reason: str) -> None:
        """`reason`: head, body, answer (each too slow), malformed, displaced or refused."""
        self._cut_connections.labels(reason).inc()

    def count_connection(self, change: int) -> None:
        """1: a client has connected; -1: one is gone."""
        self._connections.inc(change)

    def watch_requests(self, under_way: Callable[[], float]) -> None:
        self._under_way.set_function(under_way)

    def observe_batch(self, size: int) -> None:
        """`size` images went through the model in one call."""
        self._batch_images.observe(size)

    def observe_stages(self, timings_ms: Mapping[str, float]) -> None:
        """Milliseconds of one request per stage; stages that did not run may be left out."""
        for stage in STAGES:
            if stage in timings_ms:
                self._stage_seconds.labels(stage).observe(timings_ms[stage] / 1000)

    def count_captions(self, captions: int, tokens: int) -> None:
        self._captions.inc(captions)
        self._tokens.inc(tokens)

    def count_swap(self, outcome: str) -> None:
        """`outcome` is one of SWAP_OUTCOMES."""
        self._swaps.labels(outcome).inc()

    def count_lost_line(self) -> None:
        self._lost_lines.inc()

    def watch_queue(self, depth: Callable[[], float], oldest_age: Callable[[], float]) -> None:
        """`depth` gives how many requests wait, `oldest_age` since how many seconds the oldest does, or 0."""
        self._queue_depth.set_function(depth)
        self._oldest_wait.set_function(oldest_age)

    def watch_model(self, loaded: Callable[[], bool]) -> None:
        self._model_loaded.set_function(lambda: float(loaded()))

    def watch_decoding(self, statistics: Callable[[], DecodeStatistics]) -> None:
        self._decoding.statistics = statistics

    def describe_model(self, bundle: str, revision: str, datastore: str) -> None:
        """Call it again when one of them changes: the old values go away."""
        self._model.info({"bundle": bundle, "revision": revision, "datastore": datastore})

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
