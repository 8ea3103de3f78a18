"""A hostile request straight to the service: as an ASGI server would pass it on, and no politer.

A test client would refuse, complete or escape much of the corpus before it is sent.
"""

import json
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from starlette.testclient import TestClient

from hostile.inputs import HostileInput

PATIENCE = 60  # seconds after which an answer is not waited for any longer


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def ask(client: TestClient, request: HostileInput) -> Answer:
    """What the client's application answers. Raises TimeoutError."""
    assert client.portal is not None
    answer: Answer = client.portal.call(_ask, client.app, request)
    return answer


async def _ask(app: Any, request: HostileInput) -> Answer:
    answer, begun = Answer(), time.monotonic()
    chunks = _chunks(request)

    async def receive() -> dict[str, object]:
        message = next(chunks, None)
        if message is None:  # the connection stays open
            await anyio.sleep_forever()
        assert message is not None
        return message

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    with anyio.fail_after(PATIENCE):
        await app(_scope(request), receive, send)
    answer.seconds = time.monotonic() - begun
    return answer


def _scope(request: HostileInput) -> dict[str, object]:
    headers = [(name.lower(), value) for name, value in request.headers]
    if request.content_type is not None:
        headers.append((b"content-type", request.content_type))
    length = b"%d" % len(request.body) if request.content_length is None else request.content_length
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": request.query,
        "headers": [*headers, (b"host", b"testserver"), (b"content-length", length)],
        "client": ("192.0.2.1", 50_000),
        "server": ("testserver", 80),
    }


def _chunks(request: HostileInput) -> Iterator[dict[str, object]]:
    body = request.body
    for at in range(0, max(len(body), 1), request.chunk):
        chunk = body[at : at + request.chunk]
        yield {"type": "http.request", "body": chunk, "more_body": at + request.chunk < len(body)}
