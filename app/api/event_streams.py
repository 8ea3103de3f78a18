"""Replies as server-sent events: comments while the work goes on, then events, and errors as events too.

A stream begins when there is something to say. What fails before that is answered as everywhere, with its own
status; only afterwards, when 200 has been sent, an error has to be an event.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

import structlog
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT

from app.negotiation import EVENT_STREAM
from app.problems import internal_error, response_of
from retrieval.errors import PaelleraError

Result = TypeVar("Result")
KEEPALIVE_SECONDS = 5.0  # proxies close connections that are silent for half a minute or more
_log = structlog.get_logger("paellera.http")


async def event_stream(
    work: Coroutine[Any, Any, Result],
    events: Callable[[Result], Iterable[bytes]],
    error_events: Callable[[bytes], Iterable[bytes]],
    headers: Callable[[Result | None], Mapping[str, str]],
    request_id: str,
) -> StreamingResponse:
    """Waits for the work and sends its events; if the caller goes away, the work is cancelled.

    `error_events` makes events of a problem document; `headers` is given the result only if there was no need
    for a comment before it. Raises what the work raises until then.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task}, timeout=KEEPALIVE_SECONDS)
    except asyncio.CancelledError:
        task.cancel()
        raise
    result = task.result() if task.done() else None

    async def body() -> AsyncIterator[bytes]:
        try:
            while not task.done():
                yield KEEPALIVE_COMMENT
                await asyncio.wait({task}, timeout=KEEPALIVE_SECONDS)
        finally:
            task.cancel()  # nothing if it is done
        for event in _events_of(task, events, error_events, request_id):
            yield event

    sent = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers(result)}
    return StreamingResponse(body(), headers=sent, media_type=EVENT_STREAM)


def _events_of(
    task: asyncio.Task[Result],
    events: Callable[[Result], Iterable[bytes]],
    error_events: Callable[[bytes], Iterable[bytes]],
    request_id: str,
) -> Iterable[bytes]:
    try:
        return events(task.result())
    except PaelleraError as error:
        problem = response_of(error, request_id)
    except Exception:
        _log.exception("unhandled_error")
        problem = internal_error(request_id)
    return error_events(bytes(problem.body))
