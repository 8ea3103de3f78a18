"""Stopping, as a load balancer and its callers see it: real processes, real signals."""

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from served import PHOTO, served


def test_what_is_under_way_at_sigterm_is_answered_and_requests_are_still_accepted() -> None:
    with served(drain_seconds=2) as service, ThreadPoolExecutor(8) as pool:
        under_way = [pool.submit(service.caption, 300) for _ in range(6)]
        service.wait_for(b"captioning")
        service.signal()
        service.wait_for(b"draining")
        ready = service.get("/readyz")
        assert (ready.status, json.loads(ready.body)["code"]) == (503, "draining")
        assert service.get("/livez").status == 200
        late = service.caption(1)
        assert late.status == 200
        assert late.headers["connection"] == "close"
        assert [future.result(timeout=60).status for future in under_way] == [200] * 6
        assert service.end() == 0
        assert not any(b"Traceback" in line for line in service.lines)


def test_after_the_drain_new_requests_are_refused_while_the_others_finish() -> None:
    with served(drain_seconds=0) as service, ThreadPoolExecutor(2) as pool:
        under_way = pool.submit(service.caption, 1500)
        service.wait_for(b"captioning")
        service.signal()
        service.wait_for(b"closing")
        refused = service.caption()
        assert (refused.status, json.loads(refused.body)["code"]) == (503, "shutting_down")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["connection"] == "close"
        assert service.get("/livez").status == 200
        assert service.get("/metrics").status == 200
        assert under_way.result(timeout=60).status == 200
        assert service.end() == 0


def test_a_request_whose_body_is_still_coming_is_not_lost() -> None:
    with served(drain_seconds=0) as service:
        host, _, port = service.address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST /v1/captions HTTP/1.1\r\nHost: here\r\nContent-Type: image/png\r\n"
                b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(PHOTO)
            )
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")  # it is being read
            connection.sendall(PHOTO[:50])
            service.signal()
            service.wait_for(b"closing")
            connection.sendall(PHOTO[50:])
            answer = connection.recv(100_000)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer.lower()
        assert service.end() == 0


@pytest.mark.parametrize("further", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_drain(further: signal.Signals) -> None:
    with served(drain_seconds=600) as service, ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(service.caption, 800)
        service.wait_for(b"captioning")
        service.signal()
        service.wait_for(b"draining")
        service.signal(further)
        assert under_way.result(timeout=60).status == 200
        assert service.end() == 0


def test_ctrl_c_does_not_drain() -> None:
    with served(drain_seconds=600) as service:
        started = time.monotonic()
        service.signal(signal.SIGINT)
        assert service.end() == 0
        assert time.monotonic() - started < 30


def test_what_does_not_finish_in_time_is_cut_off() -> None:
    with served(drain_seconds=0, shutdown_seconds=1) as service, ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(service.caption, 4000)
        service.wait_for(b"captioning")
        service.signal()
        service.wait_for(b"requests_cut_off")
        assert service.end() == 0
        cut_off = under_way.result(timeout=60)
        assert (cut_off.status, json.loads(cut_off.body)["code"]) == (503, "shutting_down")
