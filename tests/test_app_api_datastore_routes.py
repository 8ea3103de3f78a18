import base64
from typing import Any

import pytest
from sample_pictures import encode, plain
from starlette.testclient import TestClient

PHOTO = base64.b64encode(encode(plain((200, 40, 10)), "PNG")).decode()


def search(client: TestClient, headers: dict[str, str] | None = None, **body: object) -> Any:
    return client.post("/v1/datastore/search", json=body, headers=headers)


def test_what_is_in_the_datastore(client: TestClient) -> None:
    assert client.get("/v1/datastore").json() == {
        "version": "v-test",
        "entries": 7,
        "texts": {"en": 7, "es": 2},
        "embedder": "echo-embedder",
        "dimension": 2,
        "index": {"kind": "flat"},
    }


def test_search_by_text(client: TestClient) -> None:
    assert search(client, text="a dog", language="es", k=2).json() == {
        "neighbours": [
            {"id": "n0", "text": "[5.0, 0.0]", "language": "es", "score": 0.1235},
            {"id": "n1", "text": "[5.0, 0.0]", "language": "es", "score": -0.8765},
        ]
    }


def test_search_by_image(client: TestClient) -> None:
    for image in ({"base64": PHOTO}, {"url": f"data:image/png;base64,{PHOTO}"}):
        neighbours = search(client, image=image).json()["neighbours"]
        assert [item["text"] for item in neighbours] == ["[32.0, 24.0]"] * 5


@pytest.mark.parametrize(
    ("body", "accept", "language"),
    [
        ({}, "", "en"),
        ({}, "es;q=0.9, de", "es"),  # it has no German texts
        ({"language": "Spanish"}, "en", "es"),
        ({"language": "pt-BR"}, "", "pt"),
    ],
)
def test_the_language_of_what_is_shown(
    client: TestClient, body: dict[str, str], accept: str, language: str
) -> None:
    reply = search(client, {"accept-language": accept}, text="x", **body).json()
    assert {item["language"] for item in reply["neighbours"]} == {language}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_request"),
        ({"text": " "}, 422, "invalid_request"),
        ({"text": "x" * 1001}, 422, "invalid_request"),
        ({"text": "x", "image": {"base64": PHOTO}}, 422, "invalid_request"),
        ({"text": "x", "k": 0}, 422, "invalid_request"),
        ({"text": "x", "k": 101}, 422, "invalid_request"),
        ({"text": "x", "languages": ["es"]}, 422, "invalid_request"),
        ({"text": "x", "language": "klingon"}, 422, "unknown_language"),
        ({"image": {"base64": "!"}}, 422, "invalid_image"),
        ({"image": {"base64": "QUJD"}}, 422, "invalid_image"),
        ({"image": {"url": "http://127.0.0.1/x.png"}}, 422, "url_not_allowed"),
    ],
)
def test_searches_that_are_none(client: TestClient, body: dict[str, Any], status: int, code: str) -> None:
    response = search(client, **body)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_bodies_that_are_no_json(client: TestClient) -> None:
    response = client.post("/v1/datastore/search", content=b"{", headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_body")
    response = client.post("/v1/datastore/search", content=b"{}", headers={"content-type": "text/plain"})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
