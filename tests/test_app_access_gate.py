import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from echo_captioner import EchoCaptioner
from fastapi import APIRouter, Depends, Request
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient
from starlette.types import Message, Scope
from structlog.testing import capture_logs

from app.access.gate import admin_only, admin_or_open, caller_of
from app.access.keys import new_key, write_keys
from app.errors import BodyTooLargeError, FetchFailedError, FetchTimeoutError, KeysFileError
from app.server import create_app
from app.settings import Settings
from retrieval.errors import ImageTooLargeError, PaelleraError

PHOTO = encode(plain(), "PNG")
PNG = {"content-type": "image/png"}


class Keys:
    """A keys file with a key for captions and one for administration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.caption, caption_key = new_key("shop")
        self.admin, admin_key = new_key("operator", admin=True)
        write_keys(path, [caption_key, admin_key])


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.json")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def ask(client: TestClient, **headers: str) -> Any:
    return client.post("/v1/captions", content=PHOTO, headers=PNG | headers)


def code(response: Any) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    return response.status_code, response.json()["code"]


def test_either_header_carries_the_key(keys: Keys) -> None:
    with service_client(keys_file=keys.path) as client:
        for headers in (
            {"authorization": f"Bearer {keys.caption}"},
            {"authorization": f"bearer   {keys.caption} "},
            {"x-api-key": keys.caption},
            {"x-api-key": keys.caption, "authorization": f"Bearer {keys.caption}"},
            {"x-api-key": keys.caption, "authorization": "Basic dXNlcjp3b3Jk"},  # a proxy's own login
            {"x-api-key": keys.admin},
        ):
            assert ask(client, **headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "missing_key"),
        ({"authorization": ""}, "missing_key"),
        ({"authorization": "Bearer"}, "missing_key"),
        ({"authorization": "Bearer "}, "missing_key"),
        ({"authorization": "Basic dXNlcjp3b3Jk"}, "missing_key"),
        ({"x-api-key": " "}, "missing_key"),
        ({"authorization": "Bearer wrong"}, "invalid_key"),
        ({"authorization": "Bearer paellera_" + "0" * 64}, "invalid_key"),
        ({"x-api-key": "é"}, "invalid_key"),
        ({"x-api-key": "x" * 10_000}, "invalid_key"),
        ({"authorization": "Bearer KEY extra"}, "invalid_key"),
        ({"authorization": "Bearer KEY", "x-api-key": "another"}, "invalid_key"),
    ],
)
def test_without_a_good_key_nothing_is_captioned(keys: Keys, headers: dict[str, str], expected: str) -> None:
    captioner = EchoCaptioner()
    sent = [(name.encode(), value.replace("KEY", keys.caption).encode()) for name, value in headers.items()]
    with service_client(captioner, keys_file=keys.path) as client:
        response = client.post(
            "/v1/captions", content=PHOTO, headers=[(b"content-type", b"image/png"), *sent]
        )
        assert code(response) == (401, expected)
        assert response.headers["www-authenticate"].startswith('Bearer realm="paellera"')
        assert ("invalid_token" in response.headers["www-authenticate"]) is (expected == "invalid_key")
        assert keys.caption not in response.text
    assert captioner.calls == []


def test_every_address_is_closed_unless_it_is_named_open(keys: Keys) -> None:
    with service_client(keys_file=keys.path) as client:
        for path in ("/", "/livez", "/readyz", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path in (
            "/v1/languages",
            "/nowhere",
            "/metrics",
            "/v1",
            "/livez/x",
            "/LIVEZ",
            "/v1//livez",
            "/docs/../v1/languages",
        ):
            assert client.get(path).status_code == 401, path
        assert code(client.get("/nowhere", headers=bearer(keys.caption))) == (404, "not_found")


def test_of_the_documented_routes_only_the_probes_are_open(keys: Keys) -> None:
    with service_client(keys_file=keys.path) as client:
        opened = {
            path
            for path, operations in client.get("/openapi.json").json()["paths"].items()
            for method in operations
            if client.request(method, path).status_code != 401
        }
    assert opened == {"/livez", "/readyz"}


def test_without_a_keys_file_the_service_is_open() -> None:
    with service_client() as client:
        assert ask(client).status_code == 200
        assert ask(client, **bearer("whatever")).status_code == 200


def test_a_key_counts_from_when_it_is_made_until_it_is_revoked(keys: Keys) -> None:
    token, key = new_key("late")
    with service_client(keys_file=keys.path) as client:
        assert ask(client, **bearer(token)).status_code == 401
        write_keys(keys.path, [key])
        assert ask(client, **bearer(token)).status_code == 200
        assert ask(client, **bearer(keys.caption)).status_code == 401
        keys.path.write_text("{")
        assert ask(client, **bearer(token)).status_code == 200
        assert ask(client).status_code == 401


def test_a_service_with_a_missing_keys_file_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(KeysFileError, match=r"none\.json"):
        create_app(EchoCaptioner, Settings(keys_file=tmp_path / "none.json"))


def test_a_failed_login_reads_no_body_and_takes_no_place(keys: Keys) -> None:
    app = create_app(EchoCaptioner, Settings(keys_file=keys.path))
    sent: list[Message] = []
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/captions",
        "query_string": b"",
        "headers": [(b"content-type", b"image/png"), (b"content-length", b"1000000")],
        "client": ("198.51.100.7", 1),
        "app": app,
    }

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        sent.append(message)

    # Neither the model nor even the lifespan has started: there is nothing to wait for.
    anyio.run(app, scope, receive, send)
    assert sent[0]["status"] == 401
    assert json.loads(sent[1]["body"])["code"] == "missing_key"


def test_the_log_has_the_name_of_a_key_and_never_the_key(keys: Keys) -> None:
    with service_client(keys_file=keys.path) as client, capture_logs() as logs:
        ask(client, **bearer(keys.caption))
        ask(client, **bearer("paellera_not_one"))
    lines = [line for line in logs if line["event"] == "request"]
    assert [(line["status"], line.get("key")) for line in lines] == [(200, "shop"), (401, None)]
    assert keys.caption not in repr(logs)
    assert "not_one" not in repr(logs)


@contextmanager
def with_admin_routes(**settings: object) -> Iterator[TestClient]:
    router = APIRouter()

    @router.post("/admin", dependencies=[Depends(admin_only)])
    async def admin(request: Request) -> dict[str, str | None]:
        return {"caller": caller_of(request).key}

    @router.get("/look", dependencies=[Depends(admin_or_open)])
    async def look() -> dict[str, bool]:
        return {"seen": True}

    app = create_app(EchoCaptioner, Settings.model_validate(settings), wait_for_model=True)
    app.include_router(router)
    with TestClient(app) as client:
        yield client


def test_admin_routes_need_an_admin_key(keys: Keys) -> None:
    with with_admin_routes(keys_file=keys.path) as client:
        assert client.post("/admin", headers=bearer(keys.admin)).json() == {"caller": "operator"}
        assert client.get("/look", headers=bearer(keys.admin)).status_code == 200
        for refused in (
            client.post("/admin", headers=bearer(keys.caption)),
            client.get("/look", headers=bearer(keys.caption)),
        ):
            assert code(refused) == (403, "not_permitted")
            assert "shop" in refused.json()["detail"]
        assert code(client.post("/admin")) == (401, "missing_key")


def test_an_open_service_has_no_admins(keys: Keys) -> None:
    with with_admin_routes() as client:
        refused = client.post("/admin", headers=bearer(keys.admin))
        assert code(refused) == (403, "not_permitted")
        assert "PAELLERA_KEYS_FILE" in refused.json()["detail"]
        assert client.get("/look").json() == {"seen": True}


def test_openapi_says_where_a_key_is_needed(keys: Keys) -> None:
    with service_client() as client:
        document = client.get("/openapi.json").json()
        assert "securitySchemes" not in document.get("components", {})
    with service_client(keys_file=keys.path) as client:
        document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["components"]["securitySchemes"]["api_key"]["name"] == "X-API-Key"
    captions = document["paths"]["/v1/captions"]["post"]
    assert captions["security"] == [{"bearer": []}, {"api_key": []}]
    assert {"401", "403", "429", "503"} <= set(captions["responses"])
    assert "security" not in document["paths"]["/livez"]["get"]


# --- limits -----------------------------------------------------------------------------------------------


def limited_key(path: Path, **limits: int) -> dict[str, str]:
    token, key = new_key("limited", **limits)  # type: ignore[arg-type]
    other, other_key = new_key("other")
    write_keys(path, [key, other_key])
    return {"limited": token, "other": other}


def test_a_key_gets_what_its_limit_allows(tmp_path: Path) -> None:
    tokens = limited_key(tmp_path / "keys.json", per_minute=2, per_day=100)
    captioner = EchoCaptioner()
    with service_client(captioner, keys_file=tmp_path / "keys.json") as client:
        first, second, third = (ask(client, **bearer(tokens["limited"])) for _ in range(3))
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.headers["ratelimit-policy"] == '"minute";q=2;w=60, "day";q=100;w=86400'
        assert first.headers["ratelimit"].startswith('"minute";r=1;t=')
        assert '"day";r=98;t=' in second.headers["ratelimit"]
        assert code(third) == (429, "rate_limited")
        assert "2 requests a minute" in third.json()["detail"]
        assert 1 <= int(third.headers["retry-after"]) <= 120
        assert third.headers["ratelimit"].startswith('"minute";r=0;t=')
        assert "day" not in third.headers["ratelimit"]
        assert len(captioner.calls) == 2
        # Others are not touched, nor is what needs no key.
        other = ask(client, **bearer(tokens["other"]))
        assert other.status_code == 200
        assert "ratelimit" not in other.headers
        assert client.get("/readyz").status_code == 200


def test_a_day_has_its_own_limit(tmp_path: Path) -> None:
    tokens = limited_key(tmp_path / "keys.json", per_day=1)
    with service_client(keys_file=tmp_path / "keys.json") as client:
        assert ask(client, **bearer(tokens["limited"])).status_code == 200
        refused = ask(client, **bearer(tokens["limited"]))
        assert code(refused) == (429, "rate_limited")
        assert 86_000 < int(refused.headers["retry-after"]) <= 86_400


def test_failed_logins_use_up_nobodys_limit(tmp_path: Path) -> None:
    tokens = limited_key(tmp_path / "keys.json", per_minute=1)
    with service_client(keys_file=tmp_path / "keys.json", address_per_minute=1) as client:
        for _ in range(3):
            assert ask(client, **bearer("wrong")).status_code == 401
        assert ask(client, **bearer(tokens["limited"])).status_code == 200


def test_an_open_service_can_limit_addresses() -> None:
    app = create_app(
        EchoCaptioner,
        Settings(address_per_minute=1, trusted_proxies=("10.0.0.1",)),
        wait_for_model=True,
    )
    with TestClient(app, client=("198.51.100.7", 1)) as client:
        assert ask(client).status_code == 200
        assert code(ask(client)) == (429, "rate_limited")
        # What a caller says of itself does not help; a second TestClient is another address.
        assert ask(client, **{"x-forwarded-for": "203.0.113.5"}).status_code == 429
        behind = TestClient(app, client=("10.0.0.1", 1))
        assert ask(behind, **{"x-forwarded-for": "203.0.113.5"}).status_code == 200
        assert ask(behind, **{"x-forwarded-for": "203.0.113.6"}).status_code == 200
        assert ask(behind, **{"x-forwarded-for": "203.0.113.9, 203.0.113.6"}).status_code == 429


def test_a_request_refused_for_its_size_counts_for_nothing(tmp_path: Path) -> None:
    tokens = limited_key(tmp_path / "keys.json", per_minute=1)
    with service_client(keys_file=tmp_path / "keys.json", max_body_bytes=1000) as client:
        large = client.post("/v1/captions", content=bytes(1001), headers=PNG | bearer(tokens["limited"]))
        assert large.status_code == 413
        assert ask(client, **bearer(tokens["limited"])).status_code == 200


# --- over a real connection -------------------------------------------------------------------------------


@contextmanager
def listening(**settings: object) -> Iterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(EchoCaptioner, Settings.model_validate(settings), wait_for_model=True),
            log_config=None,
            proxy_headers=False,
        )
    )
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=120)
        listener.close()


def test_401_comes_while_the_body_is_still_awaited(keys: Keys) -> None:
    with listening(keys_file=keys.path) as address:
        host, _, port = address.partition(":")
        for framing in ("Content-Length: 5000000", "Transfer-Encoding: chunked"):
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                connection.sendall(
                    b"POST /v1/captions HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
                    + f"{framing}\r\n\r\n".encode()
                )
                answer = connection.recv(65_536).decode()
            assert answer.startswith("HTTP/1.1 401 ")
            # What may never end is not read to its end.
            assert ("connection: close" in answer.lower()) is framing.startswith("Transfer")


def test_a_client_that_sends_a_large_photo_first_gets_to_see_the_401(keys: Keys) -> None:
    with listening(keys_file=keys.path) as address:
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", "/v1/captions", bytes(8_000_000), PNG)
        response = connection.getresponse()
        assert response.status == 401
        assert json.load(response)["code"] == "missing_key"
        connection.close()


# --- images by address ------------------------------------------------------------------------------------


def test_a_url_is_refused_as_long_as_no_host_is_listed() -> None:
    with service_client() as client:
        response = client.post("/v1/captions", json={"images": [{"url": "https://images.example.org/a.png"}]})
        assert code(response) == (422, "url_not_allowed")
        assert "base64" in response.json()["detail"]


class FakeFetcher:
    def __init__(self) -> None:
        self.asked: list[tuple[dict[int, str], int]] = []

    async def fetch(self, urls: dict[int, str], images: int) -> dict[int, bytes]:
        self.asked.append((dict(urls), images))
        return {place: encode(plain((place, 2, 3)), "PNG") for place in urls}


def test_images_by_url_and_by_base64_in_one_request() -> None:
    fetcher = FakeFetcher()
    app = create_app(
        EchoCaptioner, Settings(url_hosts=("images.example.org",), max_images=3), wait_for_model=True
    )
    app.state.fetcher = fetcher
    inline = {"base64": base64.b64encode(PHOTO).decode()}
    by_url = [{"url": f"https://images.example.org/{number}"} for number in range(3)]
    with TestClient(app) as client:
        reply = client.post("/v1/captions", json={"images": [by_url[0], inline, by_url[2]]}).json()
        texts = [image["captions"][0]["text"] for image in reply["images"]]
        assert texts == ["picture 0,2,3", "picture 200,40,10", "picture 2,2,3"]
        assert fetcher.asked == [({0: by_url[0]["url"], 2: by_url[2]["url"]}, 3)]
        # What is wrong with the request is said before anything is fetched.
        assert client.post("/v1/captions", json={"images": [*by_url, inline]}).status_code == 422
        assert client.post("/v1/captions", json={"images": by_url, "num_captions": 99}).status_code == 422
        assert client.post("/v1/captions", json={"images": [by_url[0], {"base64": "!"}]}).status_code == 422
        assert len(fetcher.asked) == 1


@pytest.mark.parametrize(
    "error", [FetchFailedError, FetchTimeoutError, ImageTooLargeError, BodyTooLargeError]
)
def test_what_goes_wrong_while_fetching_is_said(error: type[PaelleraError]) -> None:
    class Failing:
        async def fetch(self, urls: dict[int, str], images: int) -> dict[int, bytes]:
            raise error("it went wrong")

    with service_client(url_hosts="images.example.org") as client:
        client.app.state.fetcher = Failing()  # type: ignore[attr-defined]
        response = client.post("/v1/captions", json={"images": [{"url": "https://images.example.org/a.png"}]})
    assert code(response) == (error.status, error.code)
    assert response.status_code in (413, 422)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a.png",
        "http://images.example.org/a.png",
        "https://127.0.0.1/a.png",
        "https://0177.0.0.1/",
        "https://2130706433/",
    ],
)
def test_urls_that_the_list_does_not_allow(url: str) -> None:
    with service_client(url_hosts="images.example.org") as client:
        response = client.post("/v1/captions", json={"images": [{"url": url}]})
        assert code(response) == (422, "url_not_allowed")


def test_a_listed_host_inside_the_network_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def private(*arguments: object, **options: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", private)
    with service_client(url_hosts="images.example.org") as client:
        response = client.post("/v1/captions", json={"images": [{"url": "https://images.example.org/a.png"}]})
        assert code(response) == (422, "url_not_allowed")
        assert "not public" in response.json()["detail"]
