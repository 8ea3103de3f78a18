import base64
import json
from typing import Any

import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, noisy, plain, png_that_announces
from service_client import service_client
from starlette.testclient import TestClient

from models.captions import CaptionSettings

PHOTO = encode(plain((200, 40, 10)), "PNG")
OTHER = encode(plain((1, 2, 3)), "PNG")
LANGUAGE_FIELD = b'--x\r\nContent-Disposition: form-data; name="language"\r\n\r\n'


def post_json(client: TestClient, **members: object) -> Any:
    return client.post(
        "/v1/captions", json={"images": [{"base64": base64.b64encode(PHOTO).decode()}]} | members
    )


def problem(response: Any, status: int, code: str) -> str:
    """Checks a response to be that problem and returns its detail."""
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert (response.status_code, document["status"], document["code"]) == (status, status, code)
    assert set(document) == {"type", "title", "status", "detail", "code", "request_id"}
    assert document["type"] == f"urn:paellera:problem:{code}"
    assert document["request_id"] == response.headers["x-request-id"]
    assert document["title"]
    detail = document["detail"]
    assert detail
    assert "\n" not in detail
    return str(detail)


def test_multipart(client: TestClient, captioner: EchoCaptioner) -> None:
    response = client.post(
        "/v1/captions",
        files=[("image", ("a.png", PHOTO, "image/png")), ("image", ("b.png", OTHER, "image/png"))],
        data={"language": ["es", "ar"], "num_captions": "2", "max_tokens": "20", "neighbours": "1"},
    )
    assert response.status_code == 200
    reply = response.json()
    assert set(reply) == {"id", "model", "datastore", "images", "timings_ms"}
    assert reply["model"] == {"bundle": "echo", "revision": "r1"}
    assert reply["datastore"] == {"version": "v-test"}
    assert set(reply["timings_ms"]) == {"queue", "decode", "encode", "retrieve", "generate"}
    assert reply["timings_ms"]["generate"] == 3.0
    assert [image["captions"][0]["text"] for image in reply["images"]] == ["imagen 200,40,10", "imagen 1,2,3"]
    assert reply["images"][0] == {
        "width": 32,
        "height": 24,
        "format": "PNG",
        "captions": [
            {
                "language": "es",
                "text": "imagen 200,40,10",
                "confidence": 0.75,
                "alternatives": [{"text": "imagen 200,40,10 #1", "confidence": 0.5}],
                "neighbours": [{"id": "n0", "text": "imagen 0", "language": "es", "score": 0.9}],
            },
            {
                "language": "ar",
                "text": "صورة 200,40,10",
                "confidence": 0.75,
                "alternatives": [{"text": "صورة 200,40,10 #1", "confidence": 0.5}],
                "neighbours": [{"id": "n0", "text": "صورة 0", "language": "ar", "score": 0.9}],
            },
        ],
    }
    # Both photos and both languages went to the model as one batch.
    assert captioner.calls == [
        (2, CaptionSettings(("es", "ar"), num_captions=2, max_tokens=20, neighbours=1))
    ]


def test_raw_body_with_query_parameters(client: TestClient, captioner: EchoCaptioner) -> None:
    response = client.post(
        "/v1/captions",
        params={"language": ["pt-BR", "Spanish"], "temperature": "0.7", "top_p": "0.9", "seed": "5"},
        content=PHOTO,
        headers={"content-type": "image/png"},
    )
    captions = response.json()["images"][0]["captions"]
    assert [caption["language"] for caption in captions] == ["pt", "es"]
    assert captioner.calls[0][1] == CaptionSettings(("pt", "es"), temperature=0.7, top_p=0.9, seed=5)


def test_json(client: TestClient, captioner: EchoCaptioner) -> None:
    reply = post_json(client, languages=["de"], num_captions=3, beams=4, neighbours=0).json()
    assert reply["images"][0]["captions"][0]["text"] == "Bild 200,40,10"
    assert len(reply["images"][0]["captions"][0]["alternatives"]) == 2
    assert reply["images"][0]["captions"][0]["neighbours"] == []
    assert captioner.calls[0][1] == CaptionSettings(("de",), num_captions=3, beams=4, neighbours=0)


