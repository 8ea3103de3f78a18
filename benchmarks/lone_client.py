"""One request after the other over a plain socket: what a client library needs for itself is not measured.

A client written in Python takes most of a millisecond for a request, which would count as the server's.
"""

import socket
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from benchmarks.target import Answer, Target, model_ms_of

_BOUNDARY = "paellera-benchmark"
_GIVEN_UP = 120.0  # seconds


def one_after_the_other(target: Target, photos: Sequence[bytes], seconds: float) -> list[Answer]:
    """Ask for captions of the photos in turn, on one connection, for so long.

    Raises:
        OSError: the server cannot be reached, or does not answer, or has closed the connection.
        ValueError: an answer has no Content-Length.
    """
    parts = urlsplit(target.url)
    requests = [_request(target, parts.netloc, parts.path, photo) for photo in photos]
    answers: list[Answer] = []
    with socket.create_connection((parts.hostname or "", parts.port or 80), _GIVEN_UP) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            request = requests[len(answers) % len(requests)]
            began = time.perf_counter()
            connection.sendall(request)
            status, body = _read_answer(connection)
            taken = time.perf_counter() - began
            answers.append(Answer(taken, status, model_ms=model_ms_of(body) if status == 200 else 0.0))
    return answers


def _request(target: Target, host: str, path: str, photo: bytes) -> bytes:
    """A form as browsers send it, with its head."""
    fields = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in target.fields
    ]
    image = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="photo"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    body = b"".join([*fields, image, photo, f"\r\n--{_BOUNDARY}--\r\n".encode()])
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _read_answer(connection: socket.socket) -> tuple[int, bytes]:
    """Status and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _read(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "content-length" not in headers:
        raise ValueError(f"an answer without Content-Length: {status}")
    while len(body) < int(headers["content-length"]):
        body += _read(connection)
    return int(status.split()[1]), body


def _read(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the server has closed the connection")
    return data
