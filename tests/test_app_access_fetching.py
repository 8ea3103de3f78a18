import asyncio
from collections.abc import Sequence

import pytest
from tls_image_host import PUBLIC, HostedImages, hosting, image_answer, redirect

from app.access.fetching import ImageFetcher
from app.errors import BodyTooLargeError, FetchFailedError, FetchTimeoutError, UrlNotAllowedError
from app.settings import Settings
from retrieval.errors import ImageTooLargeError

HOST = "images.example.org"
PHOTO = bytes(range(256)) * 20


def fetch(
    images: HostedImages,
    *urls: str,
    names: Sequence[str] = (HOST, "a.cdn.example.net"),
    max_image_bytes: int = 10_000,
    max_total_bytes: int = 100_000,
    seconds: float = 20.0,
) -> list[bytes]:
    """Fetches these URLs, from loopback, as if it were the internet."""

    async def run() -> list[bytes]:
        async with hosting(images, *names) as tls:
            fetcher = ImageFetcher(
                (HOST, "*.cdn.example.net"),
                max_image_bytes=max_image_bytes,
                max_total_bytes=max_total_bytes,
                seconds=seconds,
                resolve=images.resolve,
                network=images.network,
                tls=tls,
            )
            found = await fetcher.fetch(dict(enumerate(urls)), len(urls))
        return [found[place] for place in range(len(urls))]

    return asyncio.run(run())


def test_an_image_is_fetched_from_the_address_that_was_checked() -> None:
    images = HostedImages({"/cat.jpg?size=2": image_answer(PHOTO, "Content-Type: text/html")})
    assert fetch(images, f"https://{HOST}/cat.jpg?size=2#top") == [PHOTO]
    assert images.dialled == [(PUBLIC, 443)]
    assert images.server_names == [HOST]  # the name goes into the handshake, the address to the network
    (head,) = images.requests
    lines = head.lower().split("\r\n")
    assert lines[0] == "get /cat.jpg?size=2 http/1.1"
    assert f"host: {HOST}" in lines
    assert "accept-encoding: identity" in lines
    assert not any(line.startswith(("cookie:", "authorization:", "referer:")) for line in lines)


def test_several_images_come_in_their_order() -> None:
    slow_is_sent = asyncio.Event()

    async def slow(head: str, writer: asyncio.StreamWriter) -> None:
        await slow_is_sent.wait()
        writer.write(image_answer(b"first"))

    async def quick(head: str, writer: asyncio.StreamWriter) -> None:
        slow_is_sent.set()  # the first answer waits for the second request, so they are under way together
        writer.write(image_answer(b"second"))

    images = HostedImages({"/1": slow, "/2": quick})
    assert fetch(images, f"https://{HOST}/1", f"https://{HOST}/2") == [b"first", b"second"]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::ffff:10.0.0.1", "::1", "fe80::1%1"]
)
@pytest.mark.parametrize("beside", [[], [PUBLIC]])
def test_a_name_with_a_private_address_is_not_connected_to(address: str, beside: list[str]) -> None:
    images = HostedImages({"/": image_answer(PHOTO)}, {HOST: [[*beside, address]]})
    with pytest.raises(UrlNotAllowedError, match="not public") as error:
        fetch(images, f"https://{HOST}/")
    assert images.dialled == []
    assert address not in str(error.value)


def test_a_name_server_that_changes_its_mind_changes_nothing() -> None:
    images = HostedImages({"/": image_answer(PHOTO)}, {HOST: [[PUBLIC], ["127.0.0.1"]]})
    assert fetch(images, f"https://{HOST}/") == [PHOTO]
    assert images.resolved == [HOST]
    assert images.dialled == [(PUBLIC, 443)]


def test_after_a_redirect_the_name_is_looked_up_and_checked_again() -> None:
    images = HostedImages(
        {"/": redirect("/again"), "/again": image_answer(PHOTO)}, {HOST: [[PUBLIC], ["127.0.0.1"]]}
    )
    with pytest.raises(UrlNotAllowedError, match="not public"):
        fetch(images, f"https://{HOST}/")
    assert images.resolved == [HOST, HOST]
    assert images.dialled == [(PUBLIC, 443)]


def test_redirects_among_listed_hosts_are_followed() -> None:
    images = HostedImages(
        {
            "/1": redirect("/2", 301),
            "/2": redirect("https://a.cdn.example.net/3", 307),
            "/3": redirect("4", 308),
            "/4": image_answer(PHOTO),
        },
        {"a.cdn.example.net": [["8.8.8.8"]]},
    )
    assert fetch(images, f"https://{HOST}/1") == [PHOTO]
    assert [address for address, _ in images.dialled] == [PUBLIC, PUBLIC, "8.8.8.8", "8.8.8.8"]
    assert images.server_names == [HOST, HOST, "a.cdn.example.net", "a.cdn.example.net"]


def test_redirects_in_a_circle_end() -> None:
    images = HostedImages({"/": redirect("/")})
    with pytest.raises(FetchFailedError, match="more than 3 times"):
        fetch(images, f"https://{HOST}/")
    assert len(images.dialled) == 4


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://0x7f.1/",
        f"http://{HOST}/",
        f"https://{HOST}:8443/",
        "https://evil.example/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "https://\u00e9.example/",
    ],
)
def test_redirects_elsewhere_are_not_followed(location: str) -> None:
    images = HostedImages({"/": redirect(location)})
    with pytest.raises(UrlNotAllowedError, match="redirects"):
        fetch(images, f"https://{HOST}/")
    assert images.dialled == [(PUBLIC, 443)]


