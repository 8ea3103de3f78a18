"""Spans for OpenTelemetry: one for every request, which FastAPI makes, and one for each stage of captioning.

Only the API is needed here; spans are made if there is a provider and cost nothing otherwise. How they leave
the process is trace_export.py's knowledge. No image, caption, key or query becomes an attribute.
"""

import os
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.trace import TracerProvider

from app.errors import MissingPackageError
from app.operations.access_log import QUIET_PATHS
from app.request_path import request_path

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_CLOSE_SECONDS = 3
# In the order in which a request meets them.
_STAGES = ("decode", "queue", "encode", "retrieve", "generate")


class Tracing:
    """The spans of one application; without a provider it does nothing."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("paellera")

    def telemetry(self) -> TelemetryConfig:
        """For FastAPI: spans of requests to this provider, an incoming `traceparent` honoured, nothing else.

        Its logs would hold messages of errors and its metrics are ours (metrics.py).
        """
        return {
            "tracing": self._provider is not None,
            "tracer_provider": self._provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": _is_quiet,
        }

    def record_stages(self, timings_ms: Mapping[str, float]) -> None:
        """Spans of the stages of the present request, which has just been captioned.

        Durations are those measured, laid end to end up to now: what lies between two stages is not shown.
        """
        if self._tracer is None or not trace.get_current_span().is_recording():
            return
        lasted = [(stage, round(1e6 * timings_ms[stage])) for stage in _STAGES if stage in timings_ms]
        begins = time.time_ns() - sum(nanoseconds for _, nanoseconds in lasted)
        for stage, nanoseconds in lasted:
            span = self._tracer.start_span(stage, start_time=begins)
            begins += nanoseconds
            span.end(begins)

    def close(self) -> None:
        """Sends what has not been sent yet, for some seconds at most; blocks, so call it in a thread."""
        shutdown = getattr(self._provider, "shutdown", None)  # the API alone has none
        if shutdown is not None:
            # A collector that cannot be reached is tried again for half a minute: not worth a late end.
            sending = threading.Thread(target=shutdown, daemon=True)
            sending.start()
            sending.join(_CLOSE_SECONDS)


def configured_provider(environment: Mapping[str, str] = os.environ) -> TracerProvider | None:
    """A provider that exports to the endpoint that OpenTelemetry's own variables name; None where none does.

    Raises MissingPackageError if an endpoint is named and the exporter is not installed.
    """
    named = [name for name in ENDPOINTS if environment.get(name)]
    if not named or environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from app.operations.trace_export import exporting_provider
    except ImportError as error:
        raise MissingPackageError(
            f"{named[0]} is set, but {error.name} is not installed: "
            "pip install 'paellera[otel]', or unset the variable"
        ) from None
    return exporting_provider()


def _is_quiet(scope: MutableMapping[str, Any]) -> bool:
    return request_path(scope) in QUIET_PATHS
