"""What is asked in a soak: good requests of every kind, with what their answers must be, and bad ones.

Drawn by a seed. A bad request is whole HTTP with something in it that the service has to refuse by itself.
"""

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from benchmarks.wire import (
    Request,
    Response,
    get,
    post_chat,
    post_form,
    post_image,
    post_json,
)

Check = Callable[[Response], bool]
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_LONGEST_SIDE = 800


@dataclass(frozen=True)
class Asked:
    """A request, and whether an answer of status 200 (of a bad one: 4xx) is the right one."""

    name: str
    request: Request
    is_right: Check


class Traffic:
    """Requests for one service.

    Args:
        photos: files; they are sent as they are and in other formats.
        languages: codes that the service captions in.
        model: its bundle's name.
    """

    def __init__(
        self, photos: Sequence[bytes], languages: Sequence[str], model: str, draw: random.Random
    ) -> None:
        self._draw = draw
        self._photos = [*photos, *(as_format(photo, kind) for photo in photos[:2] for kind in _FORMATS)]
        self._languages = list(languages)
        self._model = model

    def good(self) -> Asked:
        kinds = [self._raw, self._form, self._json, self._events, self._chat, self._search, self._look]
        return self._draw.choices(kinds, weights=(35, 20, 15, 8, 10, 6, 6))[0]()

    def bad(self) -> Asked:
        name, request = self._draw.choice(list(self._refused().items()))
        return Asked(name, request, is_refused)

    def victims(self) -> list[Request]:
        """Good requests for clients that will spoil them."""
        return [self.good().request for _ in range(40)]

    def _photo(self) -> bytes:
        return self._draw.choice(self._photos)

    def _some(self, most: int) -> list[str]:
        return self._draw.sample(self._languages, self._draw.randint(1, most))

    def _sampling(self) -> str:
        """Half of the requests have been asked before, or may have been; the other half surely have not."""
        if self._draw.random() < 0.5:
            return ""
        return f"temperature=0.7&seed={self._draw.randrange(2**32)}"

    def _raw(self) -> Asked:
        languages = self._some(1)
        request = post_image(self._photo(), languages, self._sampling())
        return Asked("raw image", request, captions_in(languages, 1))

    def _form(self) -> Asked:
        photos = [self._photo() for _ in range(self._draw.choice((1, 1, 2)))]
        languages = self._some(3)
        fields = [("language", language) for language in languages]
        fields += [tuple(pair.split("=")) for pair in self._sampling().split("&") if pair]  # type: ignore[misc]
        return Asked("form", post_form(photos, fields), captions_in(languages, len(photos)))

    def _json(self) -> Asked:
        languages = self._some(2)
        document = {
            "images": [{"base64": base64.b64encode(self._photo()).decode()}],
            "languages": languages,
            "neighbours": self._draw.choice((0, 3)),
            **self._draw.choice(
                ({"num_captions": 3}, {"max_length": 40}, {"explain": True}, {"beams": 1}, {"rerank": True})
            ),
        }
        return Asked("JSON", post_json("/v1/captions", document), captions_in(languages, 1))

    def _events(self) -> Asked:
        languages = self._some(2)
        document = {
            "images": [{"base64": base64.b64encode(self._photo()).decode()}],
            "languages": languages,
            "temperature": 0.7,
            "seed": self._draw.randrange(2**32),
        }
        request = post_json("/v1/captions", document, accept="text/event-stream")

        def is_right(response: Response) -> bool:
            text = response.body.decode()
            return text.count("event: caption") == len(languages) and text.count("event: reply") == 1

        return Asked("events", request, is_right)

    def _chat(self) -> Asked:
        stream = self._draw.random() < 0.5
        request = post_chat(self._photo(), self._model, "Describe it in German.", stream=stream)
        if stream:
            return Asked("chat stream", request, lambda response: b"[DONE]" in response.body)
        return Asked(
            "chat", request, lambda response: bool(response.json["choices"][0]["message"]["content"])
        )

    def _search(self) -> Asked:
        query = self._draw.choice(
            (
                {"text": self._draw.choice(("a dog on a beach", "un gato", "街道", "велосипед"))},
                {"image": {"base64": base64.b64encode(self._photo()).decode()}},
            )
        )
        request = post_json("/v1/datastore/search", {**query, "k": 3})
        return Asked("search", request, lambda response: len(response.json["neighbours"]) > 0)

    def _look(self) -> Asked:
        paths = ("/v1/languages", "/v1/models", "/v1/datastore", "/readyz", "/livez", "/metrics", "/docs")
        path = self._draw.choice((*paths, "/openapi.json"))
        return Asked("look", get(path), lambda response: len(response.body) > 10)

    def _refused(self) -> dict[str, Request]:
        photo = self._photo()
        cut = photo[: self._draw.randrange(1, max(2, len(photo) // 2))]
        deep = b'{"images": ' + b"[" * 20_000
        big = post_image(photo, ["en"])
        return {
            "cut photo": post_image(cut, ["en"]),
            "noise": post_image(self._draw.randbytes(5000), ["en"]),
            "no photo": post_image(b"", ["en"]),
            "photo of many pixels": post_image(_announces(60_000, 60_000), ["en"]),
            "unknown language": post_image(photo, ["tlh"]),
            "unknown parameter": post_image(photo, ["en"], "colour=blue"),
            "wrong parameter": post_image(photo, ["en"], "beams=99"),
            "too many photos": post_form([photo[:100]] * 17, [("language", "en")]),
            "a form that breaks off": _cut(post_form([photo], [("language", "en")])),
            "no JSON": _body(post_json("/v1/captions", {}), b'{"images": [{"base64": "'),
            "deep JSON": _body(post_json("/v1/captions", {}), deep),
            "no base64": post_json("/v1/captions", {"images": [{"base64": "*" * 1000}]}),
            "an address": post_json("/v1/captions", {"images": [{"url": "http://169.254.169.254/"}]}),
            "chat with tools": post_json(
                "/v1/chat/completions",
                {"model": self._model, "messages": [{"role": "user", "content": "hi"}], "tools": [{}]},
            ),
            "empty search": post_json("/v1/datastore/search", {"text": ""}),
            "nowhere": get("/../../etc/passwd"),
            "too large": Request("too large", _length(big.head, len(photo), 10**9), b""),
        }


def captions_in(languages: Sequence[str], images: int) -> Check:
    """Each image has a caption in each of the languages, in their order, and none is empty."""

    def is_right(response: Response) -> bool:
        found = [
            [(one["language"], bool(one["text"])) for one in image["captions"]]
            for image in response.json["images"]
        ]
        return found == [[(language, True) for language in languages]] * images

    return is_right


def is_refused(response: Response) -> bool:
    """A problem document that says it is the caller's fault."""
    return (
        400 <= response.status < 500
        and response.headers.get("content-type") == "application/problem+json"
        and json.loads(response.body)["status"] == response.status
    )


def as_format(photo: bytes, kind: str) -> bytes:
    """The photo as a file of another format, at most so large as photos on web pages are."""
    with Image.open(io.BytesIO(photo)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def _announces(width: int, height: int) -> bytes:
    """A PNG that is small and says it has many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))


def _body(request: Request, body: bytes) -> Request:
    return Request(request.name, _length(request.head, len(request.body), len(body)), body)


def _cut(request: Request) -> Request:
    return _body(request, request.body[:-20])


def _length(head: bytes, right: int, wrong: int) -> bytes:
    return head.replace(b"Content-Length: %d" % right, b"Content-Length: %d" % wrong)
