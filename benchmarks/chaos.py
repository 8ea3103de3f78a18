"""Clients that leave, stall and talk nonsense, as drawn by a seed: what happens on the open internet.

Each misbehaviour takes a request that would be good and spoils it somewhere. None of them looks at what it
gets; that the service stays whole is seen from good requests meanwhile and from its metrics afterwards.
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from benchmarks.wire import Request, read_response

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: nothing is delivered any more, the other side gets a reset
_LONGEST = 30.0  # seconds of one misbehaviour, whatever the service does


class Chaos:
    """Misbehaves at one service.

    Args:
        requests: good ones, to be spoilt.
        slowest: seconds for which a slow client goes on before it leaves.
        only_slow: no other kinds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        requests: Sequence[Request],
        draw: random.Random,
        slowest: float = 1.0,
        only_slow: bool = False,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._address = host, port
        self._requests = requests
        self._draw = draw
        self._slowest = slowest
        slow: list[Callable[[Request, _Connection], Awaitable[None]]]
        slow = [self._slow_head, self._slow_body, self._slow_reader]
        others = [
            self._leaves_in_the_head,
            self._leaves_in_the_body,
            self._leaves_while_waiting,
            self._leaves_while_reading,
            self._closes_half,
            self._leaves_in_the_second_request,
            self._nonsense,
            self._nonsense_behind_a_request,
            self._several_at_once,
            self._wrong_length,
            self._broken_chunks,
        ]
        self._kinds = slow if only_slow else [*slow, *others]

    async def misbehave(self) -> None:
        """Once, in a way that is drawn. What the service does about it is its own affair."""
        kind, request = self._draw.choice(self._kinds), self._draw.choice(self._requests)
        name = kind.__name__.strip("_")
        self.done[name] += 1
        with suppress(OSError, asyncio.IncompleteReadError, ValueError, TimeoutError):
            async with asyncio.timeout(_LONGEST):
                connection = await _Connection.open(*self._address)
                try:
                    await kind(request, connection)
                finally:
                    connection.leave(self._draw.choice(("close", "reset", "reset", "half")))

    async def _pause(self) -> None:
        await asyncio.sleep(self._draw.choice((0.0, 0.0, 0.002, 0.02, 0.2)))

    async def _leaves_in_the_head(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.head[: self._draw.randrange(len(request.head))])
        await self._pause()

    async def _leaves_in_the_body(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.head + request.body[: self._draw.randrange(len(request.body) + 1)])
        await self._pause()

    async def _leaves_while_waiting(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.bytes)
        await self._pause()

    async def _leaves_while_reading(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.bytes)
        await connection.reader.read(self._draw.choice((1, 20, 300)))

    async def _closes_half(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.bytes[: self._draw.choice((10, len(request.head), len(request.bytes)))])
        connection.finish()
        await connection.reader.read()

    async def _leaves_in_the_second_request(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.bytes)
        await read_response(connection.reader)
        connection.send(request.bytes[: self._draw.randrange(len(request.bytes))])
        await self._pause()

    async def _nonsense(self, request: Request, connection: "_Connection") -> None:
        connection.send(self._draw.randbytes(self._draw.choice((1, 100, 20_000))) + b"\r\n\r\n")
        await connection.reader.read()

    async def _nonsense_behind_a_request(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.bytes + self._draw.randbytes(50) + b"\r\n\r\n")
        await connection.reader.read()

    async def _several_at_once(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.bytes * self._draw.randint(2, 5))
        for _ in range(self._draw.randint(0, 2)):
            await read_response(connection.reader)

    async def _wrong_length(self, request: Request, connection: "_Connection") -> None:
        """The service waits for more, or takes the rest for the next request."""
        right = b"Content-Length: %d" % len(request.body)
        wrong = b"Content-Length: %d" % max(len(request.body) + self._draw.choice((-40, -1, 1, 10**9)), 0)
        also = self._draw.choice((b"", b"", b"\r\nContent-Length: 3", b"\r\nTransfer-Encoding: chunked"))
        connection.send(request.head.replace(right, wrong + also) + request.body)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await connection.reader.read()

    async def _broken_chunks(self, request: Request, connection: "_Connection") -> None:
        length = b"Content-Length: %d" % len(request.body)
        connection.send(request.head.replace(length, b"Transfer-Encoding: chunked"))
        for _ in range(self._draw.randint(0, 5)):
            piece = self._draw.randbytes(self._draw.randint(1, 2000))
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._pause()
        connection.send(
            self._draw.choice((b"", b"zzz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"5\r\nab"))
        )
        await self._pause()

    async def _slow_head(self, request: Request, connection: "_Connection") -> None:
        await self._drip(request.head, connection)

    async def _slow_body(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.head)
        await self._drip(request.body, connection)

    async def _slow_reader(self, request: Request, connection: "_Connection") -> None:
        connection.send(request.bytes)
        end = asyncio.get_running_loop().time() + self._slowest
        while asyncio.get_running_loop().time() < end and await connection.reader.read(1):
            await asyncio.sleep(0.05)

    async def _drip(self, data: bytes, connection: "_Connection") -> None:
        end = asyncio.get_running_loop().time() + self._slowest
        for byte in data:
            if connection.is_over or asyncio.get_running_loop().time() > end:
                return
            connection.send(bytes([byte]))
            await asyncio.sleep(0.05)


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, host: str, port: int) -> "_Connection":
        return cls(*await asyncio.open_connection(host, port))

    @property
    def is_over(self) -> bool:
        return self.reader.at_eof() or self.reader.exception() is not None or self._writer.is_closing()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def finish(self) -> None:
        """Says that nothing more will come, and goes on reading."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    def leave(self, way: str) -> None:
        connection: socket.socket = self._writer.get_extra_info("socket")
        if way == "reset":
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif way == "half":
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        self._writer.transport.abort()
