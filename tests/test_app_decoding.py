"""Decoding in processes: the same pictures as without, and workers that hang, crash or are killed."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image
from sample_pictures import encode, noisy, plain

from app.decoding import DecodePool, DecodeStatistics
from app.errors import ImageTimeoutError
from app.images import DecodedImage, ImageLimits, decode_image
from retrieval.errors import ImageTooLargeError, InvalidImageError

T = TypeVar("T")
PHOTOS = [encode(plain(), format) for format in ("PNG", "JPEG", "WEBP")]
MEMORY = 2_000_000_000


def with_pool(test: Callable[[DecodePool], Awaitable[T]], *, seconds: float = 60, **options: Any) -> T:
    async def run() -> T:
        pool = DecodePool(ImageLimits(), options.pop("workers", 1), seconds, MEMORY, **options)
        try:
            return await test(pool)
        finally:
            await pool.close()

    return asyncio.run(run())


def obey(data: bytes, limits: ImageLimits) -> DecodedImage:
    """Does what the bytes say; a picture's width is the process it was decoded in."""
    if data == b"hang":
        time.sleep(600)
    if data == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"raise":
        raise RuntimeError
    if data == b"fill":
        bytearray(MEMORY + 1_000_000)
    if data == b"chat":
        os.write(2, b"TIFFReadDirectory: Warning\n")
    if data == b"talk":
        say(b"{]")
    if data == b"size":
        say(json.dumps({"size": [200_000, 200_000], "width": 1, "height": 1, "format": "PNG"}).encode())
    if data == b"shrink":
        os.ftruncate(next(fd for fd in range(3, 100) if "memfd:paellera" in kind_of(fd)), 0)
    return DecodedImage(plain(), os.getpid(), 1, "PNG")


def say(message: bytes) -> None:
    """An answer that no worker of ours gives."""
    pipe = next(fd for fd in range(3, 100) if kind_of(fd).startswith("socket"))
    os.write(pipe, len(message).to_bytes(4, "big") + message)
    time.sleep(600)


def kind_of(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""


def test_pictures_are_the_same_as_without_processes() -> None:
    decoded = with_pool(lambda pool: pool.decode(PHOTOS), workers=2)
    for found, data in zip(decoded, PHOTOS, strict=True):
        expected = decode_image(data)
        assert (found.width, found.height, found.format) == (expected.width, expected.height, expected.format)
        assert found.image.tobytes() == expected.image.tobytes()


def test_pictures_of_any_size_in_any_order_are_not_mixed() -> None:
    pictures = [noisy((900, 70)), plain((0, 255, 0), (3, 2)), noisy((400, 300))]
    files = [encode(picture, "PNG") for picture in pictures]
    decoded = with_pool(lambda pool: pool.decode(files * 4))
    for found, expected in zip(decoded, pictures * 4, strict=True):
        assert found.image.tobytes() == expected.tobytes()


def test_errors_come_through_and_say_which_image() -> None:
    async def test(pool: DecodePool) -> None:
        with pytest.raises(InvalidImageError, match=r"^this is not an image"):
            await pool.decode([b"text"])
        with pytest.raises(InvalidImageError, match=r"^image 2 of 3: the PNG is truncated"):
            await pool.decode([PHOTOS[0], PHOTOS[0][:60], b"text"])
        with pytest.raises(ImageTooLargeError, match=r"^the image has 30,000,000 bytes"):
            await pool.decode([bytes(30_000_000)])

    with_pool(test)


def test_a_hanging_decoder_is_killed_and_the_next_image_is_read() -> None:
    async def test(pool: DecodePool) -> None:
        assert pool.statistics == DecodeStatistics()  # none before they are needed
        (first,) = await pool.decode([b"."])
        with pytest.raises(ImageTimeoutError, match=r"more than 1 s"):
            await pool.decode([b"hang"])
        (second,) = await pool.decode([b"."])
        assert first.width != second.width
        with pytest.raises(ProcessLookupError):
            os.kill(first.width, 0)
        assert pool.statistics == DecodeStatistics((second.width,), starts=2, timeouts=1, crashes=0)

    with_pool(test, seconds=1, decode=obey)


@pytest.mark.parametrize("order", [b"crash", b"raise", b"fill", b"talk", b"size", b"shrink"])
def test_a_worker_that_dies_costs_one_image(order: bytes) -> None:
    async def test(pool: DecodePool) -> None:
        with pytest.raises(InvalidImageError, match="its decoder crashed"):
            await pool.decode([order])
        (other,) = await pool.decode([b"."])
        # Each image has two attempts.
        assert pool.statistics == DecodeStatistics((other.width,), starts=3, timeouts=0, crashes=2)

    with_pool(test, decode=obey)


def test_a_little_memory_is_enough_for_a_little_picture() -> None:
    """What Python and its libraries take is not counted: it depends on the machine."""

    async def test() -> None:
        pool = DecodePool(ImageLimits(), 1, 60, 50_000_000)
        try:
            (decoded,) = await pool.decode([PHOTOS[0]])
            assert decoded.width == 32
            with pytest.raises(ImageTooLargeError, match="more memory"):
                await pool.decode([encode(Image.new("RGB", (6000, 4000)), "PNG")])
        finally:
            await pool.close()

    asyncio.run(test())


def test_the_first_image_finds_the_worker_that_was_started() -> None:
    async def test(pool: DecodePool) -> None:
        await pool.start()
        await pool.start()
        (started,) = pool.statistics.processes
        (decoded,) = await pool.decode([b"."])
        assert decoded.width == started
        assert pool.statistics.starts == 1

    with_pool(test, decode=obey)


def test_a_worker_killed_from_outside_costs_none() -> None:
    async def test(pool: DecodePool) -> None:
        (first,) = await pool.decode([b"."])
        os.kill(first.width, signal.SIGKILL)
        (second,) = await pool.decode([b"."])
        assert first.width != second.width
        assert pool.statistics == DecodeStatistics((second.width,), starts=2, timeouts=0, crashes=1)

    with_pool(test, decode=obey)


def test_what_decoders_print_does_not_get_between_the_lines_of_the_log(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with_pool(lambda pool: pool.decode([b"chat"]), decode=obey)
    assert "TIFF" not in "".join(capfd.readouterr())


def test_workers_end_with_the_pool() -> None:
    pictures = with_pool(lambda pool: pool.decode([b"."] * 4), workers=2, decode=obey)
    for worker in {picture.width for picture in pictures}:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
