"""Identical requests over HTTP: cache, ETag, retries, headers."""

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from echo_captioner import EchoCaptioner, EchoDatastore
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient
from waiting import wait_until

from app.access.gate import Caller
from app.model_holder import ModelHolder
from app.server import create_app
from app.settings import Settings

PHOTO = encode(plain((200, 40, 10)), "PNG")
OTHER = encode(plain((1, 2, 3)), "PNG")
CACHE = 1_000_000


def ask(client: TestClient, image: bytes = PHOTO, headers: dict[str, str] | None = None, **data: str) -> Any:
    return client.post("/v1/captions", files={"image": image}, data=data, headers=headers or {})


def test_an_identical_request_gets_the_same_bytes_without_captioning() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, cache_bytes=CACHE) as client:
        first = ask(client, language="es")
        encoded = {"images": [{"base64": base64.b64encode(PHOTO).decode()}], "languages": ["es-MX"]}
        second = client.post("/v1/captions", json=encoded)
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert first.content == second.content
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert len(captioner.calls) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"image": OTHER},
        {"language": "de"},
        {"num_captions": "2"},
        {"neighbours": "1"},
        {"max_length": "9"},
        {"temperature": "0.5"},
        {"explain": "true"},
    ],
)
def test_other_requests_are_captioned(change: dict[str, Any]) -> None:
    with service_client(cache_bytes=CACHE) as client:
        ask(client, language="es")
        response = ask(client, **({"language": "es"} | change))
    assert response.headers["x-cache"] == "miss"


def test_sampling_is_cached_by_its_seed() -> None:
    with service_client(cache_bytes=CACHE) as client:
        assert ask(client, temperature="0.5").headers["x-cache"] == "miss"
        seen = [ask(client, temperature="0.5", seed=seed).headers["x-cache"] for seed in "011"]
        assert seen == ["hit", "miss", "hit"]
        assert [ask(client, seed=seed).headers["x-cache"] for seed in "34"] == ["miss", "hit"]  # a search


def test_another_datastore_or_bundle_is_another_reply() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, cache_bytes=CACHE) as client:
        ask(client)
        holder = client.app.state.service.holder  # type: ignore[attr-defined]
        captioner.datastore = EchoDatastore("v-2")
        holder.facts = replace(holder.facts, datastore=captioner.datastore.manifest)
        newer = ask(client)
        assert (newer.headers["x-cache"], newer.headers["x-paellera-datastore"]) == ("miss", "v-2")
        captioner.revision = "r2"
        holder.facts = replace(holder.facts, revision="r2")
        newer = ask(client)
        assert (newer.headers["x-cache"], newer.headers["x-paellera-model"]) == ("miss", "echo@r2")


def test_a_reply_is_kept_as_that_of_the_model_that_made_it() -> None:
    revisions = iter(("r1", "r2"))
    app = create_app(lambda: EchoCaptioner(revision=next(revisions)), Settings(), wait_for_model=True)
    with TestClient(app) as client:
        holder: ModelHolder = app.state.service.holder
        assert client.portal is not None
        client.portal.call(holder._unload)
        first = ask(client)  # asked for while r1 was served
        assert (first.headers["x-cache"], first.headers["x-paellera-model"]) == ("miss", "echo@r2")
        again = ask(client)
        assert (again.headers["x-cache"], again.content) == ("hit", first.content)
        assert holder.facts is not None
        holder.facts = replace(holder.facts, revision="r1")  # back to what was served before
        assert ask(client).headers["x-cache"] == "miss"


def test_headers_hold_any_name() -> None:
    with service_client(EchoCaptioner(bundle_name="cazuela ñ\n")) as client:
        assert ask(client).headers["x-paellera-model"] == "cazuela %C3%B1%0A@r1"


