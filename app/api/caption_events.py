"""POST /v1/captions as a stream: an event for each caption, one for the rest of the reply, or an error."""

import json
from collections.abc import Iterator

from fastapi.sse import format_sse_event

from app.api.reply_cache import Answer


def caption_events(answer: Answer) -> Iterator[bytes]:
    """`caption` for each image and language in their order, then `reply`: the reply without its captions."""
    document = json.loads(answer.reply.body)
    for number, image in enumerate(document["images"]):
        for caption in image.pop("captions"):
            yield _event("caption", {"image": number, **caption})
    yield _event("reply", document)


def caption_error_events(problem: bytes) -> Iterator[bytes]:
    """`error` with the problem document."""
    yield format_sse_event(event="error", data_str=problem.decode())


def _event(name: str, data: dict[str, object]) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(data, ensure_ascii=False))
