import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from service_client import service_client
from starlette.responses import Response
from starlette.testclient import TestClient

from app.access.security_headers import SECURITY_HEADERS, SecurityHeadersMiddleware


@pytest.mark.parametrize("path", ["/livez", "/v1/languages", "/openapi.json", "/nowhere", "/v1/captions"])
def test_every_response_has_them(path: str) -> None:
    with service_client() as client:
        response = client.get(path)
    for name, value in SECURITY_HEADERS.items():
        assert response.headers[name] == value


def test_also_an_unexpected_error_and_a_body_that_is_too_large() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner, max_body_bytes=5000) as client:
        captioner.fail = RuntimeError("surprise")
        failed = client.post("/v1/captions", files={"image": encode(plain(), "PNG")})
        large = client.post("/v1/captions", content=bytes(5001), headers={"content-type": "image/png"})
    assert (failed.status_code, large.status_code) == (500, 413)
    for response in (failed, large):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")


def test_a_response_keeps_what_it_says_itself() -> None:
    page = Response("page", headers={"Content-Security-Policy": "default-src 'self'"})
    response = TestClient(SecurityHeadersMiddleware(page)).get("/")
    assert response.headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert response.headers["x-frame-options"] == "DENY"
