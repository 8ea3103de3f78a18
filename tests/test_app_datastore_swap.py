"""Another version of the datastore while requests are answered: none is lost, and no reply mixes two."""

import asyncio
import gc
import itertools
import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import structlog
from echo_captioner import EchoCaptioner
from hashing_embedder import HashingEmbedder
from hostile.datastores import seal
from PIL import Image
from sample_pictures import encode, plain
from small_datastores import EMBEDDER, publish
from starlette.testclient import TestClient
from waiting import wait_until

from app.access.keys import new_key, write_keys
from app.datastore_swap import Swap
from app.operations.process_memory import resident_bytes
from app.schemas import CaptionParameters
from app.server import create_app
from app.service import CaptionService
from app.settings import Settings
from datastore_build.deletion import delete_entries
from models.captions import CaptionResult, CaptionSettings
from retrieval.activation import activate
from retrieval.datastore import Datastore
from retrieval.manifest import CURRENT, IndexChoice, IndexRequest, live_version

PHOTO = encode(plain((200, 40, 10)), "PNG")


@dataclass
class StoreCaptioner(EchoCaptioner):
    """Retrieves from a real datastore. What it retrieves names the version it was built for."""

    store: Datastore | None = None

    def __post_init__(self) -> None:
        self.datastore = self.store  # type: ignore[assignment]

    def on_version(self, version: str) -> "StoreCaptioner":
        assert self.store is not None
        assert self.store.root is not None
        store = Datastore.open(
            self.store.root, embedder_id=EMBEDDER.id, dimension=EMBEDDER.dimension, version=version
        )
        opened.add(store)
        return replace(self, store=store)

    def caption_each(
        self, images: Sequence[Image.Image], languages: Sequence[Sequence[str]], settings: CaptionSettings
    ) -> CaptionResult:
        result = super().caption_each(images, languages, settings)
        assert self.store is not None
        query = EMBEDDER.embed_texts(["what is told of the version"] * len(images))
        found = self.store.neighbours(query, languages, 2)
        return CaptionResult(
            tuple(
                replace(
                    image,
                    captions=tuple(
                        replace(caption, neighbours=tuple(neighbours))
                        for caption, neighbours in zip(image.captions, own, strict=True)
                    ),
                )
                for image, own in zip(result.images, found, strict=True)
            ),
            result.timings_ms,
        )


opened: "weakref.WeakSet[Datastore]" = weakref.WeakSet()


def rows(name: str, count: int = 5) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{name}-{number}",
            "texts": {"en": f"the version is {name} {number}", "es": f"es {name} {number}"},
        }
        for number in range(count)
    ]


@pytest.fixture
def datastore(tmp_path: Path) -> Path:
    publish(tmp_path / "datastore", rows("first"))
    return tmp_path / "datastore"


def load(datastore: Path) -> StoreCaptioner:
    store = Datastore.open(datastore, embedder_id=EMBEDDER.id, dimension=EMBEDDER.dimension)
    opened.add(store)
    return StoreCaptioner(store=store)


@contextmanager
def serving(datastore: Path, **settings: object) -> Iterator[tuple[TestClient, dict[str, str]]]:
    """A client, and the headers of an admin."""
    token, admin = new_key("boss", admin=True)
    other_token, other = new_key("shop")
    keys = datastore.with_name("keys.json")
    write_keys(keys, [admin, other])
    chosen: dict[str, object] = {"keys_file": keys, "cache_bytes": 0, "datastore_poll_seconds": 0}
    app = create_app(lambda: load(datastore), Settings.model_validate(chosen | settings), wait_for_model=True)
    with TestClient(app, headers={"X-API-Key": other_token}) as client:
        yield client, {"X-API-Key": token}


def caption(client: TestClient) -> tuple[str, set[str]]:
    """The version that a reply names, and those that its neighbours are of."""
    reply = client.post("/v1/captions", files={"image": PHOTO}, data={"language": ["en", "es"]}).json()
    captions = reply["images"][0]["captions"]
    ids = {item["id"].rpartition("-")[0] for one in captions for item in one["neighbours"]}
    return reply["datastore"]["version"], ids


