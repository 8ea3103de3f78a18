from pathlib import Path

import pytest
from sample_pictures import encode, plain
from service_client import service_client

from app.access.keys import new_key, write_keys

PAGE = "https://page.example.org"
PHOTO = encode(plain(), "PNG")


def preflight(
    origin: str, headers: str = "authorization,content-type", method: str = "POST"
) -> dict[str, str]:
    return {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": headers,
    }


def test_by_default_no_page_of_another_origin_may_read_anything() -> None:
    with service_client() as client:
        response = client.get("/v1/languages", headers={"origin": PAGE})
        assert "access-control-allow-origin" not in response.headers
        response = client.options("/v1/captions", headers=preflight(PAGE))
        assert "access-control-allow-origin" not in response.headers
        assert response.status_code == 405


def test_listed_pages_may() -> None:
    with service_client(cors_origins=f"{PAGE}, http://localhost:3000") as client:
        for origin in (PAGE, "http://localhost:3000"):
            response = client.options("/v1/captions", headers=preflight(origin))
            assert response.status_code == 200
            assert response.headers["access-control-allow-origin"] == origin
            assert "X-API-Key" in response.headers["access-control-allow-headers"]
            response = client.post("/v1/captions", files={"image": PHOTO}, headers={"origin": origin})
            assert response.status_code == 200
            assert response.headers["access-control-allow-origin"] == origin
            assert "Origin" in response.headers["vary"]
            assert "RateLimit" in response.headers["access-control-expose-headers"]
            assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        f"{PAGE}.evil.example",
        "http://page.example.org",
        f"{PAGE}:8443",
        "https://sub.page.example.org",
    ],
)
def test_other_pages_may_not(origin: str) -> None:
    with service_client(cors_origins=PAGE) as client:
        refused = client.options("/v1/captions", headers=preflight(origin))
        assert refused.status_code == 400
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "cors_refused"
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert "access-control-allow-origin" not in refused.headers
        assert "access-control-allow-origin" not in client.get("/livez", headers={"origin": origin}).headers


def test_headers_and_methods_that_are_not_part_of_the_api() -> None:
    with service_client(cors_origins=PAGE) as client:
        assert client.options("/v1/captions", headers=preflight(PAGE, "x-evil")).status_code == 400
        assert client.options("/v1/captions", headers=preflight(PAGE, method="DELETE")).status_code == 400


def test_pages_can_read_errors_and_preflights_need_no_key(tmp_path: Path) -> None:
    token, key = new_key("page", per_minute=1)
    write_keys(tmp_path / "keys.json", [key])
    with service_client(cors_origins=PAGE, keys_file=tmp_path / "keys.json") as client:
        for _ in range(3):
            assert client.options("/v1/captions", headers=preflight(PAGE)).status_code == 200
        statuses = []
        for headers in ({}, {"x-api-key": token}, {"x-api-key": token}):
            response = client.get("/v1/languages", headers={"origin": PAGE} | headers)
            assert response.headers["access-control-allow-origin"] == PAGE
            statuses.append(response.status_code)
    assert statuses == [401, 200, 429]