def test_nothing_is_fetched_unless_all_may_be() -> None:
    images = HostedImages({"/": image_answer(PHOTO)})
    with pytest.raises(UrlNotAllowedError, match=r"^image 2 of 2: "):
        fetch(images, f"https://{HOST}/", "https://evil.example/")
    assert (images.resolved, images.dialled) == ([], [])


def test_a_certificate_for_another_name() -> None:
    images = HostedImages({"/": image_answer(PHOTO)})
    with pytest.raises(FetchFailedError, match=HOST):
        fetch(images, f"https://{HOST}/", names=("other.example.org",))
    assert images.requests == []


def test_a_certificate_that_nobody_vouches_for() -> None:
    images = HostedImages({"/": image_answer(PHOTO)})

    async def run() -> None:
        async with hosting(images, HOST):
            fetcher = ImageFetcher(
                (HOST,),
                max_image_bytes=10_000,
                max_total_bytes=10_000,
                seconds=20.0,
                resolve=images.resolve,
                network=images.network,
            )
            await fetcher.fetch({0: f"https://{HOST}/"}, 1)

    with pytest.raises(FetchFailedError):
        asyncio.run(run())
    assert images.requests == []


def test_the_second_address_is_tried_when_the_first_does_not_answer() -> None:
    images = HostedImages({"/": image_answer(PHOTO)}, {HOST: [["2606:2800:220:1::1", PUBLIC]]})
    images.unreachable.add("2606:2800:220:1::1")
    assert fetch(images, f"https://{HOST}/") == [PHOTO]
    assert [address for address, _ in images.dialled] == ["2606:2800:220:1::1", PUBLIC]
    images.unreachable.add(PUBLIC)
    with pytest.raises(FetchFailedError):
        fetch(images, f"https://{HOST}/")


async def endless(head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"400\r\n" + bytes(1024) + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("announced", [True, False])
def test_an_image_with_too_many_bytes(announced: bool) -> None:
    images = HostedImages({"/": image_answer(bytes(10_001)) if announced else endless})
    with pytest.raises(ImageTooLargeError, match="10,000"):
        fetch(images, f"https://{HOST}/")
    assert fetch(HostedImages({"/": image_answer(bytes(10_000))}), f"https://{HOST}/") == [bytes(10_000)]


def test_images_that_are_too_large_together() -> None:
    images = HostedImages({f"/{number}": image_answer(bytes(9_000)) for number in range(3)})
    urls = [f"https://{HOST}/{number}" for number in range(3)]
    assert fetch(images, *urls, max_total_bytes=27_000) == [bytes(9_000)] * 3
    with pytest.raises(BodyTooLargeError, match="26,999"):
        fetch(images, *urls, max_total_bytes=26_999)


@pytest.mark.parametrize("stage", ["silence", "drip"])
def test_a_host_that_takes_its_time(stage: str) -> None:
    async def drip(head: str, writer: asyncio.StreamWriter) -> None:
        if stage == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        while not writer.is_closing():  # never silent for long, so that only a limit on the whole helps
            if stage == "drip":
                writer.write(b"x")
                await writer.drain()
            await asyncio.sleep(0.02)

    with pytest.raises(FetchTimeoutError, match=r"0\.4 seconds"):
        fetch(HostedImages({"/": drip}), f"https://{HOST}/", seconds=0.4)


def test_a_name_server_that_takes_its_time() -> None:
    class Silent(HostedImages):
        async def resolve(self, host: str) -> Sequence[str]:
            await asyncio.sleep(60)
            return []

    with pytest.raises(FetchTimeoutError):
        fetch(Silent(), f"https://{HOST}/", seconds=0.1)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", "status 304"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (image_answer(PHOTO, "Content-Encoding: gzip"), "compressed"),
        (b"this is not HTTP\r\n\r\n", HOST),
        (b"", HOST),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf", HOST),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", HOST),
    ],
)
def test_answers_that_are_no_image(answer: bytes, hint: str) -> None:
    with pytest.raises(FetchFailedError, match=hint):
        fetch(HostedImages({"/": answer}), f"https://{HOST}/")


def test_a_name_that_does_not_exist() -> None:
    class Unknown(HostedImages):
        async def resolve(self, host: str) -> Sequence[str]:
            raise OSError("no such name")

    with pytest.raises(FetchFailedError, match="not found"):
        fetch(Unknown(), f"https://{HOST}/")
    with pytest.raises(FetchFailedError, match="no address"):
        fetch(HostedImages(addresses={HOST: [[]]}), f"https://{HOST}/")


def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(HostedImages({"/": image_answer(PHOTO)}), f"https://{HOST}/") == [PHOTO]


def test_settings_decide_whether_anything_is_fetched() -> None:
    assert ImageFetcher.from_settings(Settings()) is None
    assert ImageFetcher.from_settings(Settings(url_hosts=(HOST,))) is not None
