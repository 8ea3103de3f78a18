"""Stopping, as a load balancer and its callers see it: real processes, real signals."""

import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served import COMMAND, PHOTO, ROOT, environment, served


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
        assert [future.result(timeout=120).status for future in under_way] == [200] * 6
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
        assert under_way.result(timeout=120).status == 200
        assert service.end() == 0


def test_a_request_whose_body_is_still_coming_is_not_lost() -> None:
    with served(drain_seconds=0) as service:
        host, _, port = service.address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=120) as connection:
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


def test_silent_connections_do_not_hold_up_the_end() -> None:
    with served(drain_seconds=0, shutdown_seconds=600) as service:
        host, _, port = service.address.removeprefix("http://").rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=120) as silent,
            socket.create_connection((host, int(port)), timeout=120) as slow,
        ):
            slow.sendall(b"POST /v1/captions HTTP/1.1\r\nHost: he")
            assert service.get("/livez").status == 200  # both have been accepted
            service.signal()
            assert service.end() == 0
            assert silent.recv(1000) == b""


@pytest.mark.parametrize("further", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_drain(further: signal.Signals) -> None:
    with served(drain_seconds=600) as service, ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(service.caption, 800)
        service.wait_for(b"captioning")
        service.signal()
        service.wait_for(b"draining")
        service.signal(further)
        assert under_way.result(timeout=120).status == 200
        assert service.end() == 0


def test_a_signal_while_closing_ends_at_once() -> None:
    with served(drain_seconds=0, shutdown_seconds=600) as service, ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(service.caption, 3000)
        service.wait_for(b"captioning")
        service.signal()
        service.wait_for(b"closing")
        service.signal()
        service.wait_for(b"requests_cut_off")
        assert service.end() == 0
        cut_off = under_way.result(timeout=120)
        assert (cut_off.status, json.loads(cut_off.body)["code"]) == (503, "shutting_down")


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
        cut_off = under_way.result(timeout=120)
        assert (cut_off.status, json.loads(cut_off.body)["code"]) == (503, "shutting_down")


def test_a_full_disk_under_the_log_changes_nothing() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = environment({"port": port, "drain_seconds": 0})
    with full.open("wb") as disk, subprocess.Popen(COMMAND, cwd=ROOT, env=settings, stderr=disk) as process:
        try:
            deadline = time.monotonic() + 120
            while not is_ready(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            address = f"http://127.0.0.1:{port}/v1/captions"
            request = urllib.request.Request(address, PHOTO, {"Content-Type": "image/png"})
            with urllib.request.urlopen(request, timeout=120) as response:
                assert response.status == 200
            process.terminate()
            assert process.wait(timeout=120) == 0
        finally:
            process.kill()


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=120):
            return True
    except urllib.error.URLError:  # not listening yet, or 503
        return False
