"""Photos that lost their end, or some of their bits, on the way."""

import random
from collections.abc import Iterator

from hostile.inputs import CAPTIONED, HostileClass, HostileInput, hostile
from hostile.photos import FORMATS, photo

KILOBYTE = 1024
_FLIPS_PER_FORMAT = 24
# These encoders work in several threads, and how many there are changes the file's size a little.
_SURE_KILOBYTES = {"AVIF": 15, "HEIC": 27}


def _truncated(format: str) -> HostileClass:
    def make() -> Iterator[HostileInput]:
        data = photo(format)
        sure = _SURE_KILOBYTES.get(format, (len(data) - 1) // KILOBYTE)
        for cut in range(1, sure + 1):
            yield HostileInput(f"first {cut} KB", data[: cut * KILOBYTE])
        for missing in (100, 700, 1500, 2300):
            yield HostileInput(f"last {missing} bytes missing", data[:-missing])
        for cut in (1, 2, 3, 4, 8, 12, 16, 24, 33, 64, 100, 200, 400, 700):
            yield HostileInput(f"first {cut} bytes", data[:cut])

    return HostileClass(
        f"truncated {format}",
        f"a photo as {format}, cut at every kilobyte, in its header and near its end",
        frozenset({"invalid_image"}),
        make,
    )


TRUNCATED = tuple(_truncated(format) for format in FORMATS)


def flipped(data: bytes, seed: int, bits: int, reach: int) -> bytes:
    """`data` with so many bits inverted among its first `reach` bytes."""
    draw, result = random.Random(seed), bytearray(data)
    for _ in range(bits):
        result[draw.randrange(min(reach, len(data)))] ^= 1 << draw.randrange(8)
    return bytes(result)


@hostile(
    "photos of every format with a few bits inverted, in the header or anywhere",
    CAPTIONED,
    "invalid_image",
)
def _bit_flips() -> Iterator[HostileInput]:
    for format in FORMATS:
        data = photo(format)
        for seed in range(_FLIPS_PER_FORMAT):
            bits, reach = ((1, 3, 10)[seed % 3], 300 if seed % 2 else len(data))
            yield HostileInput(f"{format}, seed {seed}", flipped(data, seed, bits, reach))


@hostile(
    "photos with a piece taken out, doubled, zeroed or exchanged for one of another format",
    CAPTIONED,
    "invalid_image",
)
def _pieces() -> Iterator[HostileInput]:
    for number, format in enumerate(FORMATS):
        data, other = photo(format), photo(FORMATS[number - 1])
        third, half = len(data) // 3, len(data) // 2
        yield HostileInput(f"{format}, middle taken out", data[:third] + data[2 * third :])
        yield HostileInput(f"{format}, second half twice", data + data[half:])
        yield HostileInput(f"{format}, middle zeroed", data[:third] + bytes(third) + data[2 * third :])
        yield HostileInput(f"{format}, then {FORMATS[number - 1]}", data[:half] + other[half:])
        yield HostileInput(f"{format}, header of 32 bytes doubled", data[:32] + data)
