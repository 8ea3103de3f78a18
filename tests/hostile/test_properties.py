"""What holds for all bytes, tried on some thousand that nobody thought of."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from echo_captioner import EchoCaptioner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient

from app.images import ImageLimits, decode_image
from hostile.asking import ask
from hostile.inputs import CAPTIONED, CAPTIONS, CHAT, SEARCH, HostileInput, document, form_part
from hostile.other_files import SIGNATURES
from hostile.photos import FORMATS, photo
from hostile.test_corpus import SECONDS, check
from retrieval.errors import ImageTooLargeError, InvalidImageError

LIMITS = ImageLimits(max_bytes=200_000, max_pixels=300_000, max_side=200)
PHOTO = encode(plain(), "PNG")
many = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with service_client(EchoCaptioner(), max_image_bytes=200_000, max_body_bytes=1_000_000) as client:
        yield client


def decoded_or_refused(data: bytes) -> None:
    try:
        decoded = decode_image(data, LIMITS)
    except ImageTooLargeError as error:
        refused, status = str(error), error.status
    except InvalidImageError as error:
        refused, status = str(error), error.status
    else:
        assert decoded.image.mode == "RGB"
        assert 0 < max(decoded.image.size) <= LIMITS.max_side
        assert 0 < decoded.width * decoded.height <= LIMITS.max_pixels
        assert decoded.image.info == {}
        return
    assert refused.isprintable()
    assert status in (413, 422)


@settings(many, max_examples=400)
@given(st.sampled_from([b"", *SIGNATURES.values()]), st.binary(max_size=2000))
def test_any_bytes_are_a_picture_or_refused(signature: bytes, rest: bytes) -> None:
    decoded_or_refused(signature + rest)


@settings(many, max_examples=800)
@given(st.data())
def test_changed_photos_are_pictures_or_refused(data: st.DataObject) -> None:
    file = bytearray(photo(data.draw(st.sampled_from(FORMATS)), 40))
    for _ in range(data.draw(st.integers(1, 8))):
        reach = data.draw(st.sampled_from([64, 400, len(file)]))
        start = data.draw(st.integers(0, min(reach, len(file))))
        change = data.draw(st.sampled_from(["replace", "insert", "remove", "repeat"]))
        piece = data.draw(st.binary(min_size=1, max_size=8))
        match change:
            case "replace":
                file[start : start + len(piece)] = piece
            case "insert":
                file[start:start] = piece
            case "remove":
                del file[start : start + len(piece)]
            case "repeat":
                file[start:start] = file[start : start + 100]
    decoded_or_refused(bytes(file))


@settings(many, max_examples=200)
@given(st.integers(0, 2**32), st.integers(0, 2**32), st.sampled_from(["PNG", "BMP", "GIF", "TIFF"]))
def test_any_size_in_a_header_is_within_the_limits_or_refused(width: int, height: int, format: str) -> None:
    file = io.BytesIO(encode(plain(), format))
    place, bytes_each, order = {"PNG": (16, 4, "big"), "BMP": (18, 4, "little"), "GIF": (6, 2, "little")}.get(
        format, (18, 4, "little")
    )
    file.seek(place)
    for side in (width, height):
        file.write((side % 256**bytes_each).to_bytes(bytes_each, "big" if order == "big" else "little"))
    decoded_or_refused(file.getvalue())


def answered(client: TestClient, request: HostileInput) -> str:
    answer = ask(client, request)
    assert answer.seconds < SECONDS
    return check(request, answer)


names = st.sampled_from([b"image", b"language", b"num_captions", b"beams", b"seed"]) | st.binary(max_size=20)
parts = st.builds(
    lambda name, file, content, more: form_part(
        b'; name="' + name + b'"' + (b'; filename="a"' if file else b""), content, *more
    ),
    names,
    st.booleans(),
    st.sampled_from([PHOTO, b"es", b"2"]) | st.binary(max_size=200),
    st.lists(st.binary(max_size=30), max_size=2),
)


@settings(many, max_examples=250)
@given(
    st.lists(parts | st.binary(max_size=60), max_size=5),
    st.sampled_from([b"--x--\r\n", b"--x--", b"", b"--x"]) | st.binary(max_size=10),
    st.sampled_from([b"x", b'"x"']) | st.binary(max_size=20),
    st.integers(1, 500),
)
def test_any_form_is_answered(
    client: TestClient, pieces: list[bytes], end: bytes, boundary: bytes, chunk: int
) -> None:
    content_type = b"multipart/form-data; boundary=" + boundary
    answered(client, HostileInput("form", b"".join(pieces) + end, content_type, chunk=chunk))


values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just("data:;base64,AAAA"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
members = st.sampled_from(
    [
        "images",
        "languages",
        "num_captions",
        "temperature",
        "seed",
        "messages",
        "model",
        "n",
        "stream",
        "text",
        "k",
    ]
)


@settings(many, max_examples=400)
@given(st.sampled_from([CAPTIONS, CHAT, SEARCH]), st.dictionaries(members | st.text(), values, max_size=6))
def test_any_document_is_answered(client: TestClient, path: str, body: dict[str, Any]) -> None:
    answered(client, document("document", json.dumps(body).encode(), path))


@settings(many, max_examples=250)
@given(st.sampled_from([CAPTIONS, CHAT, SEARCH]), st.binary(max_size=300), st.binary(max_size=40))
def test_any_body_of_any_type_is_answered(
    client: TestClient, path: str, body: bytes, content_type: bytes
) -> None:
    answered(client, HostileInput("body", body, content_type, path))
    answered(client, HostileInput("body", body, b"application/json", path))


@settings(many, max_examples=300)
@given(
    st.binary(max_size=80) | st.text(alphabet="languge=&%0123456789,;+ab", max_size=80).map(str.encode),
    st.lists(
        st.tuples(st.sampled_from([b"accept-language", b"accept", b"if-none-match"]), st.binary(max_size=60))
    ),
)
def test_any_query_and_headers_are_answered(
    client: TestClient, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    request = HostileInput("query", PHOTO, b"image/png", query=query, headers=tuple(headers))
    assert answered(client, request) in {CAPTIONED, "invalid_request", "unknown_language"}
