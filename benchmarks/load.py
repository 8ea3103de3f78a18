"""Requests against a server on this machine: as fast as they are answered, or as fast as they come.

A closed loop has so many clients, each waiting for its answer before it asks again: it finds the throughput.
An open loop sends at a rate whatever happens, as visitors do: it shows what becomes of too many of them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import aiohttp

from benchmarks.target import Answer, Target, model_ms_of

_GIVEN_UP = 120.0  # seconds after which a request counts as hanging


class Client:
    """Asks one target for captions of some photos in turn."""

    def __init__(self, target: Target, photos: Sequence[bytes]) -> None:
        self._target = target
        self._photos = photos
        self._asked = 0

    async def ask(self, session: aiohttp.ClientSession) -> Answer:
        form = aiohttp.FormData(list(self._target.fields))
        photo = self._photos[self._asked % len(self._photos)]
        self._asked += 1
        form.add_field("image", photo, filename="photo", content_type="application/octet-stream")
        began = time.perf_counter()
        try:
            async with session.post(self._target.url, data=form) as response:
                body = await response.read()
                taken = time.perf_counter() - began
                model_ms = model_ms_of(body) if response.status == 200 else 0.0
                return Answer(taken, response.status, "retry-after" in response.headers, model_ms)
        except (aiohttp.ClientError, TimeoutError):
            return Answer(time.perf_counter() - began, 0)


def closed_loop(target: Target, photos: Sequence[bytes], clients: int, seconds: float) -> list[Answer]:
    """So many clients for so long; what was begun is waited for."""

    async def run(session: aiohttp.ClientSession) -> list[Answer]:
        client = Client(target, photos)
        end = time.perf_counter() + seconds
        answers: list[Answer] = []

        async def one() -> None:
            while time.perf_counter() < end:
                answers.append(await client.ask(session))

        await asyncio.gather(*(one() for _ in range(clients)))
        return answers

    return _with_session(run)


def open_loop(target: Target, photos: Sequence[bytes], rate: float, seconds: float) -> list[Answer]:
    """So many requests a second for so long, evenly; all are waited for."""

    async def run(session: aiohttp.ClientSession) -> list[Answer]:
        client = Client(target, photos)
        began = time.perf_counter()
        asked = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            asked.append(asyncio.create_task(client.ask(session)))
        return list(await asyncio.gather(*asked))

    return _with_session(run)


def _with_session(run: Callable[[aiohttp.ClientSession], Awaitable[list[Answer]]]) -> list[Answer]:
    async def main() -> list[Answer]:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=_GIVEN_UP)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            return await run(session)

    return asyncio.run(main())
