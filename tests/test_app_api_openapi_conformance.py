"""The OpenAPI document against the service: schemathesis sends what it allows and what it forbids.

Whatever comes, the answer is none of the server's faults, and has a status, a type and a shape that the
document announces. In the suite the cases are few and always the same. More of them, drawn anew each time:

    SCHEMATHESIS_EXAMPLES=2000 python -m pytest tests/test_app_api_openapi_conformance.py
"""

import base64
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import schemathesis
from echo_captioner import EchoCaptioner
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from sample_pictures import encode, plain
from schemathesis.checks import not_a_server_error
from schemathesis.python import asgi
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.access.keys import new_key, write_keys
from app.server import create_app
from app.settings import Settings

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "0"))
# What JSON Schema can say of an image is that it is a string: whether that is a photo in base64, or the
# address of a host that may be fetched from, turns out later. So it is with names of languages and models.
LEFT_OFF: list[Any] = [positive_data_acceptance]
CONFORMANCE: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
Case = schemathesis.Case[Any]
PHOTO = encode(plain(), "PNG")
PHOTO_TEXT = base64.b64encode(PHOTO).decode()

few_or_many: Callable[[Any], Any] = settings(
    max_examples=EXAMPLES or 15,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def described(app: FastAPI) -> BaseSchema:
    """The document, without starting the service: the first request does that."""
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    return schema


def with_keys() -> tuple[BaseSchema, str]:
    """A service that wants keys, and a key."""
    token, key = new_key("tester", admin=True)
    with TemporaryDirectory() as folder:  # read once; a keys file that vanishes later changes nothing
        file = Path(folder) / "keys.json"
        write_keys(file, [key])
        app = create_app(EchoCaptioner, Settings(cache_bytes=0, keys_file=file), wait_for_model=True)
    return described(app), token


open_service = described(create_app(EchoCaptioner, Settings(cache_bytes=0), wait_for_model=True))
keyed_service, TOKEN = with_keys()


@pytest.fixture(autouse=True, scope="module")
def stopped() -> Iterator[None]:
    """Services that schemathesis has started end with the tests of this module."""
    yield
    asgi.shutdown_lifespans()


@open_service.parametrize()
@few_or_many
def test_an_open_service_answers_as_its_document_says(case: Case) -> None:
    case.call_and_validate(excluded_checks=LEFT_OFF)


@open_service.include(path_regex="captions|completions|search|models/").parametrize()
@few_or_many
def test_requests_with_a_photo_are_answered_as_the_document_says(case: Case) -> None:
    furnish(case)
    case.call_and_validate(checks=CONFORMANCE)


@keyed_service.parametrize()
@few_or_many
def test_a_service_with_keys_answers_as_its_document_says(case: Case) -> None:
    case.headers.pop("X-API-Key", None)  # two keys that differ are refused
    response = case.call_and_validate(
        headers={"Authorization": f"Bearer {TOKEN}"}, excluded_checks=[*LEFT_OFF, ignored_auth]
    )
    assert response.status_code != 401


@keyed_service.parametrize()
@few_or_many
def test_without_a_good_key_only_the_probes_are_answered(case: Case) -> None:
    case.headers.pop("X-API-Key", None)
    response = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN[:-1]}"}, checks=CONFORMANCE)
    assert (response.status_code == 401) == (case.path not in ("/livez", "/readyz"))


def furnish(case: Case) -> None:
    """Puts in place what no schema can draw: photos, and the names of the model and of languages."""
    if case.path == "/v1/captions" and zlib.crc32(repr(case.body).encode()) % 2:
        case.headers["Accept"] = "text/event-stream"
    if case.path_parameters:
        case.path_parameters["model"] = "echo"
    if case.media_type is not None and case.media_type.startswith("image/"):
        case.body = PHOTO
        if "language" in case.query:
            case.query["language"] = ["es", "Arabic"]
    else:  # the parameters in the query go with a raw image only, which OpenAPI cannot say
        case.query = {}
    body: Any = case.body
    if not isinstance(body, dict):
        return
    for name, value in {
        "model": "echo",
        "language": ["es", "ar"] if case.media_type == "multipart/form-data" else "es",
        "languages": ["en", "German"],
        "images": [{"base64": PHOTO_TEXT}] * 2,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "in Spanish"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PHOTO_TEXT}"}},
                ],
            }
        ],
    }.items():
        if name in body:
            body[name] = value
    if case.media_type == "multipart/form-data" and "image" in body:
        body["image"] = [PHOTO, PHOTO]
    elif isinstance(body.get("image"), dict):
        body["image"] = {"base64": PHOTO_TEXT}