def test_etag() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, cache_bytes=CACHE) as client:
        etag = ask(client).headers["etag"]
        assert etag.startswith('"')
        for given in (etag, f'"other", {etag}', f"W/{etag}"):
            unchanged = ask(client, headers={"if-none-match": given})
            assert (unchanged.status_code, unchanged.content) == (304, b"")
            assert unchanged.headers["etag"] == etag
            assert unchanged.headers["x-paellera-model"] == "echo@r1"
        assert ask(client, headers={"if-none-match": '"other"'}).status_code == 200
        changed = ask(client, OTHER, headers={"if-none-match": etag})
        assert changed.status_code == 200
        assert changed.headers["etag"] != etag


def test_without_a_cache_every_request_is_captioned() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, cache_bytes=0) as client:
        replies = [ask(client) for _ in range(3)]
    assert [reply.headers["x-cache"] for reply in replies] == ["miss"] * 3
    assert len({reply.json()["id"] for reply in replies}) == 3
    assert len(captioner.calls) == 3


def test_identical_requests_at_the_same_time_take_one_place_in_the_queue() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, cache_bytes=CACHE) as client, ThreadPoolExecutor(6) as pool:
        captioner.gate = threading.Event()
        waiting = [pool.submit(ask, client) for _ in range(6)]
        answers = client.app.state.answers  # type: ignore[attr-defined]
        wait_until(lambda: sum(f.waiting for f in answers._cache._flights.values()) == 6)
        service = client.app.state.service  # type: ignore[attr-defined]
        assert service.depth <= 1  # 0 once it is on the model
        captioner.gate.set()
        responses = [future.result(timeout=120) for future in waiting]
    assert [response.status_code for response in responses] == [200] * 6
    assert sorted(response.headers["x-cache"] for response in responses) == ["hit"] * 5 + ["miss"]
    assert len({response.content for response in responses}) == 1
    assert len(captioner.calls) == 1


@contextmanager
def full_service(cache_bytes: int) -> Iterator[TestClient]:
    """With a reply for PHOTO, asked for with the Idempotency-Key `k`, and a queue that is full since then."""
    captioner = EchoCaptioner()
    with (
        service_client(captioner, cache_bytes=cache_bytes, max_waiting=1) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        ask(client, headers={"idempotency-key": "k"})
        captioner.gate = threading.Event()
        service = client.app.state.service  # type: ignore[attr-defined]
        under_way = captioner.entered + 1
        held = [pool.submit(ask, client, OTHER)]
        wait_until(lambda: captioner.entered == under_way)
        held.append(pool.submit(ask, client, OTHER, language="de"))
        wait_until(lambda: service.depth == 1)
        try:
            yield client
        finally:
            captioner.gate.set()
        assert [future.result(timeout=120).status_code for future in held] == [200, 200]


def test_a_hit_needs_no_place_in_a_full_queue() -> None:
    url = f"data:image/png;base64,{base64.b64encode(PHOTO).decode()}"
    photo = {"type": "image_url", "image_url": {"url": url}}
    chat = {"model": "echo", "messages": [{"role": "user", "content": [photo]}]}
    with full_service(CACHE) as client:
        for response in (ask(client), client.post("/v1/chat/completions", json=chat)):
            assert (response.status_code, response.headers["x-cache"]) == (200, "hit")
        other = ask(client, encode(plain((9, 9, 9)), "PNG"))
        assert (other.status_code, other.json()["code"]) == (429, "queue_full")
        assert int(other.headers["retry-after"]) >= 1


def test_a_retry_needs_no_place_in_a_full_queue() -> None:
    with full_service(cache_bytes=0) as client:
        retry = ask(client, headers={"idempotency-key": "k"})
        assert (retry.status_code, retry.headers["x-cache"]) == (200, "hit")
        assert ask(client).status_code == 429
        assert ask(client, headers={"idempotency-key": "other"}).status_code == 429


def test_in_a_full_queue_few_bodies_are_read_to_find_a_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_service(CACHE) as client:
        monkeypatch.setattr("app.api.answers._BODIES_READ_WHILE_FULL", 1)
        unknown = encode(plain((9, 9, 9)), "PNG")
        # One after the other has that place, whatever becomes of those before.
        seen = [ask(client, image).status_code for image in (PHOTO, unknown, b"no image", PHOTO)]
        assert seen == [200, 429, 429, 200]
        monkeypatch.setattr("app.api.answers._BODIES_READ_WHILE_FULL", 0)
        assert ask(client).status_code == 429


def test_errors_are_not_kept() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, cache_bytes=CACHE) as client:
        captioner.fail = RuntimeError("once")
        assert ask(client, headers={"idempotency-key": "k"}).status_code == 500
        captioner.fail = None
        assert ask(client, headers={"idempotency-key": "k"}).status_code == 200


