import struct
import time

import pytest
from sample_pictures import encode, noisy

from app.images import decode_image
from app.jpeg_scans import has_too_many_scans
from retrieval.errors import InvalidImageError

PROGRESSIVE = encode(noisy(), "JPEG", progressive=True)
SCAN = PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2]
EMPTY_SCAN = SCAN[: 2 + int.from_bytes(SCAN[2:4], "big")] + b"\0"


def with_scans(count: int) -> bytes:
    return PROGRESSIVE[:-2] + EMPTY_SCAN * count + b"\xff\xd9"


def test_a_small_file_of_many_scans_is_refused_at_once() -> None:
    data = bytearray(with_scans(20_000))
    size = data.index(b"\xff\xc2") + 5
    data[size : size + 4] = struct.pack(">HH", 7000, 7000)
    begun = time.monotonic()
    with pytest.raises(InvalidImageError, match="more than 100 scans"):
        decode_image(bytes(data))
    assert time.monotonic() - begun < 2


def test_what_encoders_write_is_read() -> None:
    assert decode_image(PROGRESSIVE).width == 120
    assert decode_image(with_scans(80)).width == 120
    assert has_too_many_scans(with_scans(100))


@pytest.mark.parametrize("format", [{}, {"progressive": True}])
def test_only_scans_of_the_picture_count(format: dict[str, bool]) -> None:
    data = encode(noisy(), "JPEG", **format)
    film = b"\xff\xda\0\x02" * 1000
    comment = b"\xff\xfe" + struct.pack(">H", len(film) + 2) + film
    assert decode_image(data + film).width == 120  # as telephones append a film to a photo
    assert decode_image(data[:2] + comment + data[2:]).width == 120
