"""Captions as server-sent events."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient

from app.api import event_streams
from app.api.caption_events import caption_error_events, caption_events
from app.api.event_streams import event_stream
from app.api.reply_cache import Answer
from retrieval.errors import InvalidImageError

PHOTO = encode(plain((200, 40, 10)), "PNG")
OTHER = encode(plain((1, 2, 3)), "PNG")
EVENTS = {"accept": "text/event-stream"}


def events_of(body: str) -> list[tuple[str, Any]]:
    """Names and documents; a comment has the name of a colon."""
    events: list[tuple[str, Any]] = []
    assert body.endswith("\n\n")
    for block in body.removesuffix("\n\n").split("\n\n"):
        if block.startswith(":"):
            events.append((":", None))
            continue
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def ask(client: TestClient, *images: bytes, headers: dict[str, str] = EVENTS) -> Any:
    files = [("image", image) for image in images]
    return client.post("/v1/captions", files=files, data={"language": ["es", "zh"]}, headers=headers)


def test_an_event_for_each_caption_and_one_for_the_rest(client: TestClient) -> None:
    response = ask(client, PHOTO, OTHER)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-paellera-model"] == "echo@r1"
    whole = ask(client, PHOTO, OTHER, headers={}).json()
    *captions, (last, reply) = events_of(response.text)
    assert [name for name, _ in captions] == ["caption"] * 4
    assert [(data["image"], data["language"], data["text"]) for _, data in captions] == [
        (0, "es", "imagen 200,40,10"),
        (0, "zh", "图片 200,40,10"),
        (1, "es", "imagen 1,2,3"),
        (1, "zh", "图片 1,2,3"),
    ]
    rebuilt: list[list[Any]] = [[], []]
    for _, data in captions:
        rebuilt[data.pop("image")].append(data)
    assert rebuilt == [image["captions"] for image in whole["images"]]
    assert last == "reply"
    assert reply["images"] == [{"width": 32, "height": 24, "format": "PNG"}] * 2
    assert set(reply) == set(whole)


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream;q=0.9, application/json;q=0.5", True),
        ("application/json, text/event-stream", False),
        ("text/event-stream;q=0", False),
        ("*/*", False),
        ("application/json", False),
    ],
)
def test_accept_chooses(client: TestClient, accept: str, streams: bool) -> None:
    response = ask(client, PHOTO, headers={"accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream") is streams


def test_what_fails_before_the_stream_begins_has_its_status(client: TestClient) -> None:
    response = ask(client, b"text")
    assert (response.status_code, response.json()["code"]) == (422, "invalid_image")


def test_comments_while_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "KEEPALIVE_SECONDS", 0.05)
    captioner = EchoCaptioner()
    with service_client(captioner) as client:
        captioner.gate = threading.Event()
        threading.Timer(0.5, captioner.gate.set).start()
        names = [name for name, _ in events_of(ask(client, PHOTO).text)]
    assert names[:2] == [":", ":"]
    assert names[-3:] == ["caption", "caption", "reply"]


@pytest.mark.parametrize(
    ("failure", "code"),
    [(InvalidImageError("late"), "invalid_image"), (RuntimeError("hunter2"), "internal_error")],
)
def test_an_error_after_the_stream_has_begun_is_an_event(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, code: str
) -> None:
    monkeypatch.setattr(event_streams, "KEEPALIVE_SECONDS", 0.05)
    captioner = EchoCaptioner()
    with service_client(captioner) as client:
        captioner.gate, captioner.fail = threading.Event(), failure
        threading.Timer(0.5, captioner.gate.set).start()
        response = ask(client, PHOTO)
    assert response.status_code == 200
    name, problem = events_of(response.text)[-1]
    assert (name, problem["code"]) == ("error", code)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "hunter2" not in response.text


def test_the_work_ends_when_the_caller_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "KEEPALIVE_SECONDS", 0.01)
    cancelled: list[bool] = []

    async def work() -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)
        raise AssertionError

    async def leave() -> None:
        response = await event_stream(work(), caption_events, caption_error_events, lambda answer: {}, "r")
        body = response.body_iterator
        assert isinstance(body, AsyncIterator)
        assert await anext(body) == b": ping\n\n"
        await body.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert cancelled == [True]
