"""Clients that go away: what they asked for is not captioned any more, and others do not notice."""

import asyncio
import threading
from typing import Any

import httpx2
import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from starlette.requests import Request

from app.api.disconnect import while_connected
from app.server import create_app
from app.settings import Settings

PHOTO = encode(plain(), "PNG")


def test_a_client_that_left_the_queue_is_never_captioned() -> None:
    captioner = EchoCaptioner()
    gate = threading.Event()

    async def run() -> None:
        app = create_app(lambda: captioner, Settings(cache_bytes=0), wait_for_model=True)
        async with app.router.lifespan_context(app):
            service = app.state.service
            captioner.calls.clear()
            captioner.gate = gate
            begun = captioner.entered
            gone = [Visitor(), Visitor()]
            first = asyncio.create_task(gone[0].ask(app))
            await until(lambda: captioner.entered > begun)
            second = asyncio.create_task(gone[1].ask(app))
            stays = asyncio.create_task(post(app))
            await until(lambda: service.depth == 2)
            for visitor in gone:
                visitor.leave.set()
            await asyncio.gather(first, second)
            assert service.depth == 1  # the one who stays
            assert not stays.done()
            gate.set()
            assert (await stays).status_code == 200
        # What ran was finished, the second one was never begun.
        assert [count for count, _ in captioner.calls] == [1, 1]
        assert [visitor.statuses for visitor in gone] == [[], []]

    asyncio.run(run())


def test_who_leaves_as_the_work_ends_cancels_nothing_that_comes_after() -> None:
    async def run() -> str:
        leave = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def work() -> str:
            await asyncio.sleep(0)
            leave.set()
            return "captioned"

        result = await while_connected(Request({"type": "http"}, receive), work())
        for _ in range(5):  # where a late cancellation would strike
            await asyncio.sleep(0)
        return result

    assert asyncio.run(run()) == "captioned"


def test_a_cancellation_from_elsewhere_is_not_taken_for_the_clients_leaving() -> None:
    async def run() -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        work = while_connected(Request({"type": "http"}, receive), asyncio.sleep(60))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await work

    asyncio.run(run())


class Visitor:
    """A client as the server sees it: a raw image, then nothing, until it leaves."""

    def __init__(self) -> None:
        self.leave = asyncio.Event()
        self.statuses: list[int] = []
        self._sent = False

    async def ask(self, app: Any) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/captions",
            "raw_path": b"/v1/captions",
            "query_string": b"",
            "headers": [(b"content-type", b"image/png")],
            "state": {},
        }
        await app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": PHOTO, "more_body": False}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])


async def post(app: Any) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
        return await client.post("/v1/captions", content=PHOTO, headers={"content-type": "image/png"})


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)
