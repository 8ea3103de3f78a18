"""Bodies that are cut off, or hold more than anybody asks for."""

import time
import tracemalloc
from collections.abc import Iterator

import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient

from app.api.bodies import parse_document
from app.schemas import CaptionBody
from retrieval.errors import InvalidRequestError

PART = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    + encode(plain(), "PNG")
    + b"\r\n"
)
FORM = {"content-type": "multipart/form-data; boundary=x"}


@pytest.fixture
def captioner() -> EchoCaptioner:
    return EchoCaptioner()


@pytest.fixture
def client(captioner: EchoCaptioner) -> Iterator[TestClient]:
    with service_client(captioner) as client:
        yield client


@pytest.mark.parametrize("end", [b"", b"--x", b"--x\r\n", b"--x-", PART[:70], PART[:-8]])
def test_a_form_that_breaks_off_is_refused_and_not_captioned_in_part(
    client: TestClient, captioner: EchoCaptioner, end: bytes
) -> None:
    response = client.post("/v1/captions", content=PART * 2 + end, headers=FORM)
    assert response.status_code == 400, response.text
    assert response.json()["code"] == "invalid_body"
    assert "ends before its final boundary" in response.json()["detail"]
    assert captioner.calls == []


@pytest.mark.parametrize("end", [b"--x--", b"--x--\r\n", b"--x--\r\nan epilogue", b"--x--\r\n" + bytes(5000)])
def test_a_form_with_its_final_boundary_is_whole(client: TestClient, end: bytes) -> None:
    response = client.post("/v1/captions", content=PART * 2 + end, headers=FORM)
    assert len(response.json()["images"]) == 2


def test_a_small_document_does_not_become_gigabytes_of_errors() -> None:
    tracemalloc.start()
    try:
        begun = time.monotonic()
        with pytest.raises(InvalidRequestError, match="more than 20,000 members"):
            parse_document(CaptionBody, b'{"images": [' + b"0," * 1_000_000 + b"0]}")
        assert time.monotonic() - begun < 2
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
