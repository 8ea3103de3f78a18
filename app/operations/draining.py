"""Stopping without losing a request: who may still come in, and who has not been answered yet.

First (`draining`) the service only says that it is going: /readyz answers 503, so that a load balancer sends
no more, while requests go on being accepted. Then (`closing`) new ones are refused and the others
finish. When the phases change is app/operations/serving.py's business.
"""

import asyncio
from typing import Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import DrainingError, ShuttingDownError
from app.operations.access_log import QUIET_PATHS
from app.problems import response_of
from app.request_path import request_path

_RETRY_AFTER = 5  # seconds; by then a load balancer knows, or a restarted service listens


class Drain:
    """The phase of one application, and how many requests it is answering (probes not counted)."""

    def __init__(self) -> None:
        self.phase: Literal["serving", "draining", "closing"] = "serving"
        self.under_way = 0

    def check_ready(self) -> None:
        """Raises DrainingError once the service is going to stop."""
        if self.phase != "serving":
            raise DrainingError("the service is about to stop", _RETRY_AFTER)

    def check_open(self) -> None:
        """Raises ShuttingDownError when no new request is accepted."""
        if self.phase == "closing":
            raise ShuttingDownError("the service is stopping: send it again", _RETRY_AFTER)


class DrainMiddleware:
    """Counts requests, refuses new ones when closing, and asks callers to leave their connection."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self.app = app
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or request_path(scope) in QUIET_PATHS:
            await self.app(scope, receive, send)
            return

        answered = False

        async def send_last(message: Message) -> None:
            nonlocal answered
            answered = True
            # Otherwise a kept-alive connection would go on bringing requests to a service that is leaving.
            if message["type"] == "http.response.start" and self.drain.phase != "serving":
                others = [pair for pair in message["headers"] if pair[0].lower() != b"connection"]
                message["headers"] = [*others, (b"connection", b"close")]
            await send(message)

        try:
            self.drain.check_open()
            self.drain.under_way += 1
            try:
                await self.app(scope, receive, send_last)
            except asyncio.CancelledError:
                if not answered:
                    self.drain.check_open()  # cut off by the server's end: say so instead of hanging up
                raise
            finally:
                self.drain.under_way -= 1
        except ShuttingDownError as error:
            await response_of(error, scope["state"]["request_id"])(scope, receive, send_last)
