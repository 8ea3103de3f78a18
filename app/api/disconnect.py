"""Work for a client that may go away before it is done."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns; it is cancelled if the client closes the connection first.

    Call it when the body has been read: what still comes in is not looked at.

    Raises:
        ClientDisconnect: nobody is left to answer to.
    """
    # In the present task, not in one of its own: for a lone request that is several turns of the event loop
    # less. The client's leaving cancels it, in the way that asyncio.timeout does.
    present = asyncio.current_task()
    assert present is not None
    cancelled_before = present.cancelling()
    over = left = False

    def gone(leaving: "asyncio.Task[None]") -> None:
        nonlocal left
        if not leaving.cancelled():
            leaving.exception()  # a connection that cannot be read is one that is gone
        if not over:
            left = True
            present.cancel()

    leaving = asyncio.ensure_future(_left(request))
    leaving.add_done_callback(gone)
    try:
        return await work
    except asyncio.CancelledError:
        if not left or present.cancelling() > cancelled_before + 1:
            raise  # somebody else's doing
        raise ClientDisconnect from None
    finally:
        over = True
        if left:
            present.uncancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
