"""Fuzz target: any multipart body is read, or refused by an InvalidRequestError. Needs the extra `fuzz`.

The first line of an input is its Content-Type, the rest arrives in two chunks.

    PYTHONPATH=tests python -m fuzz.forms build/fuzz/forms -max_total_time=300
"""

import asyncio
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import atheris

with atheris.instrument_imports():
    import python_multipart  # noqa: F401
    import starlette.formparsers  # noqa: F401

    from app.api import bodies
    from retrieval.errors import InvalidRequestError

from fastapi import Request

from app.settings import Settings

SETTINGS = Settings.model_validate({})
LOOP = asyncio.new_event_loop()


def read(data: bytes) -> None:
    """Anything but an InvalidRequestError that leaves here is a finding."""
    content_type, _, body = data.partition(b"\n")
    half = len(body) // 2
    chunks = iter([(body[:half], True), (body[half:], False)])

    async def receive() -> MutableMapping[str, Any]:
        chunk, more = next(chunks)
        return {"type": "http.request", "body": chunk, "more_body": more}

    kind = (
        content_type
        if content_type.startswith(b"multipart/form-data")
        else b"multipart/form-data; boundary=x"
    )
    scope = {"type": "http", "method": "POST", "query_string": b"", "headers": [(b"content-type", kind)]}
    try:
        asked = LOOP.run_until_complete(bodies.read_caption_request(Request(scope, receive), SETTINGS))
    except InvalidRequestError:
        return
    assert 0 < len(asked.images) <= SETTINGS.max_images


if __name__ == "__main__":
    logging.disable()  # the parser warns of every malformed byte
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
