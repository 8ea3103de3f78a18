"""How a chat is read: which images, which language, which settings."""

import base64
from typing import Any

import pytest
from echo_captioner import EchoCaptioner
from pydantic import BaseModel
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient

from app.api.datastore_schemas import DatastoreDescription, SearchBody, SearchReply
from app.api.openapi_examples import CAPTION_BODY, CAPTION_REPLY
from app.chat.model_routes import ModelEntry
from app.chat.schemas import ChatChunk, ChatCompletion, ChatRequest
from app.schemas import CaptionBody, CaptionReply
from models.captions import CaptionSettings


def image(color: tuple[int, int, int]) -> dict[str, Any]:
    data = base64.b64encode(encode(plain(color), "PNG")).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "high"}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


RED, DARK = image((200, 40, 10)), image((1, 2, 3))


def chat(client: TestClient, *messages: Any, headers: dict[str, str] | None = None, **members: object) -> Any:
    body = {"model": "echo", "messages": list(messages) or [user(RED)]} | members
    return client.post("/v1/chat/completions", json=body, headers=headers)


def content(response: Any) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("words", "members", "header", "caption"),
    [
        ("Describe it in German", {"language": "es"}, "pt", "imagen 200,40,10"),
        ("Describe it", {"language": "Spanish"}, "pt", "imagen 200,40,10"),
        ("Describe it", {}, "pt", "foto 200,40,10"),
        ("Describe it", {}, "", "picture 200,40,10"),
    ],
)
def test_the_language(
    client: TestClient, words: str, members: dict[str, str], header: str, caption: str
) -> None:
    response = chat(client, user(text(words), RED), headers={"accept-language": header}, **members)
    assert content(response) == caption


def test_a_conversation_about_the_same_photo(client: TestClient) -> None:
    conversation = [
        {"role": "system", "content": "You answer in German."},
        user(text("What is this?"), DARK),
        {"role": "assistant", "content": "Bild, in English: picture"},
        user(text("And this?"), RED),
        {"role": "assistant", "content": [{"type": "text", "text": "Bild"}]},
    ]
    assert content(chat(client, *conversation, {"role": "user", "content": "More!"})) == "Bild 200,40,10"
    again = {"role": "user", "content": "Now in Portuguese, please"}
    assert content(chat(client, *conversation, again)) == "foto 200,40,10"


@pytest.mark.parametrize(
    ("members", "settings"),
    [
        ({}, {}),
        ({"temperature": 0}, {}),
        ({"temperature": 0, "top_p": 0.5}, {}),
        ({"top_p": 1}, {}),
        ({"temperature": 1}, {"temperature": 1.0}),
        ({"temperature": 0.7, "top_p": 0.9, "seed": 5}, {"temperature": 0.7, "top_p": 0.9, "seed": 5}),
        ({"top_p": 0.3}, {"temperature": 1.0, "top_p": 0.3}),
        ({"temperature": 1, "top_p": 0}, {}),
        ({"seed": -1}, {"seed": 2**32 - 1}),
        ({"max_tokens": 300}, {"max_tokens": 64}),
        ({"max_completion_tokens": 20, "max_tokens": 30}, {"max_tokens": 20}),
        ({"neighbours": 0, "beams": 4, "max_length": 100}, {"neighbours": 0, "beams": 4, "max_length": 100}),
        ({"rerank": True}, {"rerank": True}),
        ({"neutral": True}, {"neutral": True}),
        ({"n": 3}, {"num_captions": 3}),
        ({"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto"}, {}),
        ({"tools": [], "logprobs": False, "response_format": {"type": "text"}, "stop": None}, {}),
        ({"presence_penalty": 0, "logit_bias": {}, "modalities": ["text"], "n": None}, {}),
    ],
)
def test_what_parameters_mean(
    client: TestClient, captioner: EchoCaptioner, members: dict[str, Any], settings: dict[str, Any]
) -> None:
    assert chat(client, **members).status_code == 200
    assert captioner.calls == [(1, CaptionSettings(("en",), **settings))]