def metric(client: TestClient, admin: dict[str, str], start: str) -> str:
    (line,) = (
        line for line in client.get("/metrics", headers=admin).text.splitlines() if line.startswith(start)
    )
    return line


def test_a_new_live_version_is_noticed(datastore: Path) -> None:
    with serving(datastore, datastore_poll_seconds=0.02) as (client, admin):
        before = caption(client)
        assert before == (live_version(datastore).name, {"first"})
        second = publish(datastore, rows("second"))
        wait_until(lambda: client.get("/v1/datastore").json()["version"] == second)
        assert caption(client) == (second, {"second"})
        assert f'datastore="{second}"' in metric(client, admin, "paellera_model_info")
        assert metric(client, admin, 'paellera_datastore_swaps_total{outcome="served"}').endswith(" 1.0")
        activate(datastore, before[0])
        wait_until(lambda: caption(client) == before)


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-pq"])
def test_a_version_with_another_index_takes_over(datastore: Path, kind: IndexChoice) -> None:
    with serving(datastore) as (client, admin):
        first, _ = caption(client)
        second = publish(datastore, rows("second", 300), index=IndexRequest(kind=kind))
        delete_entries(datastore, [f"second-{number}" for number in range(0, 300, 2)])
        third = live_version(datastore).name
        for version in (second, third, second):
            response = client.post("/v1/datastore/activate", headers=admin, json={"version": version})
            assert response.status_code == 200
            assert client.get("/v1/datastore").json()["index"] == {"kind": kind}
            assert caption(client) == (version, {"second"})
        client.post("/v1/datastore/activate", headers=admin, json={"version": first})
        assert caption(client) == (first, {"first"})


def test_without_looking_one_has_to_be_told(datastore: Path) -> None:
    with serving(datastore) as (client, admin):
        first, _ = caption(client)
        second = publish(datastore, rows("second"))
        time.sleep(0.1)
        assert caption(client)[0] == first
        response = client.post("/v1/datastore/activate", headers=admin)
        assert (response.status_code, response.json()) == (200, {"previous": first, "version": second})
        assert caption(client) == (second, {"second"})
        again = client.post("/v1/datastore/activate", headers=admin, json={})
        assert again.json() == {"previous": second, "version": second}


def test_a_version_that_is_named_becomes_the_live_one(datastore: Path) -> None:
    first = live_version(datastore).name
    second = publish(datastore, rows("second"))
    with serving(datastore, datastore_poll_seconds=0.02) as (client, admin):
        response = client.post("/v1/datastore/activate", headers=admin, json={"version": first})
        assert response.json() == {"previous": second, "version": first}
        assert live_version(datastore).name == first
        time.sleep(0.1)
        assert caption(client) == (first, {"first"})


def test_only_admins_may(datastore: Path) -> None:
    second = publish(datastore, rows("second"))
    activate(datastore, sorted(path.name for path in (datastore / "versions").iterdir())[0])
    with serving(datastore) as (client, _):
        response = client.post("/v1/datastore/activate", json={"version": second})
        assert (response.status_code, response.json()["code"]) == (403, "not_permitted")
        assert live_version(datastore).name != second


