"""One line in the log and one count in the metrics for every request, once it is answered.

A line names the route's template and not the path, and never the query: either may hold what is nobody's
business. What others know of the request they leave in its state: `request_id`, `problem_code`, `caller`.
"""

import time
from collections.abc import Mapping
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.body_bytes import CountedReceive
from app.operations.metrics import Metrics
from app.request_path import request_path

QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds, by machines
_log = structlog.get_logger("paellera.http")


class AccessLogMiddleware:
    """The outermost of all: it sees what the caller sees."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        started = time.perf_counter()
        status: int | None = None
        counted = CountedReceive(receive)
        bytes_out = 0

        async def send_counted(message: Message) -> None:
            nonlocal status, bytes_out
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            bytes_out += len(message.get("body", b""))

        try:
            await self.app(scope, counted, send_counted)
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope)
            self.metrics.observe_request(route, status, seconds)
            if "problem_code" in state:
                self.metrics.count_rejected(state["problem_code"])
            log = _log.debug if request_path(scope) in QUIET_PATHS else _log.info
            log(
                "request",
                method=_method(scope),
                route=route,
                status=status,
                ms=round(1000 * seconds, 1),
                bytes_in=counted.bytes,
                bytes_out=bytes_out,
                **_known(state),
            )


def _known(state: Mapping[str, Any]) -> dict[str, str]:
    known = {name: state[name] for name in ("request_id", "problem_code") if name in state}
    caller = state.get("caller")  # app/access/gate.py
    return known if caller is None or caller.key is None else {**known, "key": caller.key}


def _route(scope: Scope) -> str | None:
    """The template of the route that was chosen; the router leaves it in the scope."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else None


def _method(scope: Scope) -> str:
    return str(scope["method"])[:20]  # anything that is a token may come
