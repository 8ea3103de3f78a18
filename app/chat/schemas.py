"""The part of OpenAI's chat completions dialect that a captioner speaks: shapes, ranges and examples.

Names and spelling are OpenAI's, so that existing clients work. What a member means here is the knowledge of
app/chat/request.py; docstrings and descriptions end up in the OpenAPI document.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas import LanguageName

MAX_TEXT = 50_000  # characters of all messages together; they are read for the name of a language only

_EXAMPLE: dict[str, Any] = {
    "model": "compact",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Describe this photo in Spanish."},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQSkZJRg…"}},
            ],
        }
    ],
}


_REPLY: dict[str, Any] = {
    "id": "chatcmpl-5f0c7a1d9be24c6f8a3e1b7d",
    "object": "chat.completion",
    "created": 1795348800,
    "model": "compact@2a0e1d8e9f25",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Un gato duerme en una silla.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 8, "completion_tokens": 9, "total_tokens": 17},
}
_CHUNK: dict[str, Any] = {
    **_REPLY,
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "delta": {"content": " gato"}, "logprobs": None, "finish_reason": None}],
    "usage": None,
}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ImageAddress(_Part):
    url: str = Field(description="a data: URL with the file's bytes in base64")
    detail: str | None = Field(None, max_length=20, description="has no effect")


class TextPart(_Part):
    type: Literal["text"]
    text: str


class ImagePart(_Part):
    type: Literal["image_url"]
    image_url: ImageAddress


class RefusalPart(_Part):
    """What an assistant may have said before; has no effect."""

    type: Literal["refusal"]
    refusal: str


ContentPart = Annotated[TextPart | ImagePart | RefusalPart, Field(discriminator="type")]


class ChatMessage(_Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[ContentPart, ...] | None = Field(None, description="texts and images")


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    include_usage: bool | None = Field(None, description="ends the stream with a chunk that holds `usage`")


class ChatRequest(BaseModel):
    """A request for captions as a chat. Members of OpenAI's API that are missing here are in docs/http.md."""

    model_config = ConfigDict(extra="allow", frozen=True, json_schema_extra={"examples": [_EXAMPLE]})

    model: str = Field(max_length=200, description="the bundle, or bundle@revision; see /v1/models")
    messages: Annotated[tuple[ChatMessage, ...], Field(min_length=1, max_length=1000)] = Field(
        description="the last one that has images says which are captioned"
    )
    n: Annotated[int, Field(ge=1, le=8)] | None = Field(None, description="choices")
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = Field(
        None, description="left out or 0: the likeliest caption; else sampled"
    )
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="samples from the likeliest tokens that hold this probability"
    )
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        None, description="the same seed gives the same captions, also if there is none"
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="of a caption; 64 are the most")
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="as `max_tokens`")
    stream: bool | None = Field(None, description="reply with server-sent events")
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, description="has no effect")
    language: LanguageName | None = Field(
        None, description="not OpenAI's: a tag or a name, where the messages name no language"
    )
    neighbours: int | None = Field(None, ge=0, le=8, description="not OpenAI's: as in /v1/captions")
    beams: int | None = Field(None, ge=1, le=8, description="not OpenAI's: as in /v1/captions")
    max_length: int | None = Field(None, ge=1, le=1000, description="not OpenAI's: as in /v1/captions")
    rerank: bool | None = Field(None, description="not OpenAI's: as in /v1/captions")
    neutral: bool | None = Field(None, description="not OpenAI's: as in /v1/captions")


class ChoiceMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str = Field(description="the caption; of several images one a line, in their order")
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: ChoiceMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length"] = Field(
        description="`length`: a caption has all tokens it may have"
    )


class ChatUsage(BaseModel):
    """Tokens in the bundle's own vocabulary. Images count nothing."""

    prompt_tokens: int = Field(description="of the text in the messages")
    completion_tokens: int = Field(description="of the captions of all choices")
    total_tokens: int


class ChatCompletion(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_REPLY]})

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Unix time at which the captions were made")
    model: str = Field(description="bundle@revision")
    choices: list[ChatChoice]
    usage: ChatUsage


class ChoiceDelta(BaseModel):
    role: Literal["assistant"] | None = Field(None, exclude_if=lambda value: value is None)
    content: str | None = Field(None, exclude_if=lambda value: value is None)


class ChunkChoice(BaseModel):
    index: int
    delta: ChoiceDelta
    logprobs: None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(BaseModel):
    """An event of a stream; the last event is `[DONE]`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CHUNK]})

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: ChatUsage | None = Field(None, description="in the last chunk, with `include_usage`")