@pytest.mark.parametrize(
    ("body", "type_", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_body"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"[]", "application/json", 422, "invalid_request"),
        (b'{"version": 5}', "application/json", 422, "invalid_request"),
        (b'{"versions": "x"}', "application/json", 422, "invalid_request"),
        (b'{"version": ""}', "application/json", 422, "invalid_request"),
        (b'{"version": "../../etc"}', "application/json", 409, "datastore_refused"),
        (b'{"version": "no-such-version"}', "application/json", 409, "datastore_refused"),
    ],
)
def test_what_cannot_be_asked_for(datastore: Path, body: bytes, type_: str, status: int, code: str) -> None:
    with serving(datastore) as (client, admin):
        before = caption(client)
        headers = admin | {"content-type": type_}
        response = client.post("/v1/datastore/activate", content=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert caption(client) == before


@pytest.mark.parametrize("damage", ["truncated", "foreign", "missing", "current", "zeros"])
def test_what_cannot_be_served_is_refused_once_and_the_old_goes_on(
    datastore: Path, damage: str, tmp_path: Path
) -> None:
    first = live_version(datastore).name
    with (
        structlog.testing.capture_logs() as logs,
        serving(datastore, datastore_poll_seconds=0.01) as (client, admin),
    ):
        before = caption(client)
        # Made elsewhere and moved here, so that nobody looks before it is spoilt.
        embedder = HashingEmbedder("another", 32) if damage == "foreign" else EMBEDDER
        bad = publish(tmp_path / "other", rows("second"), embedder)
        folder = datastore / "versions" / bad
        if damage != "missing":
            (tmp_path / "other" / "versions" / bad).rename(folder)
        if damage == "truncated":
            (folder / "index.faiss").write_bytes(b"IxFI")
        if damage == "zeros":  # with hashes that fit: only the search before the swap finds it
            index = faiss.IndexFlatIP(EMBEDDER.dimension)
            index.add(np.zeros((5, EMBEDDER.dimension), np.float32))
            faiss.write_index(index, str(folder / "index.faiss"))
            seal(folder)
        # In one step: an empty file would be another reason to refuse.
        (tmp_path / CURRENT).write_text("!" if damage == "current" else f"{bad}\n")
        (tmp_path / CURRENT).replace(datastore / CURRENT)
        wait_until(lambda: any(line["event"] == "datastore_refused" for line in logs))
        time.sleep(0.15)  # looks many times
        assert [line["event"] for line in logs].count("datastore_refused") == 1
        assert metric(client, admin, 'paellera_datastore_swaps_total{outcome="refused"}').endswith(" 1.0")
        assert caption(client) == before == (first, {"first"})
        response = client.post("/v1/datastore/activate", headers=admin)
        assert (response.status_code, response.json()["code"]) == (409, "datastore_refused")
        assert response.headers["content-type"] == "application/problem+json"
        assert caption(client) == before
        assert client.get("/readyz").status_code == 200
        good = publish(datastore, rows("third"))
        wait_until(lambda: caption(client) == (good, {"third"}))


def test_a_version_the_model_cannot_caption_with_is_refused(datastore: Path) -> None:
    class Fussy(StoreCaptioner):
        def on_version(self, version: str) -> "StoreCaptioner":
            return replace(super().on_version(version), fail=RuntimeError("no words"))

    first = live_version(datastore).name
    second = publish(datastore, rows("second"))

    async def test() -> None:
        store = Datastore.open(datastore, version=first)
        service = CaptionService(lambda: Fussy(store=store), Settings(datastore_poll_seconds=0))
        await service.start()
        with pytest.raises(Exception, match=f"captioning with version {second} fails: RuntimeError"):
            await service.swap.activate(second)
        reply = await service.caption([PHOTO], CaptionParameters(), ("en",))
        assert reply.datastore.version == first
        await service.close()

    asyncio.run(test())
    assert live_version(datastore).name == second  # what it was; a refused version is not made live


def test_a_single_version_has_no_others(datastore: Path) -> None:
    with serving(live_version(datastore), datastore_poll_seconds=0.01) as (client, admin):
        response = client.post("/v1/datastore/activate", headers=admin)
        assert (response.status_code, response.json()["code"]) == (409, "datastore_refused")
        assert "single version" in response.json()["detail"]


def test_where_current_cannot_be_written_the_old_version_stays(
    datastore: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = live_version(datastore).name
    second = publish(datastore, rows("second"))

    def read_only(root: Path, version: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("app.datastore_swap.make_live", read_only)
    with serving(datastore) as (client, admin):
        response = client.post("/v1/datastore/activate", headers=admin, json={"version": first})
        assert response.status_code == 409
        assert "Read-only file system" in response.json()["detail"]
        assert caption(client) == (second, {"second"})


def test_who_has_begun_with_a_version_ends_with_it(datastore: Path) -> None:
    """A batch is under way and others wait when the version changes: each reply is of one version."""
    gate = threading.Event()
    with serving(datastore) as (client, admin):
        first = live_version(datastore).name
        service: CaptionService = client.app.state.service  # type: ignore[attr-defined]
        model = service.holder._model
        assert isinstance(model, StoreCaptioner)
        second = publish(datastore, rows("second"))
        replies: list[tuple[str, set[str]]] = []
        model.gate = gate
        threads = [threading.Thread(target=lambda: replies.append(caption(client))) for _ in range(4)]
        threads.append(threading.Thread(target=lambda: client.post("/v1/datastore/activate", headers=admin)))
        try:
            threads[0].start()
            wait_until(lambda: model.entered == 2)  # the warm-up image was the first
            for thread in threads[1:4]:
                thread.start()
            wait_until(lambda: len(service._batcher._jobs) == 3)
            threads[4].start()
            time.sleep(0.1)
        finally:
            gate.set()
        for thread in threads:
            thread.join()
        assert replies == [(first, {"first"})] * 4
        assert caption(client) == (second, {"second"})


SWAPS, CLIENTS = 100, 6


def test_a_hundred_swaps_under_load(datastore: Path) -> None:
    # Large enough that 90 of them would be noticed: about 300 kB each.
    names = {publish(datastore, rows(name, 2000)): name for name in ("second", "third", "fourth")}
    versions = itertools.cycle(names)
    opened.clear()
    seen: list[tuple[str, set[str]]] = []
    failed: list[BaseException] = []

    async def test() -> None:
        settings = Settings(datastore_poll_seconds=0, cache_bytes=0, max_waiting=100, queue_seconds=60)
        service = CaptionService(lambda: load(datastore), settings)
        await service.start()
        done = asyncio.Event()

        async def client() -> None:
            while not done.is_set():
                reply = await service.caption([PHOTO, PHOTO], CaptionParameters(neighbours=2), ("en", "es"))
                ids = {
                    item.id.rpartition("-")[0]
                    for image in reply.images
                    for one in image.captions
                    for item in one.neighbours
                }
                seen.append((reply.datastore.version, ids))

        clients = [asyncio.create_task(client()) for _ in range(CLIENTS)]
        served = live_version(datastore).name
        descriptors: list[int] = []
        resident: list[int] = []
        try:
            for number in range(SWAPS):
                wanted = next(version for version in versions if version != served)
                assert await service.swap.activate(wanted) == Swap(served, wanted)
                served = wanted
                if number in (10, SWAPS - 1):
                    descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
                    resident.append(resident_bytes([os.getpid()]))
                answered = len(seen)
                while len(seen) == answered:  # a request at least between two swaps
                    await asyncio.sleep(0.001)
                    failed.extend(task.exception() or RuntimeError() for task in clients if task.done())
                    assert not failed
        finally:
            done.set()
            await asyncio.gather(*clients)
        # Only the one that is served is left; no cycle keeps the others.
        assert [store.version for store in opened] == [served]
        assert descriptors[1] <= descriptors[0] + 3
        assert resident[1] <= resident[0] + 10_000_000
        await service.close()

    gc.collect()
    gc.disable()  # what goes, goes by itself
    try:
        asyncio.run(asyncio.wait_for(test(), timeout=240))
    finally:
        gc.enable()
    assert len(seen) >= SWAPS
    assert {version for version, _ in seen} == set(names)
    for version, ids in seen:
        assert ids == {names[version]}


def test_replies_in_the_cache_are_those_of_the_version_served(datastore: Path) -> None:
    with serving(datastore, cache_bytes=1_000_000) as (client, admin):
        first = live_version(datastore).name
        second = publish(datastore, rows("second"))

        def ask() -> tuple[str, str]:
            headers = client.post("/v1/captions", files={"image": PHOTO}).headers
            return headers["x-paellera-datastore"], headers["x-cache"]

        assert [ask(), ask()] == [(first, "miss"), (first, "hit")]
        client.post("/v1/datastore/activate", headers=admin)
        assert [ask(), ask()] == [(second, "miss"), (second, "hit")]
        client.post("/v1/datastore/activate", headers=admin, json={"version": first})
        assert ask() == (first, "hit")
