import pytest
from sample_pictures import encode, plain
from service_client import service_client
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from app.errors import DrainingError, ShuttingDownError
from app.operations.draining import Drain

PHOTO = encode(plain(), "PNG")


def drain_of(client: TestClient) -> Drain:
    drain = client.app.state.drain  # type: ignore[attr-defined]
    assert isinstance(drain, Drain)
    return drain


def test_while_serving_nothing_is_different() -> None:
    with service_client() as client:
        response = client.post("/v1/captions", files={"image": PHOTO})
        assert (response.status_code, "connection" in response.headers) == (200, False)
        assert drain_of(client).under_way == 0


def test_while_draining_requests_are_answered_and_the_probe_says_go_elsewhere() -> None:
    with service_client() as client:
        drain_of(client).phase = "draining"
        response = client.post("/v1/captions", files={"image": PHOTO})
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["code"]) == (503, "draining")
        assert client.get("/livez").status_code == 200


def test_while_closing_new_requests_are_refused_at_once() -> None:
    with service_client() as client:
        drain_of(client).phase = "closing"
        for response in (client.post("/v1/captions", files={"image": PHOTO}), client.get("/v1/languages")):
            assert (response.status_code, response.json()["code"]) == (503, "shutting_down")
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["connection"] == "close"
            assert int(response.headers["retry-after"]) >= 1
            assert response.headers["x-request-id"] == response.json()["request_id"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200
        assert 'paellera_rejected_total{code="shutting_down"} 2.0' in client.get("/metrics").text
        assert drain_of(client).under_way == 0


def test_probes_are_answered_below_another_path_too() -> None:
    with service_client() as client, capture_logs() as logs:
        drain_of(client).phase = "closing"
        below = TestClient(client.app, root_path="/pan")
        assert below.get("/pan/livez").status_code == 200
        assert below.get("/pan/v1/languages").status_code == 503
    seen = [(line["route"], line["log_level"]) for line in logs if line["event"] == "request"]
    assert seen == [("/livez", "debug"), (None, "info")]


def test_a_request_that_fails_is_no_longer_under_way() -> None:
    with service_client() as client:
        for body in (b"text", b""):
            client.post("/v1/captions", files={"image": body})
        assert drain_of(client).under_way == 0


def test_what_each_phase_allows() -> None:
    drain = Drain()
    drain.check_ready()
    drain.phase = "draining"
    drain.check_open()
    with pytest.raises(DrainingError):
        drain.check_ready()
    drain.phase = "closing"
    with pytest.raises(DrainingError):
        drain.check_ready()
    with pytest.raises(ShuttingDownError):
        drain.check_open()
