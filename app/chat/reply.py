"""Captions as OpenAI's chat completions, whole or in chunks."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import regex
from fastapi.sse import format_sse_event
from pydantic import BaseModel

from app.api.reply_cache import Answer
from app.chat.errors import openai_error
from app.chat.schemas import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatUsage,
    ChoiceDelta,
    ChoiceMessage,
    ChunkChoice,
)
from app.schemas import CaptionReply

DONE = format_sse_event(data_str="[DONE]")
_PIECE = regex.compile(r"\s*(?:\p{Han}|[^\s\p{Han}]+)")


@dataclass(frozen=True)
class Completion:
    """What a chat completion says, before it has a form."""

    id: str
    created: int
    model: str
    contents: tuple[str, ...]  # of the choices
    finish_reasons: tuple[Literal["stop", "length"], ...]
    usage: ChatUsage


def captions_of(reply: CaptionReply, choices: int) -> list[list[str]]:
    """For each choice its captions, one for each image; where there are too few, the last stands again."""
    found = [
        [caption.text, *(other.text for other in caption.alternatives)]
        for image in reply.images
        for caption in image.captions
    ]
    return [[texts[min(choice, len(texts) - 1)] for texts in found] for choice in range(choices)]


def make_completion(
    answer: Answer,
    captions: Sequence[Sequence[str]],
    counts: Sequence[int],
    texts: int,
    max_tokens: int | None,
) -> Completion:
    """`counts` are the tokens of the texts asked with, `texts` in number, then those of the captions.

    `max_tokens` is the limit that the caller has set.
    """
    reply = answer.reply.document
    prompt_tokens, of_captions, images = sum(counts[:texts]), counts[texts:], len(captions[0])
    tokens = [of_captions[start : start + images] for start in range(0, len(of_captions), images)]
    written = sum(of_captions)
    return Completion(
        id=f"chatcmpl-{reply.id.removeprefix('cap-')}",
        created=answer.reply.created,
        model=f"{reply.model.bundle}@{reply.model.revision}",
        contents=tuple("\n".join(texts) for texts in captions),
        finish_reasons=tuple(
            "length" if max_tokens is not None and max(here) >= max_tokens else "stop" for here in tokens
        ),
        usage=ChatUsage(
            prompt_tokens=prompt_tokens, completion_tokens=written, total_tokens=prompt_tokens + written
        ),
    )


def whole_completion(completion: Completion) -> ChatCompletion:
    return ChatCompletion(
        id=completion.id,
        created=completion.created,
        model=completion.model,
        choices=[
            ChatChoice(index=index, message=ChoiceMessage(content=content), finish_reason=reason)
            for index, (content, reason) in enumerate(
                zip(completion.contents, completion.finish_reasons, strict=True)
            )
        ],
        usage=completion.usage,
    )


def completion_events(completion: Completion, include_usage: bool) -> Iterator[bytes]:
    """The chunks: for each choice its role, its words and why it ended; then `usage` if wanted; `[DONE]`."""

    def event(choices: list[ChunkChoice], usage: ChatUsage | None = None) -> bytes:
        chunk = ChatChunk(
            id=completion.id, created=completion.created, model=completion.model, choices=choices, usage=usage
        )
        return _event(chunk, exclude=None if include_usage else {"usage"})

    for index, (content, reason) in enumerate(
        zip(completion.contents, completion.finish_reasons, strict=True)
    ):
        yield event([ChunkChoice(index=index, delta=ChoiceDelta(role="assistant", content=""))])
        for piece in _PIECE.findall(content):
            yield event([ChunkChoice(index=index, delta=ChoiceDelta(content=piece))])
        yield event([ChunkChoice(index=index, delta=ChoiceDelta(), finish_reason=reason)])
    if include_usage:
        yield event([], completion.usage)
    yield DONE


def completion_error_events(problem: bytes) -> Iterable[bytes]:
    """The error as OpenAI's clients find it in a stream, and the end."""
    document = json.loads(problem)
    document["error"] = openai_error(document)
    yield format_sse_event(data_str=json.dumps(document, ensure_ascii=False))
    yield DONE


def _event(document: BaseModel, exclude: set[str] | None) -> bytes:
    return format_sse_event(data_str=document.model_dump_json(exclude=exclude))
