"""uvicorn, with an end that loses nothing, and with connections that end.

uvicorn by itself closes its listeners as soon as it is told to stop, while a load balancer still sends
requests to them; and it then dies of the signal. Here the first SIGTERM begins the drain (draining.py),
the listeners stay open until the last request is answered, and the process ends like one that is done.
"""

import math
import signal
import time
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from app.api.body_timeout import BodyPace
from app.operations.connections import ConnectionLimits, limited_connections
from app.operations.draining import Drain
from app.settings import Settings

_log = structlog.get_logger("paellera.service")


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves an application of app/server.py."""
    limits = ConnectionLimits(
        settings.max_connections,
        settings.header_seconds,
        settings.send_seconds,
        BodyPace.from_settings(settings),
    )
    return uvicorn.Config(
        app,
        http=limited_connections(limits, app.state.metrics),
        ws="none",
        log_config=None,  # ours is in place
        access_log=False,  # the request line is app/operations/access_log.py's
        server_header=False,
        proxy_headers=False,  # who is believed is app/access/client_address.py's
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )


class DrainingServer(uvicorn.Server):
    """Every further signal skips to the next phase; SIGINT, which a person sends, skips the first."""

    def __init__(
        self, config: uvicorn.Config, drain: Drain, *, drain_seconds: float, shutdown_seconds: float
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._drain_seconds = drain_seconds
        self._shutdown_seconds = shutdown_seconds
        self._until = math.inf  # end of the present phase, in monotonic seconds
        self._skip = False  # a signal asked for the next phase

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs between any two instructions of the event loop's thread: it only takes a note."""
        if self._drain.phase == "serving":
            self._drain.phase = "draining"  # /readyz says so to the very next probe
            self._skip = sig == signal.SIGINT
        else:
            self._skip = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the server."""
        stopped = await super().on_tick(counter)
        return stopped or self._has_ended(time.monotonic())

    def _has_ended(self, now: float) -> bool:
        drain = self._drain
        if drain.phase == "serving":
            return False
        if drain.phase == "draining":
            if self._until == math.inf:
                self._until = now + self._drain_seconds
                _log.info("draining", seconds=self._drain_seconds, under_way=drain.under_way)
            if now < self._until and not self._skip:
                return False
            drain.phase, self._skip = "closing", False
            self._until = now + self._shutdown_seconds
            _log.info("closing", seconds=self._shutdown_seconds, under_way=drain.under_way)
        given_up = now >= self._until or self._skip
        if drain.under_way and not given_up:
            return False
        if drain.under_way:
            _log.warning("requests_cut_off", under_way=drain.under_way)
        # What is left to wait for are connections whose last bytes are on their way, if anything.
        self.config.timeout_graceful_shutdown = 0 if given_up else max(1, math.ceil(self._until - now))
        return True
