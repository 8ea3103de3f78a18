"""Slow clients and too many of them, as sockets: each of them ends, and the others are answered meanwhile."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from echo_captioner import EchoCaptioner
from live_service import live_service
from raw_client import Exchange, connect, metric
from sample_pictures import encode, noisy, plain
from waiting import wait_until

PHOTO = encode(plain(), "PNG")
HEAD = b"POST /v1/captions HTTP/1.1\r\nHost: here\r\nContent-Type: image/png\r\n"
GOOD = HEAD + b"Content-Length: %d\r\n\r\n" % len(PHOTO) + PHOTO
QUICK = {"header_seconds": 0.8, "send_seconds": 0.8, "body_seconds": 1.6, "body_bytes_per_second": 1000}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with live_service(EchoCaptioner(), **QUICK) as address:
        yield address


def drip(connection: socket.socket, begin: bytes, byte: bytes) -> tuple[Exchange, float]:
    """Sends `begin`, then a byte now and then, until the other side ends it; with the seconds it took."""
    began = time.monotonic()
    exchange = Exchange(connection)
    connection.sendall(begin)
    connection.settimeout(0.1)
    while not exchange.ended and time.monotonic() < began + 30:
        exchange.read_some()
        if not exchange.ended and not exchange.received:
            exchange.send(byte)
    return exchange, time.monotonic() - began


def test_a_head_that_comes_byte_by_byte_is_ended(address: str) -> None:
    with connect(address) as slow:
        exchange, seconds = drip(slow, HEAD, b"X")
    assert 0.7 < seconds < 10
    assert exchange.status == 408
    assert exchange.problem["code"] == "request_timeout"
    assert exchange.header(b"connection") == b"close"


def test_a_connection_that_says_nothing_is_closed_without_a_word(address: str) -> None:
    with connect(address) as silent:
        silent.settimeout(10)
        began = time.monotonic()
        assert silent.recv(100) == b""
        assert time.monotonic() - began > 0.7


def test_the_second_head_of_a_connection_is_ended_too(address: str) -> None:
    with connect(address) as slow:
        exchange = Exchange(slow)
        slow.sendall(GOOD)
        assert exchange.answer().status == 200
        exchange, _ = drip(slow, b"POST /v1/cap", b"t")
    assert exchange.status == 408


@pytest.mark.parametrize(
    ("length", "first"), [(1_000_000, 0), (1_000_000, 500)], ids=["from the beginning", "later"]
)
def test_a_body_that_comes_byte_by_byte_is_answered_408(address: str, length: int, first: int) -> None:
    with connect(address) as slow:
        begin = HEAD + b"Content-Length: %d\r\n\r\n" % length + PHOTO[:1] * first
        exchange, seconds = drip(slow, begin, b"x")
    assert 0.7 < seconds < 10
    assert (exchange.status, exchange.problem["code"]) == (408, "request_timeout")
    assert exchange.header(b"connection") == b"close"
    assert exchange.header(b"x-request-id").decode() == exchange.problem["request_id"]


def test_a_body_at_pace_ends_after_its_whole_time(address: str) -> None:
    with connect(address) as slow:
        exchange, seconds = drip(slow, HEAD + b"Content-Length: 10000000\r\n\r\n", bytes(2000))
    assert exchange.status == 408
    assert 1.5 < seconds < 10


def test_a_body_that_comes_in_pieces_is_no_slow_one(address: str) -> None:
    photo = encode(noisy((20, 20)), "PNG")
    with connect(address) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(photo))
        for place in range(0, len(photo), 300):
            connection.sendall(photo[place : place + 300])
            time.sleep(0.1)
        assert Exchange(connection).answer().status == 200


def test_a_body_that_nobody_reads_any_more_is_ended(address: str) -> None:
    with connect(address) as slow:
        slow.sendall(b"POST /nowhere HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n")
        exchange = Exchange(slow)
        assert exchange.answer().status == 404
        began = time.monotonic()
        slow.settimeout(0.1)
        while not exchange.ended and time.monotonic() < began + 30:
            exchange.send(b"x")
            exchange.read_some()
        assert exchange.ended
        assert time.monotonic() - began < 10


def test_a_client_that_takes_nothing_of_its_answer_is_ended(address: str) -> None:
    # More than the kernel's buffers hold: the OpenAPI document, again and again, and none of it is read.
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: here\r\n\r\n"
    before = metric(address, 'paellera_connections_cut_total{reason="answer"}')
    with connect(address, receive_buffer=4096) as lazy:
        lazy.settimeout(0.5)
        deadline = time.monotonic() + 60
        while metric(address, 'paellera_connections_cut_total{reason="answer"}') == before:
            assert time.monotonic() < deadline
            try:
                lazy.sendall(asked * 20)
            except TimeoutError:
                time.sleep(0.2)  # the service reads no more requests of a client that takes no answers
            except OSError:
                break
    assert metric(address, 'paellera_connections_cut_total{reason="answer"}') == before + 1


def test_what_is_not_http_is_answered_with_a_problem_document(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        exchange = Exchange(connection).answer()
    assert (exchange.status, exchange.problem["code"]) == (400, "malformed_request")
    assert exchange.header(b"content-type") == b"application/problem+json"


def test_nonsense_behind_a_request_does_not_disturb_its_answer(address: str) -> None:
    with connect(address) as connection:
        connection.sendall(GOOD + b"\x00\x01 nonsense\r\n\r\n")
        exchange = Exchange(connection)
        assert exchange.answer().status == 200
        exchange.next()
        assert exchange.answer().status == 400


def test_good_clients_are_answered_while_slow_ones_hold_connections() -> None:
    with (
        live_service(EchoCaptioner(), max_connections=20, header_seconds=60) as address,
        ExitStack() as stack,
    ):
        for number in range(40):  # twice as many as there may be, each with half a head
            slow = stack.enter_context(connect(address))
            slow.sendall(HEAD[: 10 + number])
        for _ in range(3):
            with connect(address) as good:
                good.sendall(GOOD)
                assert Exchange(good).answer().status == 200
        assert metric(address, "paellera_connections") <= 20
        assert metric(address, 'paellera_connections_cut_total{reason="displaced"}') >= 20


def test_when_all_connections_are_at_work_a_new_one_is_refused_and_probes_are_answered() -> None:
    with live_service(EchoCaptioner(), max_connections=3) as address, ExitStack() as stack:
        busy = [stack.enter_context(connect(address)) for _ in range(3)]
        for one in busy:
            one.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(PHOTO))
            assert one.recv(1000).startswith(b"HTTP/1.1 100 ")  # its body is being waited for
        assert metric(address, "paellera_requests_under_way") == 3
        with connect(address) as late:
            late.sendall(GOOD)
            refused = Exchange(late).answer()
        assert (refused.status, refused.problem["code"]) == (503, "too_many_connections")
        assert int(refused.header(b"retry-after")) > 0
        with connect(address) as probe:
            probe.sendall(b"GET /readyz HTTP/1.1\r\nHost: here\r\n\r\n")
            assert json.loads(Exchange(probe).answer().body) == {"status": "ready"}
        for one in busy:  # and those who were there first get what they came for
            one.sendall(PHOTO)
            assert Exchange(one).answer().status == 200
        wait_until(lambda: metric(address, "paellera_requests_under_way") == 0)
        with connect(address) as after:
            after.sendall(GOOD)
            assert Exchange(after).answer().status == 200
