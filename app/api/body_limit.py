"""What surrounds every request: an id, a limit on the body, and a last resort for errors.

Plain ASGI, because a response class or a dependency would see a body too late to refuse it.
"""

import re
import uuid

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.body_bytes import CountedReceive
from app.errors import BodyTooLargeError
from app.problems import internal_error, response_of

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_log = structlog.get_logger("paellera.http")


class RequestContextMiddleware:
    """Gives each request an id: the caller's X-Request-Id if it is a plain one.

    An exception nobody else handled is answered with a problem document instead of a dropped connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except ClientDisconnect:
                _log.info("client_gone")
            except Exception:
                _log.exception("unhandled_error")
                if not answered:
                    await internal_error(request_id)(scope, receive, send_with_id)


class BodyLimitMiddleware:
    """Refuses a body above `max_bytes`: by its Content-Length, or while it arrives."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        error = BodyTooLargeError(f"the body has more than the {self.max_bytes:,} bytes that are accepted")
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self.max_bytes:
            await response_of(error, scope["state"]["request_id"])(scope, receive, send)
            return
        counted = CountedReceive(receive)

        async def receive_limited() -> Message:
            message = await counted()
            if counted.bytes > self.max_bytes:
                raise error  # travels up through whoever is reading, to the handler of our errors
            return message

        await self.app(scope, receive_limited, send)


def _request_id(scope: Scope) -> str:
    given = dict(scope["headers"]).get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
