"""The service with the shipped bundle behind it: the README's request, and input that nobody should send."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import skimage
from starlette.testclient import TestClient

from app.server import create_app
from app.settings import Settings

CAT = (Path(skimage.__file__).parent / "data" / "chelsea.png").read_bytes()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(settings=Settings(), wait_for_model=True)) as client:
        yield client


def test_the_three_kinds_of_body_give_the_same_captions(client: TestClient) -> None:
    multipart = client.post(
        "/v1/captions", files=[("image", ("cat.png", CAT, "image/png"))], data={"language": ["es", "ar"]}
    )
    raw = client.post(
        "/v1/captions?language=es&language=ar", content=CAT, headers={"content-type": "image/png"}
    )
    encoded = {"images": [{"base64": base64.b64encode(CAT).decode()}], "languages": ["es", "ar"]}
    json_body = client.post("/v1/captions", json=encoded)
    assert multipart.status_code == raw.status_code == json_body.status_code == 200
    reply = multipart.json()
    assert reply["images"] == raw.json()["images"] == json_body.json()["images"]
    (image,) = reply["images"]
    assert (image["width"], image["height"], image["format"]) == (451, 300, "PNG")
    assert [caption["language"] for caption in image["captions"]] == ["es", "ar"]
    for caption in image["captions"]:
        assert caption["text"]
        assert len(caption["neighbours"]) == 4
        assert {item["language"] for item in caption["neighbours"]} == {caption["language"]}
    assert reply["model"]["bundle"] == "compact"
    assert reply["timings_ms"]["generate"] > 0


def test_two_photos_in_ten_languages_are_one_request(client: TestClient) -> None:
    languages = [item["code"] for item in client.get("/v1/languages").json()["languages"]]
    assert len(languages) == 10
    files = [("image", (f"{number}.png", CAT, "image/png")) for number in range(2)]
    images = client.post("/v1/captions", files=files, data={"language": languages}).json()["images"]
    assert len(images) == 2
    assert images[0] == images[1]
    assert [caption["language"] for caption in images[0]["captions"]] == languages


def test_words_come_with_their_places(client: TestClient) -> None:
    reply = client.post(
        "/v1/captions?language=en&explain=true", content=CAT, headers={"content-type": "image/png"}
    ).json()
    (caption,) = reply["images"][0]["captions"]
    attention = caption["attention"]
    assert " ".join(word["text"] for word in attention["words"]) == caption["text"]
    assert (attention["rows"], attention["columns"]) == (9, 9)
    for word in attention["words"]:
        assert [len(row) for row in word["weights"]] == [9] * 9
        assert sum(map(sum, word["weights"])) == pytest.approx(1.0, abs=1e-3)


def test_a_chat_about_the_cat(client: TestClient) -> None:
    parts = [
        {"type": "text", "text": "Describe in Spanish"},
        {"type": "image_url", "image_url": {"url": f"data:;base64,{base64.b64encode(CAT).decode()}"}},
    ]
    body = {"model": "compact", "messages": [{"role": "user", "content": parts}]}
    completion = client.post("/v1/chat/completions", json=body).json()
    caption = client.post("/v1/captions", files={"image": CAT}, data={"language": "es"}).json()
    assert completion["choices"][0]["message"]["content"] == caption["images"][0]["captions"][0]["text"]
    assert completion["usage"]["prompt_tokens"] >= 3
    assert completion["usage"]["completion_tokens"] >= 3


def test_the_datastore_is_searched(client: TestClient) -> None:
    described = client.get("/v1/datastore").json()
    assert described["index"] == {"kind": "flat"}
    assert set(described["texts"]) == {"ar", "cs", "de", "en", "es", "fr", "hi", "pt", "uk", "zh"}
    assert described["entries"] >= 300
    by_text = {"text": "a cat on a chair", "language": "es", "k": 3}
    by_image = {"image": {"base64": base64.b64encode(CAT).decode()}, "language": "es", "k": 3}
    for body in (by_text, by_image):
        neighbours = client.post("/v1/datastore/search", json=body).json()["neighbours"]
        assert len(neighbours) == 3
        assert [item["score"] for item in neighbours] == sorted(
            (item["score"] for item in neighbours), reverse=True
        )
        assert any("gat" in item["text"].lower() for item in neighbours)


def test_ready_when_warm(client: TestClient) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("body", [b"", b"just text", CAT[:5000], CAT[:8] + b"\0" * 200])
def test_what_is_no_photo_gets_a_problem(client: TestClient, body: bytes) -> None:
    reply = client.post("/v1/captions", files={"image": ("photo.jpg", body, "image/jpeg")})
    assert 400 <= reply.status_code < 500
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["code"] == "invalid_image"