@pytest.mark.parametrize("way", ["form", "query", "json"])
def test_words_are_explained_when_asked(client: TestClient, captioner: EchoCaptioner, way: str) -> None:
    if way == "form":
        response = client.post("/v1/captions", files={"image": PHOTO}, data={"explain": "true"})
    elif way == "query":
        response = client.post(
            "/v1/captions?explain=true", content=PHOTO, headers={"content-type": "image/png"}
        )
    else:
        response = post_json(client, explain=True)
    (caption,) = response.json()["images"][0]["captions"]
    assert caption["attention"] == {
        "rows": 2,
        "columns": 3,
        "words": [
            {"text": word, "weights": [[0.5, 0.25, 0.0], [0.12346, 0.0, 0.12654]]}
            for word in ("picture", "200,40,10")
        ],
    }
    assert captioner.calls[0][1] == CaptionSettings(("en",), explain=True)


@pytest.mark.parametrize("rerank", [True, False])
def test_captions_are_reranked_when_asked(client: TestClient, captioner: EchoCaptioner, rerank: bool) -> None:
    assert post_json(client, rerank=rerank).status_code == 200
    assert captioner.calls[0][1].rerank is rerank
    problem(post_json(client, rerank=1), 422, "invalid_request")


@pytest.mark.parametrize("neutral", [True, False])
def test_captions_are_neutral_when_asked(client: TestClient, captioner: EchoCaptioner, neutral: bool) -> None:
    assert post_json(client, neutral=neutral).status_code == 200
    assert captioner.calls[0][1].neutral is neutral
    problem(post_json(client, neutral="yes"), 422, "invalid_request")


def test_words_are_not_explained_unless_asked(client: TestClient) -> None:
    for explain in ({}, {"explain": False}):
        assert "attention" not in post_json(client, **explain).json()["images"][0]["captions"][0]
    problem(post_json(client, explain="yes"), 422, "invalid_request")
    response = client.post("/v1/captions", files={"image": PHOTO}, data={"explain": "perhaps"})
    assert "explain" in problem(response, 422, "invalid_request")


def test_json_takes_data_urls_and_line_breaks(client: TestClient) -> None:
    text = base64.encodebytes(PHOTO).decode()
    for given in (text, f"data:image/png;base64,{text}"):
        assert client.post("/v1/captions", json={"images": [{"base64": given}]}).status_code == 200


def test_the_three_bodies_say_the_same(client: TestClient) -> None:
    replies = [
        client.post("/v1/captions", files={"image": PHOTO}, data={"language": "zh"}),
        client.post("/v1/captions?language=zh", content=PHOTO, headers={"content-type": "image/png"}),
        post_json(client, languages=["zh"]),
    ]
    first, second, third = (reply.json()["images"] for reply in replies)
    assert first == second == third


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("es", "es"),
        ("fr;q=0.9, pt-BR;q=0.8, es;q=0.85", "es"),
        ("de;q=0, *;q=0.5", "en"),
        ("zh-Hant-TW, en;q=0.1", "zh"),
        ("complete;;nonsense,,;q=", "en"),
        ("fr, sv", "en"),
    ],
)
def test_accept_language_decides_when_no_language_is_named(
    client: TestClient, header: str | None, language: str
) -> None:
    headers = {"accept-language": header} if header else {}
    reply = client.post("/v1/captions", files={"image": PHOTO}, headers=headers).json()
    assert [caption["language"] for caption in reply["images"][0]["captions"]] == [language]


def test_a_named_language_beats_accept_language(client: TestClient) -> None:
    reply = post_json(client, languages=["ar"]).json()
    assert reply["images"][0]["captions"][0]["language"] == "ar"


def test_all_languages_and_repeated_ones(client: TestClient) -> None:
    every = post_json(client, languages=["all"]).json()["images"][0]["captions"]
    assert [caption["language"] for caption in every] == ["ar", "de", "en", "es", "pt", "zh"]
    once = post_json(client, languages=["es", "es-MX", "spanish"]).json()["images"][0]["captions"]
    assert [caption["language"] for caption in once] == ["es"]


def test_the_servers_default_language() -> None:
    with service_client(default_language="pt") as client:
        assert post_json(client).json()["images"][0]["captions"][0]["language"] == "pt"
        assert client.get("/v1/languages").json()["default"] == "pt"
    with service_client(default_language="ja") as client:  # the bundle cannot write it
        assert post_json(client).json()["images"][0]["captions"][0]["language"] == "ar"


def test_languages(client: TestClient) -> None:
    reply = client.get("/v1/languages").json()
    assert reply["default"] == "en"
    assert [item["code"] for item in reply["languages"]] == ["ar", "de", "en", "es", "pt", "zh"]
    assert reply["languages"][1] == {"code": "de", "name": "German", "autonym": "Deutsch"}


