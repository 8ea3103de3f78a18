"""A client's connection whose patience ends: uvicorn's, with limits of time and number.

uvicorn waits for ever for the rest of a request's head, for a client that takes nothing of its answer, and
for the rest of a body that nobody reads any more. Here each of them ends, so that a client that sends a byte
now and then (slow loris) costs a connection for some seconds and nothing else. When all connections are
taken, a new one gets the place of the one that has been silent longest. How slowly a body may come that is
being read, app/api/body_timeout.py says.
"""

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any, ClassVar

import h11
import structlog
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.body_timeout import BodyPace
from app.errors import MalformedRequestError, RequestTimeoutError, TooManyConnectionsError
from app.operations.access_log import QUIET_PATHS
from app.operations.metrics import Metrics
from app.problems import response_of
from retrieval.errors import PaelleraError

_PERIOD = 0.5  # seconds between two looks at a connection
_log = structlog.get_logger("paellera.http")


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections there may be, and how long they may take."""

    connections: int
    header_seconds: float  # for the head of a request, from its first byte; of the first, from the beginning
    send_seconds: float  # that bytes of an answer may wait for the client
    body: BodyPace


def limited_connections(limits: ConnectionLimits, metrics: Metrics) -> type[H11Protocol]:
    """What `uvicorn.Config` takes as `http`."""

    class Limited(LimitedConnection):
        pass

    Limited.limits, Limited.metrics = limits, metrics
    return Limited


class LimitedConnection(H11Protocol):
    """Looks at itself every half second until it is lost."""

    limits: ClassVar[ConnectionLimits]
    metrics: ClassVar[Metrics]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        now = self.loop.time()
        self._silent_since = now  # the beginning, or the end of the last answer
        self._head_since: float | None = now  # None: no byte of the next request has come
        self._answered_at_bytes = 0  # of this request, when its answer was complete
        self._request_bytes = 0
        self._unsent_since: float | None = None
        self._unsent_most = 0
        self._look: asyncio.TimerHandle | None = None

    @property
    def awaits_request(self) -> bool:
        """Whether nothing is lost for a well-behaved client if this connection is closed now."""
        return self.conn.their_state is h11.IDLE and self._is_answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.metrics.count_connection(1)
        self._look = self.loop.call_later(_PERIOD, self._check)
        if len(self.connections) > self.limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.metrics.count_connection(-1)
        if self._look is not None:
            self._look.cancel()

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            self._request_bytes = 0
            if self._head_since is None:
                self._head_since = self.loop.time()
        self._request_bytes += len(data)
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._head_since = None

    def on_response_complete(self) -> None:
        self._silent_since = self.loop.time()
        self._answered_at_bytes = self._request_bytes
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it for what is not HTTP."""
        self._cut("malformed", MalformedRequestError("this is not a request of HTTP/1.1"))

    def cut_silent(self) -> None:
        """Makes room for another connection."""
        self._cut("displaced")
        self.transport.abort()  # also if it is closing and its last bytes are not taken
        self.connections.discard(self)  # at once: the next one may come before this one is lost

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _check(self) -> None:
        now = self.loop.time()
        self._look = self.loop.call_later(_PERIOD, self._check)
        if self._takes_nothing(now):
            self.metrics.count_cut_connection("answer")
            _log.info("connection_cut", reason="answer")
            self.transport.abort()
        elif self.transport.is_closing():
            return
        elif self._head_since is not None and now - self._head_since > self.limits.header_seconds:
            # One that has said nothing at all is closed without a word, as idle ones are.
            begun = self._request_bytes > 0
            self._cut("head", RequestTimeoutError("the request's head comes too slowly") if begun else None)
        elif self._is_answered and self.conn.their_state is h11.SEND_BODY:
            late = self._request_bytes - self._answered_at_bytes
            if now - self._silent_since > self.limits.body.allowed(late):
                self._cut("body")

    def _takes_nothing(self, now: float) -> bool:
        """Whether bytes have waited too long. Answers are written whole or in small events, so that a client
        which takes them has none waiting now and then.
        """
        unsent = self.transport.get_write_buffer_size()
        if unsent == 0:
            self._unsent_since = None
            return False
        if self._unsent_since is None:
            self._unsent_since, self._unsent_most = now, 0
        self._unsent_most = max(self._unsent_most, unsent)
        at_pace = self._unsent_most / self.limits.body.bytes_per_second
        return now - self._unsent_since > min(self.limits.send_seconds + at_pace, self.limits.body.seconds)

    def _make_room(self) -> None:
        others = [
            other for other in self.connections if isinstance(other, LimitedConnection) and other is not self
        ]
        silent = [other for other in others if other.awaits_request or other.transport.is_closing()]
        if silent:
            min(silent, key=lambda other: other._silent_since).cut_silent()
            return
        self.metrics.count_cut_connection("refused")
        application = self.app

        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] in QUIET_PATHS:
                await application(scope, receive, send)
                return
            error = TooManyConnectionsError("all connections of the service are taken", 5)
            response = response_of(error, uuid.uuid4().hex)
            response.headers["Connection"] = "close"
            await response(scope, receive, send)

        self.app = refuse

    def _cut(self, reason: str, error: PaelleraError | None = None) -> None:
        """Close it; if nothing of an answer was sent yet, `error` is one."""
        self.metrics.count_cut_connection(reason)
        _log.info("connection_cut", reason=reason)
        if not self._is_answered:  # for the application it is as if the client had left
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if error is not None and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = response_of(error, uuid.uuid4().hex)
            headers = [pair for pair in response.raw_headers if pair[0] != b"connection"]
            head = h11.Response(
                status_code=response.status_code, headers=[*headers, (b"connection", b"close")]
            )
            for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
