import http.server
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from starlette.testclient import TestClient

from app.errors import MissingPackageError
from app.operations.tracing import configured_provider
from app.server import create_app
from app.settings import Settings

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk (paellera[otel]) is not installed")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.operations.trace_export import provider_of

PHOTO = encode(plain(), "PNG")
STAGES = ["decode", "queue", "encode", "retrieve", "generate"]


@contextmanager
def traced_client(exporter: InMemorySpanExporter) -> Iterator[TestClient]:
    app = create_app(
        EchoCaptioner,
        Settings(),
        wait_for_model=True,
        tracer_provider=provider_of(SimpleSpanProcessor(exporter)),
    )
    with TestClient(app) as client:
        yield client


def named(spans: tuple[ReadableSpan, ...], name: str) -> ReadableSpan:
    (found,) = (span for span in spans if span.name == name)
    return found


def test_a_request_and_its_stages() -> None:
    exporter = InMemorySpanExporter()
    with traced_client(exporter) as client:
        assert client.post("/v1/captions", files={"image": PHOTO}).status_code == 200
        spans = exporter.get_finished_spans()
    request = named(spans, "POST /v1/captions")
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    stages = [span for span in spans if span is not request]
    assert [span.name for span in stages] == STAGES
    assert all(span.parent == request.context for span in stages)
    lasted = {span.name: (span.end_time or 0) - (span.start_time or 0) for span in stages}
    assert [lasted[stage] for stage in STAGES[2:]] == [1_000_000, 2_000_000, 3_000_000]  # the echo's
    for before, after in itertools.pairwise(stages):
        assert before.end_time == after.start_time
    assert request.resource.attributes["service.name"] == "paellera"


def test_the_callers_trace_goes_on() -> None:
    exporter = InMemorySpanExporter()
    with traced_client(exporter) as client:
        trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        client.get("/v1/languages", headers={"traceparent": f"00-{trace}-{parent}-01"})
        client.get("/v1/languages", headers={"traceparent": "00-nonsense"})
        first, second = exporter.get_finished_spans()
    assert first.context is not None
    assert first.parent is not None
    assert f"{first.context.trace_id:032x}" == trace
    assert f"{first.parent.span_id:016x}" == parent
    assert second.parent is None


def test_attributes_hold_no_query_key_name_or_caption() -> None:
    exporter = InMemorySpanExporter()
    with traced_client(exporter) as client:
        client.post(
            "/v1/captions?language=es&key=hunter2",
            content=PHOTO,
            headers={"content-type": "image/png", "authorization": "Bearer hunter2"},
        )
        client.post("/v1/captions", files={"image": ("hunter2.png", PHOTO)}, data={"language": "es"})
        spans = exporter.get_finished_spans()
    written = " ".join(span.to_json() for span in spans)
    assert "POST /v1/captions" in written
    assert "hunter2" not in written
    assert "imagen" not in written


def test_probes_and_refused_requests() -> None:
    exporter = InMemorySpanExporter()
    with traced_client(exporter) as client:
        for path in ("/livez", "/readyz", "/metrics"):
            client.get(path)
        assert exporter.get_finished_spans() == ()
        client.post("/v1/captions", files={"image": b"text"})
        (span,) = exporter.get_finished_spans()  # it never came to its stages
    assert span.attributes is not None
    assert span.attributes["http.response.status_code"] == 422


def test_nothing_is_traced_unless_an_endpoint_is_named() -> None:
    assert configured_provider({}) is None
    assert configured_provider({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}) is None
    off = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}
    assert configured_provider(off) is None


def test_an_endpoint_without_the_exporter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "app.operations.trace_export", None)
    with pytest.raises(MissingPackageError, match=r"^OTEL_EXPORTER_OTLP_ENDPOINT .*paellera\[otel\]"):
        configured_provider({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


def test_spans_arrive_at_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.http", reason="paellera[otel]'s exporter is not installed"
    )
    received: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        with TestClient(create_app(EchoCaptioner, Settings(), wait_for_model=True)) as client:
            assert client.post("/v1/captions", files={"image": PHOTO}).status_code == 200
        server.shutdown()  # the client's end has sent what was waiting
    assert [path for path, _ in received] == ["/v1/traces"]
    for name in (b"POST /v1/captions", *(stage.encode() for stage in STAGES), b"paellera"):
        assert name in received[0][1]