# --- bad images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "invalid_image"),
        (b"this is a text file", 422, "invalid_image"),
        (encode(noisy(), "JPEG")[:4000], 422, "invalid_image"),
        (png_that_announces(40_000, 40_000), 413, "image_too_large"),
    ],
)
def test_bad_images(client: TestClient, data: bytes, status: int, code: str) -> None:
    for response in (
        client.post("/v1/captions", files={"image": ("photo.jpg", data, "image/jpeg")}),
        client.post("/v1/captions", content=data, headers={"content-type": "image/jpeg"}),
        client.post("/v1/captions", json={"images": [{"base64": base64.b64encode(data).decode()}]}),
    ):
        problem(response, status, code)


def test_the_bad_one_of_several_images_is_named(client: TestClient, captioner: EchoCaptioner) -> None:
    response = client.post("/v1/captions", files=[("image", PHOTO), ("image", b"text"), ("image", PHOTO)])
    assert problem(response, 422, "invalid_image").startswith("image 2 of 3: ")
    assert captioner.calls == []


def test_image_limits_are_settings() -> None:
    with service_client(max_image_bytes=100, max_image_pixels=100) as client:
        problem(client.post("/v1/captions", files={"image": encode(noisy(), "PNG")}), 413, "image_too_large")
        response = client.post("/v1/captions", content=PHOTO, headers={"content-type": "image/png"})
        problem(response, 413, "image_too_large")


# --- bad requests -----------------------------------------------------------------------------------------


def test_no_image(client: TestClient) -> None:
    problem(client.post("/v1/captions", files={"image": (None, "text")}), 422, "no_image")
    problem(client.post("/v1/captions", json={"images": []}), 422, "no_image")
    problem(client.post("/v1/captions", json={}), 422, "no_image")
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    problem(client.post("/v1/captions", content=b"--x--\r\n", headers=boundary), 422, "no_image")


def test_too_many_images(client: TestClient) -> None:
    assert client.post("/v1/captions", files=[("image", PHOTO)] * 16).status_code == 200
    detail = problem(client.post("/v1/captions", files=[("image", PHOTO)] * 17), 422, "invalid_request")
    assert "16" in detail
    image = {"base64": base64.b64encode(PHOTO).decode()}
    detail = problem(client.post("/v1/captions", json={"images": [image] * 17}), 422, "invalid_request")
    assert "16" in detail


def test_too_many_captions_at_once(client: TestClient) -> None:
    image = {"base64": base64.b64encode(PHOTO).decode()}
    body = {"images": [image] * 16, "languages": ["all"], "num_captions": 8}
    assert "256" in problem(client.post("/v1/captions", json=body), 422, "invalid_request")


def test_urls_are_not_fetched(client: TestClient) -> None:
    response = client.post("/v1/captions", json={"images": [{"url": "http://127.0.0.1/secret"}]})
    assert "base64" in problem(response, 422, "url_not_allowed")


@pytest.mark.parametrize("language", ["xx", "klingon", "!!", "fr", "a" * 60, "\N{SNOWMAN}", ","])
def test_unknown_languages(client: TestClient, language: str) -> None:
    response = post_json(client, languages=[language])
    problem(response, 422, "invalid_request" if language == "," else "unknown_language")


def test_a_supported_language_is_suggested(client: TestClient) -> None:
    detail = problem(post_json(client, languages=["ca"]), 422, "unknown_language")
    assert "Spanish (es)" in detail
    assert "ar, de, en, es, pt, zh" in detail


@pytest.mark.parametrize(
    ("members", "hint"),
    [
        ({"num_captions": 0}, "num_captions: should be greater than or equal to 1"),
        ({"num_captions": 9}, "num_captions: should be less than or equal to 8"),
        ({"num_captions": "2"}, "num_captions: should be a valid integer"),
        ({"num_captions": True}, "num_captions"),
        ({"max_tokens": 65}, "max_tokens"),
        ({"neighbours": -1}, "neighbours"),
        ({"beams": 100}, "beams"),
        ({"temperature": 0}, "temperature: should be greater than 0"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_p": 0.5}, "top_p needs a temperature"),
        ({"beams": 2, "temperature": 1.0}, "beams and temperature exclude each other"),
        ({"beams": 2, "num_captions": 3}, "num_captions cannot be more than beams"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"languages": "es"}, "languages"),
        ({"languages": ["es"] * 41}, "languages"),
        ({"languages": ["e" * 1000]}, "languages.0"),
        ({"languages": [None]}, "languages.0"),
        ({"language": ["es"]}, "'language' is not a parameter; did you mean languages?"),
        ({"imgs": 1}, "'imgs' is not a parameter; did you mean images?"),
        ({"images": [{"base65": ""}]}, "'base65' is not a parameter; did you mean base64?"),
        ({"images": [{}]}, "give the image as base64"),
        ({"images": [{"base64": "", "url": ""}]}, "give the image as base64"),
        ({"images": ["x"]}, "images.0"),
        ({"images": None}, "images"),
    ],
)
def test_bad_members_of_the_json_document(client: TestClient, members: dict[str, object], hint: str) -> None:
    assert hint in problem(post_json(client, **members), 422, "invalid_request")


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("num_captions=many", "num_captions: should be a valid integer"),
        ("num_captions=1&num_captions=2", "num_captions is given twice"),
        ("temperature=nan", "temperature"),
        ("temperature=inf", "temperature"),
        ("seed=1.5", "seed"),
        ("max_tokens=1e3", "max_tokens"),
        ("languages=es", "did you mean language?"),
        ("%00=1", "is not a parameter"),
        ("x" * 500 + "=1", "is not a parameter"),
    ],
)
def test_bad_query_parameters(client: TestClient, query: str, hint: str) -> None:
    response = client.post(f"/v1/captions?{query}", content=PHOTO, headers={"content-type": "image/png"})
    assert hint in problem(response, 422, "invalid_request")


