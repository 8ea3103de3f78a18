"""OpenAI's own client against a running server: what programs written for it will see."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from echo_captioner import EchoCaptioner
from live_service import live_service
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from sample_pictures import encode, plain

from app.api import event_streams
from models.captions import CaptionSettings
from retrieval.errors import InvalidImageError


def data_url(color: tuple[int, int, int]) -> str:
    return "data:image/png;base64," + base64.b64encode(encode(plain(color), "PNG")).decode()


def asking(text: str, *urls: str) -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *images]}]


RED, DARK = data_url((200, 40, 10)), data_url((1, 2, 3))
DESCRIBE = asking("Describe this photo in Spanish.", RED)


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[EchoCaptioner, str]]:
    captioner = EchoCaptioner()
    with live_service(captioner) as address:
        yield captioner, address


@pytest.fixture
def captioner(service: tuple[EchoCaptioner, str]) -> EchoCaptioner:
    service[0].calls.clear()
    return service[0]


@pytest.fixture
def client(service: tuple[EchoCaptioner, str]) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service[1]}/v1", api_key="none needed", max_retries=0) as client:
        yield client


def test_a_photo_is_described(client: OpenAI, captioner: EchoCaptioner) -> None:
    completion = client.chat.completions.create(model="echo", messages=DESCRIBE)
    (choice,) = completion.choices
    assert (choice.index, choice.message.role, choice.finish_reason) == (0, "assistant", "stop")
    assert choice.message.content == "imagen 200,40,10"
    assert completion.object == "chat.completion"
    assert completion.model == "echo@r1"
    assert completion.id.startswith("chatcmpl-")
    assert completion.created > 1_700_000_000
    assert completion.usage is not None
    # The echo captioner's tokens are words: five were asked with, two came back.
    counted = completion.usage
    assert (counted.prompt_tokens, counted.completion_tokens, counted.total_tokens) == (5, 2, 7)
    assert captioner.calls == [(1, CaptionSettings(("es",)))]


def test_several_images_give_a_line_each(client: OpenAI, captioner: EchoCaptioner) -> None:
    messages = asking("Beschreibe sie auf Deutsch", RED, DARK)
    completion = client.chat.completions.create(model="echo@r1", messages=messages)
    assert completion.choices[0].message.content == "Bild 200,40,10\nBild 1,2,3"
    assert captioner.calls == [(2, CaptionSettings(("de",)))]


def test_several_choices(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="echo", messages=asking("in English", RED, DARK), n=2)
    assert [(choice.index, choice.message.content) for choice in completion.choices] == [
        (0, "picture 200,40,10\npicture 1,2,3"),
        (1, "picture 200,40,10 #1\npicture 1,2,3 #1"),
    ]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 2 + 2 + 3 + 3


def joined(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    return "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == index
    )


def test_streaming(client: OpenAI) -> None:
    with client.chat.completions.create(model="echo", messages=DESCRIBE, stream=True) as stream:
        chunks = list(stream)
    assert joined(chunks) == "imagen 200,40,10"
    assert [choice.delta.content for chunk in chunks for choice in chunk.choices] == [
        "",
        "imagen",
        " 200,40,10",
        None,
    ]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {
        (chunks[0].id, "chat.completion.chunk", "echo@r1")
    }
    assert all(chunk.usage is None for chunk in chunks)


def test_streaming_choices_with_usage(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="echo",
        messages=asking("用中文", RED),
        stream=True,
        n=2,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert [joined(chunks, index) for index in range(2)] == ["图片 200,40,10", "图片 200,40,10 #1"]
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens == 1 + 5


def test_a_slow_stream_is_kept_alive_and_fails_readably(
    client: OpenAI, captioner: EchoCaptioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "KEEPALIVE_SECONDS", 0.05)
    for failure in (None, InvalidImageError("the photo is damaged")):
        captioner.gate, captioner.fail = threading.Event(), failure
        threading.Timer(0.4, captioner.gate.set).start()
        try:
            stream = client.chat.completions.create(model="echo", messages=DESCRIBE, stream=True)
            if failure is None:
                assert joined(list(stream)) == "imagen 200,40,10"
            else:
                with pytest.raises(openai.APIError, match="the photo is damaged"):
                    list(stream)
        finally:
            captioner.gate = captioner.fail = None


def test_the_asynchronous_client(service: tuple[EchoCaptioner, str]) -> None:
    async def ask() -> list[str]:
        async with AsyncOpenAI(base_url=f"{service[1]}/v1", api_key="none", max_retries=0) as client:
            whole, stream = await asyncio.gather(
                client.chat.completions.create(model="echo", messages=DESCRIBE),
                client.chat.completions.create(model="echo", messages=DESCRIBE, stream=True),
            )
            return [whole.choices[0].message.content or "", joined([chunk async for chunk in stream])]

    assert asyncio.run(ask()) == ["imagen 200,40,10"] * 2


def test_models(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == ("echo", "model", "paellera")
    assert model.to_dict()["revision"] == "r1"
    assert model.to_dict()["languages"] == ["ar", "de", "en", "es", "pt", "zh"]
    assert client.models.retrieve("echo@r1") == model
    with pytest.raises(openai.NotFoundError, match="'gpt-9'"):
        client.models.retrieve("gpt-9")


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (asking("no image here"), "no_image"),
        (asking("Describe", "https://example.org/cat.jpg"), "url_not_allowed"),
        (asking("Describe", "data:image/png;base64,QUJD"), "invalid_image"),
        (asking("Describe it in Japanese", RED), "unknown_language"),
        ([{"role": "tool", "tool_call_id": "1", "content": "x"}], "invalid_request"),
        ([], "invalid_request"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_requests(client: OpenAI, messages: list[Any], code: str, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=messages, stream=stream)
    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"
    assert caught.value.status_code == 400
    assert caught.value.response.headers["content-type"] == "application/problem+json"
    problem: Any = caught.value.response.json()
    assert (problem["status"], problem["code"]) == (400, code)
    assert problem["error"]["message"] == problem["detail"]
    assert problem["detail"] in str(caught.value)


def test_what_a_captioner_cannot_do_is_refused_by_name(client: OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "f"}}
    for refused in (
        {"tools": [tool]},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"stop": "\n"},
        {"presence_penalty": 0.5},
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="echo", messages=DESCRIBE, extra_body=refused)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", next(iter(refused)))


def test_an_unknown_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="this server has 'echo'") as caught:
        client.chat.completions.create(model="gpt-4o", messages=DESCRIBE)
    assert caught.value.code == "model_not_found"


def test_a_body_that_is_too_large() -> None:
    with (
        live_service(EchoCaptioner(), max_body_bytes=1000) as address,
        OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.chat.completions.create(model="echo", messages=asking("x" * 2000, RED))
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")


def test_a_failure_inside(client: OpenAI, captioner: EchoCaptioner) -> None:
    captioner.fail = RuntimeError("hunter2")
    try:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model="echo", messages=DESCRIBE)
    finally:
        captioner.fail = None
    assert caught.value.code == "internal_error"
    assert "hunter2" not in str(caught.value)