@pytest.mark.parametrize(
    ("members", "status", "code", "hint"),
    [
        ({"temperature": 3}, 400, "invalid_request", "temperature"),
        ({"n": 9}, 400, "invalid_request", "n: "),
        ({"max_tokens": 0}, 400, "invalid_request", "max_tokens"),
        ({"beams": 2, "temperature": 1}, 400, "invalid_request", "beams and temperature"),
        ({"temprature": 1}, 400, "unsupported_parameter", "did you mean temperature?"),
        ({"tools": [{}]}, 400, "unsupported_parameter", "tools"),
        ({"language": "klingon"}, 400, "unknown_language", "Klingon"),
        ({"model": "other"}, 404, "model_not_found", "'other'"),
        ({"messages": "x"}, 400, "invalid_request", "messages"),
        ({"messages": [user({"type": "input_audio"})]}, 400, "invalid_request", "messages"),
        ({"messages": [user(*[RED] * 17)]}, 400, "invalid_request", "16"),
        ({"messages": [user(RED, text("x" * 50_001))]}, 400, "invalid_request", "50,000"),
        ({"messages": [{"role": "assistant", "content": [RED]}]}, 400, "no_image", "image_url"),
    ],
)
def test_chats_that_are_none(
    client: TestClient, members: dict[str, Any], status: int, code: str, hint: str
) -> None:
    problem = chat(client, **members).json()
    assert (problem["status"], problem["code"], problem["error"]["code"]) == (status, code, code)
    assert hint in problem["detail"]
    assert problem["error"]["message"] == problem["detail"]


def test_bodies_that_are_no_json(client: TestClient) -> None:
    for body, content_type, status, code in (
        (b"{", "application/json", 400, "invalid_body"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
    ):
        response = client.post("/v1/chat/completions", content=body, headers={"content-type": content_type})
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_finish_reason_tells_of_the_limit_on_tokens(client: TestClient) -> None:
    for most, reason in ((2, "length"), (3, "stop")):  # the echo captioner's caption has two words
        assert chat(client, max_tokens=most).json()["choices"][0]["finish_reason"] == reason


def test_errors_that_ask_to_come_again_say_when(captioner: EchoCaptioner) -> None:
    with service_client(captioner) as client:
        service = client.app.state.service  # type: ignore[attr-defined]
        service.holder.facts = None
        response = chat(client)
    assert (response.status_code, response.json()["error"]["type"]) == (503, "server_error")
    assert int(response.headers["retry-after"]) >= 1


def test_chats_and_captions_share_the_cache(captioner: EchoCaptioner) -> None:
    with service_client(captioner, cache_bytes=1_000_000) as client:
        first, second = chat(client), chat(client)
        assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
        assert first.json() == second.json()
        assert second.headers["x-paellera-model"] == "echo@r1"
        streamed = chat(client, stream=True)
        assert streamed.headers["x-cache"] == "hit"
        assert first.json()["id"] in streamed.text
    assert len(captioner.calls) == 1


def test_a_retry_gets_the_first_completion(captioner: EchoCaptioner) -> None:
    with service_client(captioner) as client:
        key = {"idempotency-key": "k"}
        assert chat(client, headers=key).json() == chat(client, headers=key).json()
        conflict = chat(client, headers=key, n=2)
        assert conflict.json()["error"]["code"] == "idempotency_conflict"
    assert len(captioner.calls) == 1


def test_openapi_has_examples(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/chat/completions"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert client.post("/v1/chat/completions", json=schema["examples"][0]).status_code in (400, 404)
    assert {"model", "messages", "stream", "language"} <= set(schema["properties"])
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    problem = operation["responses"]["400"]["content"]["application/problem+json"]["schema"]
    assert "error" in problem["properties"]
    assert "$defs" not in str(operation)
    captions = document["paths"]["/v1/captions"]["post"]["responses"]["200"]
    assert set(captions["content"]) == {"application/json", "text/event-stream"}
    assert captions["content"]["application/json"]["schema"]["$ref"].endswith("/CaptionReply")
    assert {"X-Paellera-Model", "X-Paellera-Datastore", "X-Cache", "ETag"} == set(captions["headers"])


@pytest.mark.parametrize(
    "model",
    [ChatRequest, ChatCompletion, ChatChunk, ModelEntry, DatastoreDescription, SearchBody, SearchReply],
)
def test_the_examples_are_what_they_show(model: type[BaseModel]) -> None:
    for example in model.model_json_schema()["examples"]:
        again = model.model_validate(example).model_dump(mode="json", exclude_unset=True)
        assert again == example
    assert CaptionReply.model_validate(CAPTION_REPLY).model_dump() == CAPTION_REPLY
    CaptionBody.model_validate(CAPTION_BODY)
