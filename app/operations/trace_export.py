"""Spans to a collector by OTLP over HTTP. Needs the extra `otel`; tracing.py says so where it is missing.

Where to, with which headers, how sampled and under which name is set by OpenTelemetry's variables (OTEL_*).
"""

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from app.version import paellera_version

QUERY = "url.query"


def exporting_provider() -> TracerProvider:
    return provider_of(BatchSpanProcessor(OTLPSpanExporter()))


def provider_of(processor: SpanProcessor) -> TracerProvider:
    """A provider whose spans go to `processor` without the query of an address."""
    resource = Resource.create({"service.version": paellera_version()})  # and what the environment says
    if str(resource.attributes.get("service.name")).startswith("unknown_service"):  # it says nothing of it
        resource = resource.merge(Resource({"service.name": "paellera"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # the application's lifespan does it
    provider.add_span_processor(_WithoutQuery())
    provider.add_span_processor(processor)
    return provider


class _WithoutQuery(SpanProcessor):
    """A query may hold whatever the caller wrote. An attribute cannot be removed, so it is replaced."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.attributes is not None and QUERY in span.attributes:
            span.set_attribute(QUERY, "REDACTED")

    def on_end(self, span: ReadableSpan) -> None: ...
