"""Clients that misbehave in every way, among good ones: these are answered, and nothing of those is left.

The long version of it, with the real model, is `python -m benchmarks.soak`.
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import psutil
import pytest
import uvicorn
from echo_captioner import EchoCaptioner
from PIL import Image
from sample_pictures import encode, noisy, plain
from structlog.testing import capture_logs

from app.operations.serving import server_config
from app.server import create_app
from app.settings import Settings
from benchmarks.chaos import Chaos
from benchmarks.wire import Request, ask, get, post_chat, post_form, post_image, post_json
from models.captions import CaptionResult, CaptionSettings

COLOURS = [(200, 40, 10), (0, 0, 255), (255, 255, 255)]
WAITING = 24  # as many requests may wait
SETTINGS = Settings(
    port=0, cache_bytes=0, max_waiting=WAITING, decode_workers=2, header_seconds=1, body_seconds=2
)


class SlowCaptioner(EchoCaptioner):
    """Slow enough that there is somebody to leave the queue."""

    def caption_each(
        self, images: Sequence[Image.Image], languages: Sequence[Sequence[str]], settings: CaptionSettings
    ) -> CaptionResult:
        time.sleep(0.005)
        return super().caption_each(images, languages, settings)


def victims() -> list[Request]:
    photo = encode(noisy(), "PNG")
    return [
        get("/v1/languages"),
        post_image(photo, ["en", "es"]),
        post_form([photo, photo], [("language", "zh")]),
        post_chat(photo, "echo", "in Spanish", stream=True),
        post_json("/v1/datastore/search", {"text": "a dog", "k": 3}),
    ]


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_left_of_clients_that_misbehave(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    with capture_logs() as lines, caplog.at_level(logging.WARNING):
        asyncio.run(serve(lambda host, port: among_chaos(host, port, random.Random(seed))))
    assert [line for line in lines if line["log_level"] in ("error", "critical")] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_decode_processes_that_are_killed_cost_no_request() -> None:
    async def among_kills(host: str, port: int) -> None:
        await burst(host, port)
        for _ in range(3):
            asking = asyncio.create_task(burst(host, port))
            await asyncio.sleep(0.02)
            for child in psutil.Process().children():
                with suppress(psutil.Error):  # it has ended by itself
                    if "spawn_main" in " ".join(child.cmdline()):
                        child.kill()
            await asking
        await quiet(host, port)

    asyncio.run(serve(among_kills))


async def serve(clients: Callable[[str, int], Awaitable[None]]) -> None:
    """The service and its clients on one event loop, so that all tasks can be counted."""
    app = create_app(SlowCaptioner, SETTINGS, wait_for_model=True)
    server = uvicorn.Server(server_config(app, SETTINGS))
    with socket.create_server(("127.0.0.1", 0), backlog=500) as listener:
        host, port = listener.getsockname()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        try:
            await clients(host, port)
        finally:
            server.should_exit = True
            await serving


async def among_chaos(host: str, port: int, draw: random.Random) -> None:
    await burst(host, port)  # starts what is started only once: threads, decoders
    await quiet(host, port)
    descriptors = psutil.Process().num_fds()
    tasks = len(asyncio.all_tasks())

    chaos = Chaos(host, port, victims(), draw, slowest=1.5)
    bad = [asyncio.create_task(chaos.misbehave()) for _ in range(150)]
    for number in range(60):
        await good(host, port, COLOURS[number % len(COLOURS)], patient=True)
    await asyncio.gather(*bad)
    assert len(chaos.done) == 14  # every kind was among them

    await quiet(host, port)
    await until(lambda: psutil.Process().num_fds() <= descriptors)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await burst(host, port)  # every place in the queue is free


async def burst(host: str, port: int) -> None:
    await asyncio.gather(*(good(host, port, COLOURS[n % len(COLOURS)]) for n in range(WAITING)))


async def good(host: str, port: int, colour: tuple[int, int, int], patient: bool = False) -> None:
    """A photo of one colour is captioned with it. Who is `patient` comes again if the queue is full."""
    while True:
        response = await ask(host, port, post_image(encode(plain(colour), "PNG"), ["en"]))
        if response.status != 429 or not patient:
            break
        await asyncio.sleep(0.02)
    assert response.status == 200, response
    captions = response.json["images"][0]["captions"]
    assert captions[0]["text"] == f"picture {','.join(map(str, colour))}"


async def quiet(host: str, port: int) -> None:
    """Until nothing waits or is under way, and only this one's connection is there."""
    deadline = time.monotonic() + 60
    while True:
        text = (await ask(host, port, get("/metrics"))).body.decode()
        pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        metrics = {name: float(value) for name, _, value in pairs}
        left = [metrics["paellera_queue_depth"], metrics["paellera_requests_under_way"]]
        if left == [0, 0] and metrics["paellera_connections"] <= 1:
            return
        assert time.monotonic() < deadline, (left, metrics["paellera_connections"])
        await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)
