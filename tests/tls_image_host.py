"""A host of images on loopback, with a certificate of its own and a network that believes it to be elsewhere.

Names resolve to public addresses, as the caller of `HostedImages` says; connections to those addresses are
counted and end here. So all checks of app/access/fetching.py stay as they are while it is tested.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpcore2
import trustme

PUBLIC = "93.184.216.34"
Handler = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class HostedImages:
    """What the host answers, by path, and what it was asked."""

    answers: dict[str, bytes | Handler] = field(default_factory=dict)
    addresses: dict[str, list[Sequence[str]]] = field(
        default_factory=dict
    )  # of a name, one answer after another
    unreachable: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)  # heads as received
    resolved: list[str] = field(default_factory=list)
    dialled: list[tuple[str, int]] = field(default_factory=list)
    server_names: list[str | None] = field(default_factory=list)
    port: int = 0

    async def resolve(self, host: str) -> Sequence[str]:
        self.resolved.append(host)
        answers = self.addresses.get(host, [[PUBLIC]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    @property
    def network(self) -> httpcore2.AsyncNetworkBackend:
        return _Loopback(self)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            path = head.split(" ")[1]
            answer = self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(head, writer)
            await writer.drain()
        with suppress(ConnectionError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()


class _Loopback(httpcore2.AsyncNetworkBackend):
    def __init__(self, images: HostedImages) -> None:
        self._images = images
        self._real = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self._images.dialled.append((host, port))
        if host in self._images.unreachable:
            raise httpcore2.ConnectError("unreachable")
        return await self._real.connect_tcp("127.0.0.1", self._images.port, timeout)


AUTHORITY = trustme.CA()


@asynccontextmanager
async def hosting(images: HostedImages, *names: str) -> AsyncIterator[ssl.SSLContext]:
    """Runs the host, certified for `names`; gives the context of a client that trusts its authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)

    def note(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        images.server_names.append(name)

    context.sni_callback = note
    server = await asyncio.start_server(images.serve, "127.0.0.1", 0, ssl=context)
    images.port = server.sockets[0].getsockname()[1]
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    try:
        yield client
    finally:
        server.close()


def image_answer(content: bytes, *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
