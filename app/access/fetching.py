"""Fetches images from hosts that the operator lists, without becoming a door into the operator's network.

A host's name is looked up once for each hop, every address it has must be public, and the connection goes to
those very addresses: a name server that gives another answer the next time changes nothing. The certificate
is checked against the name. Redirects go through all of it again. What the server says of the content (its
type, its length) is not believed; bytes are counted. Proxies from the environment, cookies and compression
have no part in it.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import certifi
import httpcore2

from app.access.public_address import is_public
from app.access.url_policy import HttpsUrl, allowed_url, redirected_url
from app.errors import BodyTooLargeError, FetchFailedError, FetchTimeoutError, UrlNotAllowedError
from app.settings import Settings
from app.version import paellera_version
from retrieval.errors import ImageTooLargeError, InvalidRequestError

Resolve = Callable[[str], Awaitable[Sequence[str]]]
_PORT = 443
_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECT_SECONDS = 3.0  # for one address of several
_AT_ONCE = 16  # fetches of all requests together
_CONNECTION_ERRORS = (
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    OSError,  # ssl.SSLError is one
)


class ImageFetcher:
    """`hosts` as app/access/url_policy.py checks them; sizes in bytes.

    `resolve`, `network` and `tls` are for tests; what they stand for cannot be set from outside.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        max_image_bytes: int,
        max_total_bytes: int,
        seconds: float,
        resolve: Resolve | None = None,
        network: httpcore2.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._hosts = tuple(hosts)
        self._max_image_bytes = max_image_bytes
        self._max_total_bytes = max_total_bytes
        self._seconds = seconds
        self._resolve = resolve or _look_up
        self._network = network or httpcore2.AnyIOBackend()
        self._tls = tls or ssl.create_default_context(cafile=certifi.where())
        self._places = asyncio.Semaphore(_AT_ONCE)

    @classmethod
    def from_settings(cls, settings: Settings) -> "ImageFetcher | None":
        """None where no host is listed: then nothing is fetched."""
        if not settings.url_hosts:
            return None
        return cls(
            settings.url_hosts,
            max_image_bytes=settings.max_image_bytes,
            max_total_bytes=settings.max_body_bytes,
            seconds=settings.url_seconds,
        )

    async def fetch(self, urls: Mapping[int, str], images: int) -> dict[int, bytes]:
        """The bytes behind each URL, fetched at the same time and within one time limit.

        The keys of `urls` are the places, from 0, that they have among the `images` of a request; errors name
        them. Nothing is fetched unless all of them may be. Raises UrlNotAllowedError, FetchFailedError,
        FetchTimeoutError, ImageTooLargeError, or BodyTooLargeError for all of them together.
        """
        names = {place: f"image {place + 1} of {images}: " if images > 1 else "" for place in urls}
        allowed = {}
        for place, url in urls.items():
            with _prefixed(names[place]):
                allowed[place] = allowed_url(url, self._hosts)
        try:
            async with asyncio.timeout(self._seconds):
                return await self._fetch_all(allowed, names)
        except TimeoutError:
            raise FetchTimeoutError(
                f"what the request names by url did not arrive within {self._seconds:g} seconds"
            ) from None

    async def _fetch_all(self, urls: Mapping[int, HttpsUrl], names: Mapping[int, str]) -> dict[int, bytes]:
        budget = _Budget(self._max_total_bytes)
        try:
            async with asyncio.TaskGroup() as group:  # the first error ends the others
                tasks = {
                    place: group.create_task(self._fetch_one(url, names[place], budget))
                    for place, url in urls.items()
                }
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {place: task.result() for place, task in tasks.items()}

    async def _fetch_one(self, url: HttpsUrl, name: str, budget: "_Budget") -> bytes:
        with _prefixed(name):
            async with self._places:
                for _ in range(1 + _MOST_REDIRECTS):
                    answer = await self._request(url, budget)
                    if isinstance(answer, bytes):
                        return answer
                    url = redirected_url(url, answer, self._hosts)
            raise FetchFailedError(f"the url redirects more than {_MOST_REDIRECTS} times")

    async def _request(self, url: HttpsUrl, budget: "_Budget") -> bytes | str:
        """The body, or where the answer redirects to."""
        addresses = await self._public_addresses(url.host)
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self._tls,
            network_backend=_Pinned(addresses, self._network),
            max_connections=1,
        )
        target = httpcore2.URL(scheme="https", host=url.host, port=_PORT, target=url.target)
        headers: dict[bytes | str, bytes | str] = {
            "Host": url.host,
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": f"paellera/{paellera_version()}",
        }
        try:
            async with pool, pool.stream("GET", target, headers=headers) as response:
                return await self._read(response, url.host, budget)
        except _CONNECTION_ERRORS as error:
            # The class alone: messages may tell the caller what this network looks like from the inside.
            raise FetchFailedError(f"fetching from {url.host} failed ({type(error).__name__})") from None

    async def _public_addresses(self, host: str) -> Sequence[str]:
        try:
            addresses = await self._resolve(host)
        except (OSError, UnicodeError):
            raise FetchFailedError(f"the host {host} is not found") from None
        if not addresses:
            raise FetchFailedError(f"the host {host} has no address")
        if not all(is_public(address) for address in addresses):
            raise UrlNotAllowedError(f"the host {host} has an address that is not public")
        return addresses

    async def _read(self, response: httpcore2.Response, host: str, budget: "_Budget") -> bytes | str:
        headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status in _REDIRECTS and b"location" in headers:
            return headers[b"location"]
        if response.status != 200:
            raise FetchFailedError(f"{host} answered with status {response.status}")
        if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
            raise FetchFailedError(f"{host} sent the image compressed, which was not asked for")
        too_large = ImageTooLargeError(
            f"the image has more than the {self._max_image_bytes:,} bytes accepted"
        )
        length = headers.get(b"content-length", "")
        if length.isdigit() and int(length) > self._max_image_bytes:
            raise too_large
        content = bytearray()
        async for chunk in response.aiter_stream():
            if len(content) + len(chunk) > self._max_image_bytes:
                raise too_large
            budget.take(len(chunk))
            content += chunk
        return bytes(content)


class _Pinned(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked before, whatever name it is asked for."""

    def __init__(self, addresses: Sequence[str], network: httpcore2.AsyncNetworkBackend) -> None:
        self._addresses = addresses
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failed: Exception | None = None
        for address in self._addresses:
            try:
                return await self._network.connect_tcp(
                    address, port, _CONNECT_SECONDS, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore2.ConnectError("no address")


class _Budget:
    """Bytes left for all images of a request."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._left = size

    def take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise BodyTooLargeError(f"the images have together more than the {self._size:,} bytes accepted")


@contextmanager
def _prefixed(name: str) -> Iterator[None]:
    """Errors say which image they are about."""
    try:
        yield
    except InvalidRequestError as error:
        raise type(error)(f"{name}{error}") from None


async def _look_up(host: str) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, _PORT, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
