from collections.abc import Iterator

import anyio
import pytest
from echo_captioner import EchoCaptioner
from sample_pictures import encode, plain
from service_client import service_client
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from app.api.body_limit import BodyLimitMiddleware, RequestContextMiddleware
from app.errors import BodyTooLargeError

PHOTO = encode(plain(), "PNG")


def test_a_plain_request_id_is_kept_and_any_other_replaced() -> None:
    with service_client() as client:
        given = client.get("/livez", headers={"x-request-id": "Order-66_a.b"})
        assert given.headers["x-request-id"] == "Order-66_a.b"
        for bad in ("", "with space", "new\tline", "x" * 65, '"quoted"', "<script>"):
            replaced = client.get("/livez", headers={"x-request-id": bad}).headers["x-request-id"]
            assert replaced != bad
            assert len(replaced) == 32
        assert client.get("/nowhere", headers={"x-request-id": "abc"}).json()["request_id"] == "abc"


def test_a_body_above_the_limit_is_refused_by_its_length() -> None:
    with service_client(max_body_bytes=1000) as client:
        response = client.post(
            "/v1/captions", content=bytes(1001), headers={"content-type": "image/png", "x-request-id": "r"}
        )
        assert response.status_code == 413
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == "body_too_large"
        assert response.json()["request_id"] == response.headers["x-request-id"] == "r"


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_a_body_above_the_limit_is_refused_while_it_arrives(content_type: str) -> None:
    sent = 0

    def stream() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield b"--x\r\n" + bytes(95)

    with service_client(max_body_bytes=1000) as client:
        response = client.post("/v1/captions", content=stream(), headers={"content-type": content_type})
        assert response.status_code in (400, 413)  # this form is also broken, which may be noticed first
        assert response.headers["content-type"] == "application/problem+json"
        if not content_type.startswith("multipart"):
            assert response.json()["code"] == "body_too_large"


def test_a_large_form_is_refused_while_it_arrives() -> None:
    with service_client(max_body_bytes=2000) as client:
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        parts = iter([head, *[bytes(500)] * 8, b"\r\n--x--\r\n"])
        response = client.post(
            "/v1/captions", content=parts, headers={"content-type": "multipart/form-data; boundary=x"}
        )
        assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_reading_stops_at_the_limit() -> None:
    reads = 0

    async def receive() -> Message:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": bytes(100), "more_body": True}

    async def reader(scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            await receive()

    async def send(message: Message) -> None: ...

    limited = BodyLimitMiddleware(reader, max_bytes=450)
    with pytest.raises(BodyTooLargeError, match="450"):
        anyio.run(limited, {"type": "http", "headers": []}, receive, send)
    assert reads == 5


def test_an_unexpected_error_says_nothing_and_is_logged() -> None:
    captioner = EchoCaptioner()
    with service_client(captioner) as client, capture_logs() as logs:
        captioner.fail = RuntimeError("password=hunter2 in /etc/secret")
        response = client.post("/v1/captions", files={"image": PHOTO})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "internal_error"
    assert "hunter2" not in response.text
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == response.json()["request_id"]
    assert [line["log_level"] for line in logs if line["event"] == "unhandled_error"] == ["error"]


def test_a_client_that_goes_away_is_no_error() -> None:
    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        raise ClientDisconnect

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "headers": [], "method": "POST", "path": "/v1/captions"}
    with capture_logs() as logs:
        anyio.run(RequestContextMiddleware(leaves), scope, receive, send)
    assert sent == []
    assert [line["event"] for line in logs] == ["client_gone"]
