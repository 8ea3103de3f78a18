"""What the corpus is made of: a hostile request, and a class of them with the answers they may get.

The classes are data: tests/hostile/test_corpus.py sends them, docs/errors.md lists them, and the fuzz targets
begin with their bodies.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

CAPTIONED = "200"  # the answer of what is legitimately readable; every other answer is the code of a problem
CAPTIONS, CHAT, SEARCH = "/v1/captions", "/v1/chat/completions", "/v1/datastore/search"

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class HostileInput:
    """One request, as bytes: nothing between the corpus and the service puts it right."""

    name: str
    body: bytes = b""
    content_type: bytes | None = b"image/jpeg"
    path: str = CAPTIONS
    query: bytes = b""
    headers: Headers = ()  # besides Content-Type and Content-Length
    method: str = "POST"
    chunk: int = 1_000_000  # bytes of the body that arrive at a time
    content_length: bytes | None = None  # None: the true one


@dataclass(frozen=True)
class HostileClass:
    """Inputs of one kind. `answers` are those that its inputs get: each of them, and no other."""

    name: str
    description: str  # one line, as docs/errors.md shows it
    answers: frozenset[str]
    make: Callable[[], Iterator[HostileInput]]


def hostile(
    description: str, *answers: str
) -> Callable[[Callable[[], Iterator[HostileInput]]], HostileClass]:
    """A decorator: the function makes the inputs of a class that has its name."""

    def declare(make: Callable[[], Iterator[HostileInput]]) -> HostileClass:
        name = make.__name__.strip("_").replace("_", " ")
        return HostileClass(name, description, frozenset(answers), make)

    return declare


def form_part(disposition: bytes, content: bytes, *more_headers: bytes, boundary: bytes = b"x") -> bytes:
    """One part of a multipart body; `disposition` is what follows `form-data`."""
    headers = b"\r\n".join([b"Content-Disposition: form-data" + disposition, *more_headers])
    return b"--" + boundary + b"\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def photo_part(content: bytes, *more_headers: bytes, filename: bytes = b"a.jpg") -> bytes:
    return form_part(b'; name="image"; filename="' + filename + b'"', content, *more_headers)


def form(name: str, *parts: bytes, end: bytes = b"--x--\r\n", boundary: bytes = b"x") -> HostileInput:
    return HostileInput(name, b"".join(parts) + end, b"multipart/form-data; boundary=" + boundary)


def document(name: str, body: bytes | object, path: str = CAPTIONS) -> HostileInput:
    """JSON: bytes go as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HostileInput(name, content, b"application/json", path)


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def data_url(data: bytes, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{in_base64(data)}"
