"""One real photo in every format that is read, small enough to be sent hundreds of times."""

import io
import struct
import zlib
from functools import cache

import numpy as np
import pillow_heif
from PIL import Image
from sample_pictures import encode, png_chunk

from app.commands.demo import SAMPLES

FORMATS = (
    "JPEG baseline",
    "JPEG progressive",
    "PNG",
    "PNG interlaced",
    "WebP lossy",
    "WebP lossless",
    "GIF",
    "BMP",
    "TIFF",
    "TIFF LZW",
    "TIFF deflate",
    "AVIF",
    "HEIC",
)


@cache
def picture(longest: int = 256) -> Image.Image:
    """The cat of the demo."""
    with Image.open(SAMPLES[0].path) as image:
        small = image.convert("RGB")
    small.thumbnail((longest, longest))
    small.info = {}  # a profile at the end of a file could be cut off without loss of a pixel
    return small


@cache
def photo(format: str = "JPEG baseline", longest: int = 256) -> bytes:
    """The picture as a file; the same bytes every time."""
    image = picture(longest)
    match format:
        case "JPEG baseline":
            return encode(image, "JPEG", quality=95)
        case "JPEG progressive":
            return encode(image, "JPEG", quality=95, progressive=True)
        case "PNG interlaced":
            return interlaced_png(image)
        case "WebP lossy":
            return encode(image, "WEBP", quality=95)
        case "WebP lossless":
            return encode(image, "WEBP", lossless=True)
        case "TIFF LZW":
            return encode(image, "TIFF", compression="tiff_lzw")
        case "TIFF deflate":
            return encode(image, "TIFF", compression="tiff_deflate")
        case "AVIF":
            return encode(image, "AVIF", quality=95, max_threads=1)
        case "HEIC":
            buffer = io.BytesIO()
            pillow_heif.from_pillow(image).save(buffer, quality=90)
            return buffer.getvalue()
        case _:
            return encode(image, format)


def interlaced_png(image: Image.Image) -> bytes:
    """Adam7, which Pillow reads and does not write."""
    pixels = np.asarray(image)  # (H, W, 3)
    rows = []
    for top, left, down, right in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        passed = pixels[top::down, left::right]
        rows += [b"\0" + row.tobytes() for row in passed if row.size]
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            png_chunk(b"IHDR", header),
            png_chunk(b"IDAT", zlib.compress(b"".join(rows))),
            png_chunk(b"IEND", b""),
        ]
    )