def test_empty_form_fields_count_as_left_out(client: TestClient, captioner: EchoCaptioner) -> None:
    fields = {"language": "", "num_captions": "", "temperature": " "}
    assert client.post("/v1/captions", files={"image": PHOTO}, data=fields).status_code == 200
    assert captioner.calls[0][1] == CaptionSettings(("en",))


def test_files_under_another_name(client: TestClient) -> None:
    response = client.post("/v1/captions", files={"file": PHOTO})
    assert "'file'" in problem(response, 422, "invalid_request")


def test_query_parameters_beside_a_body_that_has_its_own(client: TestClient) -> None:
    response = client.post("/v1/captions?language=es", files={"image": PHOTO})
    assert "form fields" in problem(response, 422, "invalid_request")


@pytest.mark.parametrize("body", [b"", b"{", b"[1]]", b"\xff\xfe", b'{"images":' + b"[" * 100_000, b"NaN"])
def test_broken_json(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/captions", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    problem(
        response, response.status_code, "invalid_body" if response.status_code == 400 else "invalid_request"
    )


@pytest.mark.parametrize("text", ["!!!", "QUJD=", "é", "\ud800", "data:image/png;base64"])
def test_broken_base64(client: TestClient, text: str) -> None:
    body = json.dumps({"images": [{"base64": text}]}).encode()
    response = client.post("/v1/captions", content=body, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500
    problem(response, response.status_code, response.json()["code"])


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "é", "/"])
def test_other_content_types(client: TestClient, content_type: str | None) -> None:
    headers = {b"content-type": content_type.encode()} if content_type else None
    problem(client.post("/v1/captions", content=PHOTO, headers=headers), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary at all"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x; charset=undefined",
            LANGUAGE_FIELD + b"es\r\n--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x; charset=punycode",
            LANGUAGE_FIELD + b"\xff\xff\r\n--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="language"\r\n\r\n'
            + b"e" * 5000
            + b"\r\n--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x",
            (LANGUAGE_FIELD + b"es\r\n") * 200 + b"--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n',
        ),
    ],
)
def test_broken_forms(client: TestClient, content_type: str, body: bytes) -> None:
    response = client.post("/v1/captions", content=body, headers={"content-type": content_type})
    assert response.status_code in (400, 422)
    problem(response, response.status_code, response.json()["code"])


# --- the rest of the API ----------------------------------------------------------------------------------


def test_unknown_addresses_and_methods_are_problems_too(client: TestClient) -> None:
    problem(client.get("/nowhere"), 404, "not_found")
    response = client.get("/v1/captions")
    problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


def test_probes(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_openapi_describes_the_three_bodies_and_the_problems(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/captions"]["post"]
    content = operation["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "image/*", "application/json"}
    form = content["multipart/form-data"]["schema"]["properties"]
    assert {"image", "language", "num_captions", "max_tokens", "neighbours"} <= set(form)
    assert form["num_captions"]["maximum"] == 8
    assert {"images", "languages", "temperature"} <= set(content["application/json"]["schema"]["properties"])
    query = {item["name"]: item["schema"] for item in operation["parameters"] if item["in"] == "query"}
    assert set(query) == set(form) - {"image"}
    # Programs send the defaults they read, and a form refuses a query.
    assert not any("default" in schema for schema in query.values())
    for status in ("400", "413", "415", "422", "429", "503"):
        assert set(operation["responses"][status]["content"]) == {"application/problem+json"}
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"$ref": "')[1:]}:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
