"""HTTP by hand over a socket, for clients that no library would let misbehave."""

import json
import re
import socket
import urllib.request
from typing import Any, Self

_PATIENCE = 120.0
_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n(.*?)\r\n\r\n", re.DOTALL)


def connect(address: str, receive_buffer: int | None = None) -> socket.socket:
    """`address` as in http://127.0.0.1:8000."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(_PATIENCE)
    connection.connect((host, int(port)))
    return connection


class Exchange:
    """What comes back on a connection, answer by answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.received = b""
        self.ended = False  # closed or reset by the service

    def read_some(self) -> None:
        """As much as comes within the socket's timeout, or nothing."""
        try:
            data = self._connection.recv(65536)
        except TimeoutError:
            return
        except OSError:
            data = b""
        self.received += data
        self.ended = not data

    def send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except TimeoutError:
            pass
        except OSError:
            self.ended = True

    def answer(self) -> Self:
        """Waits for one whole answer with a Content-Length, or for the end."""
        while not self.ended and not self._complete():
            before = len(self.received)
            self.read_some()
            if len(self.received) == before and not self.ended:
                raise TimeoutError(f"no answer; so far {self.received[:200]!r}")
        return self

    def next(self) -> None:
        """Forgets the answer that has come; what is behind it is kept."""
        self.received = self.received[self._head_length() + int(self.header(b"content-length")) :]

    @property
    def status(self) -> int:
        """0: the service has ended the connection without an answer."""
        found = _HEAD.match(self.received)
        return int(found[1]) if found else 0

    def header(self, name: bytes) -> bytes:
        found = _HEAD.match(self.received)
        assert found is not None
        for line in found[2].split(b"\r\n"):
            given, _, value = line.partition(b":")
            if given.lower() == name:
                return value.strip()
        return b""

    @property
    def body(self) -> bytes:
        return self.received[self._head_length() :][: int(self.header(b"content-length"))]

    @property
    def problem(self) -> dict[str, Any]:
        problem: dict[str, Any] = json.loads(self.body)
        return problem

    def _head_length(self) -> int:
        found = _HEAD.match(self.received)
        assert found is not None
        return found.end()

    def _complete(self) -> bool:
        found = _HEAD.match(self.received)
        if found is None:
            return False
        return len(self.received) >= found.end() + int(self.header(b"content-length") or 0)


def metric(address: str, name: str) -> float:
    """A number of /metrics by its name and labels; 0 if it is not there (yet)."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=_PATIENCE) as response:
        for line in response.read().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
    return 0.0
