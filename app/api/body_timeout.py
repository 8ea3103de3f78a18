"""Bodies that come too slowly: whoever sends a byte now and then does not hold a request open for ever."""

import asyncio
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import RequestTimeoutError
from app.settings import Settings


@dataclass(frozen=True)
class BodyPace:
    """How slowly a body may come."""

    seconds: float  # altogether
    bytes_per_second: float  # in the mean, once `grace_seconds` are over
    grace_seconds: float

    @classmethod
    def from_settings(cls, settings: Settings) -> "BodyPace":
        return cls(settings.body_seconds, settings.body_bytes_per_second, settings.header_seconds)

    def allowed(self, received: int) -> float:
        """Seconds for a body of which so many bytes have come."""
        return min(self.seconds, self.grace_seconds + received / self.bytes_per_second)


class BodyTimeoutMiddleware:
    """Raises RequestTimeoutError through whoever is reading. Counted is only the time spent waiting for the
    client: what the service does between two reads is not the client's fault.
    """

    def __init__(self, app: ASGIApp, pace: BodyPace) -> None:
        self.app = app
        self.pace = pace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received, waited, complete = 0, 0.0, False

        async def receive_timed() -> Message:
            nonlocal received, waited, complete
            if complete:  # who waits for the client's leaving may do so as long as the answer takes
                return await receive()
            began = time.monotonic()
            try:
                async with asyncio.timeout(self.pace.allowed(received) - waited):
                    message = await receive()
            except TimeoutError:
                raise RequestTimeoutError(
                    f"the body comes too slowly: {received:,} bytes of it within {waited_for(began):.1f} s"
                ) from None
            waited = waited_for(began)
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            return message

        def waited_for(began: float) -> float:
            return waited + time.monotonic() - began

        await self.app(scope, receive_timed, send)
