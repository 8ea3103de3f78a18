"""Requests as bytes on a connection, and what comes back: HTTP without a library that would keep it tidy."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_BOUNDARY = b"----soak"


@dataclass(frozen=True)
class Request:
    """A whole request; `name` says in reports what it was."""

    name: str
    head: bytes  # with the empty line
    body: bytes
    languages: tuple[str, ...] = ()  # of the captions that must come

    @property
    def bytes(self) -> bytes:
        return self.head + self.body


@dataclass(frozen=True)
class Response:
    status: int  # 0: the connection ended without an answer
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def get(path: str) -> Request:
    return _request("GET", path, {}, b"")


def post_json(path: str, document: Any, *, accept: str = "application/json") -> Request:
    body = json.dumps(document).encode()
    return _request("POST", path, {"Content-Type": "application/json", "Accept": accept}, body)


def post_image(photo: bytes, languages: Sequence[str], query: str = "") -> Request:
    asked = "&".join([*(f"language={language}" for language in languages), *([query] if query else [])])
    request = _request("POST", f"/v1/captions?{asked}", {"Content-Type": "image/*"}, photo)
    return Request("raw image", request.head, request.body, tuple(languages))


def post_form(photos: Sequence[bytes], fields: Sequence[tuple[str, str]]) -> Request:
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields]
    parts += [b'name="image"; filename="photo"\r\n\r\n' + photo for photo in photos]
    disposition = b"--" + _BOUNDARY + b"\r\nContent-Disposition: form-data; "
    body = b"".join(disposition + part + b"\r\n" for part in parts) + b"--" + _BOUNDARY + b"--\r\n"
    content_type = f"multipart/form-data; boundary={_BOUNDARY.decode()}"
    request = _request("POST", "/v1/captions", {"Content-Type": content_type}, body)
    languages = tuple(value for name, value in fields if name == "language")
    return Request("form", request.head, request.body, languages)


def post_chat(photo: bytes, model: str, text: str, *, stream: bool) -> Request:
    url = "data:image/jpeg;base64," + base64.b64encode(photo).decode()
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    document = {"model": model, "messages": [{"role": "user", "content": content}], "stream": stream}
    request = post_json("/v1/chat/completions", document)
    return Request("chat stream" if stream else "chat", request.head, request.body)


async def ask(host: str, port: int, request: Request, patience: float = 120.0) -> Response:
    """Send it on a connection of its own and take the whole answer. Raises OSError or TimeoutError."""
    async with asyncio.timeout(patience):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(request.bytes)
            return await read_response(reader)
        finally:
            writer.close()


async def read_response(reader: asyncio.StreamReader) -> Response:
    """The next answer on a connection, by its length or its chunks."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return Response(0, {}, b"")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if headers.get("transfer-encoding") == "chunked":
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Response(int(first.split(" ")[1]), headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return body


def _request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
    lines = [f"{method} {path} HTTP/1.1", "Host: service"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return Request(f"{method} {path.partition('?')[0]}", "\r\n".join([*lines, "", ""]).encode(), body)
