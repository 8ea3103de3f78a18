"""A bound on the bodies of all requests under way together.

Each of them may be small enough, and many that arrive at once would still not fit into memory.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodiesFullError

_RETRY_AFTER = 5  # seconds


class HeldBodiesMiddleware:
    """Refuses what would exceed `max_bytes`, by BodiesFullError through whoever is reading.

    A body counts until its request is answered. One alone may have more: app/api/body_limit.py bounds it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self.held += size
            if self.held > max(self.max_bytes, received):
                raise BodiesFullError("too many large requests are under way; try again later", _RETRY_AFTER)
            return message

        try:
            await self.app(scope, receive_counted, send)
        finally:
            self.held -= received