def test_callers_with_different_keys_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "app.api.answers.caller_of", lambda request: Caller(request.headers.get("x-test-key"))
    )
    with service_client(cache_bytes=CACHE) as client:

        def seen(key: str, **headers: str) -> str:
            response = ask(client, headers={"x-test-key": key, **headers})
            return str(response.headers["x-cache"])

        assert [seen("a"), seen("b"), seen("a")] == ["miss", "miss", "hit"]
        ask(client, OTHER, headers={"x-test-key": "a", "idempotency-key": "k"})
        assert seen("b", **{"idempotency-key": "k"}) == "hit"  # no conflict: b's own key
        conflict = ask(client, headers={"x-test-key": "a", "idempotency-key": "k"})
        assert conflict.json()["code"] == "idempotency_conflict"


# --- retries ----------------------------------------------------------------------------------------------


def test_a_retry_gets_the_first_reply_even_without_a_cache_and_after_a_change() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, cache_bytes=0) as client:
        key = {"idempotency-key": "order-66"}
        first = ask(client, headers=key)
        captioner.revision = "r2"
        retry = ask(client, headers=key)
        assert retry.content == first.content
        assert (retry.headers["x-cache"], retry.headers["x-paellera-model"]) == ("hit", "echo@r1")
        assert ask(client, headers={"idempotency-key": "order-67"}).json()["model"]["revision"] == "r2"
    assert len(captioner.calls) == 2


def test_a_key_with_another_body_is_a_conflict() -> None:
    with service_client() as client:
        key = {"idempotency-key": "k"}
        ask(client, headers=key)
        for response in (ask(client, OTHER, headers=key), ask(client, headers=key, language="de")):
            assert (response.status_code, response.json()["code"]) == (422, "idempotency_conflict")
        assert ask(client, headers=key).status_code == 200


def test_a_retry_joins_the_request_under_way() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner) as client, ThreadPoolExecutor(2) as pool:
        captioner.gate = threading.Event()
        waiting = [pool.submit(ask, client, headers={"idempotency-key": "k"}) for _ in range(2)]
        answers = client.app.state.answers  # type: ignore[attr-defined]
        wait_until(lambda: sum(f.waiting for f in answers._retries._flights.values()) == 2)
        captioner.gate.set()
        first, second = (future.result(timeout=120) for future in waiting)
    assert first.content == second.content
    assert len(captioner.calls) == 1


@pytest.mark.parametrize("key", ["", "with space", "x" * 65, "ñ".encode().decode("latin-1"), "a,b"])
def test_keys_that_are_none(key: str) -> None:
    with service_client() as client:
        response = client.post(
            "/v1/captions", files={"image": PHOTO}, headers={b"idempotency-key": key.encode("latin-1")}
        )
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
        assert "Idempotency-Key" in response.json()["detail"]


def test_max_length_over_http() -> None:
    with service_client() as client:
        (caption,) = ask(client, max_length="10", language="en").json()["images"][0]["captions"]
        assert caption["text"] == "picture"
        assert ask(client, max_length="0").json()["code"] == "invalid_request"
        assert ask(client, max_length="1001").json()["code"] == "invalid_request"
