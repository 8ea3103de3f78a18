import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient
from waiting import wait_until

from app.model_holder import ModelHolder
from app.server import create_app
from app.settings import Settings
from retrieval.errors import BundleError

PHOTO = encode(plain(), "PNG")


class Loader:
    def __init__(self) -> None:
        self.loads = 0
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Exception | None = None

    def __call__(self) -> EchoCaptioner:
        assert self.gate.wait(timeout=120)
        self.loads += 1
        if self.fail is not None:
            raise self.fail
        return EchoCaptioner()


async def use(holder: ModelHolder) -> EchoCaptioner:
    async with holder.model() as model:
        assert isinstance(model, EchoCaptioner)
        return model


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.002)


def run(test: Callable[[Loader], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test(Loader())

    asyncio.run(whole())


def test_all_who_ask_at_once_share_one_load() -> None:
    async def test(load: Loader) -> None:
        holder = ModelHolder(load, idle_seconds=0)
        assert holder.facts is None
        models = await asyncio.gather(*(use(holder) for _ in range(5)))
        assert load.loads == 1
        assert len({id(model) for model in models}) == 1
        assert holder.facts is not None
        assert holder.facts.languages == EchoCaptioner().languages
        assert holder.facts.datastore.version == "v-test"

    run(test)


def test_it_is_dropped_when_idle_and_loaded_again() -> None:
    async def test(load: Loader) -> None:
        holder = ModelHolder(load, idle_seconds=0.02)
        await use(holder)
        assert holder.loaded
        await until(lambda: not holder.loaded)
        assert holder.facts is not None
        assert holder.facts.bundle_name == "echo"
        await use(holder)
        assert load.loads == 2

    run(test)


def test_it_stays_while_it_is_used() -> None:
    async def test(load: Loader) -> None:
        holder = ModelHolder(load, idle_seconds=0.01)
        async with holder.model():
            await use(holder)  # a short use inside a long one
            await asyncio.sleep(0.1)
            assert holder.loaded
        await until(lambda: not holder.loaded)
        assert load.loads == 1

    run(test)


def test_without_a_limit_it_stays_for_ever() -> None:
    async def test(load: Loader) -> None:
        holder = ModelHolder(load, idle_seconds=0)
        await use(holder)
        await asyncio.sleep(0.05)
        assert holder.loaded

    run(test)


def test_a_deadline_of_one_does_not_stop_the_load_for_another() -> None:
    async def test(load: Loader) -> None:
        holder = ModelHolder(load, idle_seconds=0)
        load.gate.clear()
        hurried = asyncio.create_task(asyncio.wait_for(use(holder), timeout=0.01))
        patient = asyncio.create_task(use(holder))
        with pytest.raises(TimeoutError):
            await hurried
        load.gate.set()
        await patient
        assert load.loads == 1

    run(test)


def test_a_model_nobody_waited_for_is_dropped_too() -> None:
    async def test(load: Loader) -> None:
        holder = ModelHolder(load, idle_seconds=0.01)
        load.gate.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(use(holder), timeout=0.01)
        load.gate.set()
        await until(lambda: load.loads == 1)
        await until(lambda: not holder.loaded)

    run(test)


def test_a_failed_load_is_told_to_all_and_tried_again() -> None:
    async def test(load: Loader) -> None:
        holder = ModelHolder(load, idle_seconds=0)
        load.fail = BundleError("bridge.safetensors is gone")
        results = await asyncio.gather(*(use(holder) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [BundleError] * 3
        assert load.loads == 1
        assert holder.failed
        load.fail = None
        await use(holder)
        assert not holder.failed

    run(test)


def metric(client: TestClient, name: str) -> str:
    (line,) = (line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} "))
    return line.split()[1]


def test_the_service_stays_ready_without_its_model() -> None:
    load = Loader()
    settings = Settings.model_validate({"unload_after_seconds": 1})
    with TestClient(create_app(load, settings, wait_for_model=True)) as client:
        assert metric(client, "paellera_model_loaded") == "1.0"
        wait_until(lambda: metric(client, "paellera_model_loaded") == "0.0")
        assert client.get("/readyz").status_code == 200
        assert len(client.get("/v1/languages").json()["languages"]) == 6
        assert load.loads == 1
        response = client.post("/v1/captions", files={"image": PHOTO})
        assert response.status_code == 200
        assert response.json()["model"] == {"bundle": "echo", "revision": "r1"}
        assert load.loads == 2
        assert metric(client, "paellera_model_loaded") == "1.0"


def test_a_chat_that_is_answered_from_the_cache_loads_no_model() -> None:
    load = Loader()
    url = f"data:image/png;base64,{base64.b64encode(PHOTO).decode()}"
    photo = {"type": "image_url", "image_url": {"url": url}}

    def ask(words: str) -> Any:
        parts = [{"type": "text", "text": words}, photo]
        body = {"model": "echo", "messages": [{"role": "user", "content": parts}]}
        return client.post("/v1/chat/completions", json=body)

    with TestClient(create_app(load, Settings(unload_after_seconds=60), wait_for_model=True)) as client:
        first = ask("What is this?")
        holder: ModelHolder = client.app.state.service.holder  # type: ignore[attr-defined]
        assert client.portal is not None
        client.portal.call(holder._unload)
        again = ask("And what do you think is this?")
        assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
        assert [reply.json()["usage"]["prompt_tokens"] for reply in (first, again)] == [3, 7]
        assert [reply.json()["usage"]["completion_tokens"] for reply in (first, again)] == [2, 2]
        assert load.loads == 1
        assert metric(client, "paellera_model_loaded") == "0.0"


def test_a_model_that_cannot_be_loaded_again_takes_the_service_out() -> None:
    load = Loader()
    settings = Settings.model_validate({"unload_after_seconds": 1})
    with TestClient(create_app(load, settings, wait_for_model=True)) as client:
        wait_until(lambda: metric(client, "paellera_model_loaded") == "0.0")
        load.fail = BundleError("/srv/bundle is gone")
        response = client.post("/v1/captions", files={"image": PHOTO})
        assert (response.status_code, response.json()["code"]) == (500, "invalid_bundle")
        assert client.get("/readyz").status_code == client.get("/livez").status_code == 503
        load.fail = None
        assert client.post("/v1/captions", files={"image": PHOTO}).status_code == 200
        assert client.get("/readyz").status_code == client.get("/livez").status_code == 200


def test_the_model_is_never_dropped_by_default() -> None:
    assert Settings().unload_after_seconds == 0
    with service_client() as client:
        assert metric(client, "paellera_model_loaded") == "1.0"
