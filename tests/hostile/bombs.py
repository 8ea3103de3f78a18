"""Small files that want to become large: in pixels, in memory or in time."""

import struct
import zlib
from collections.abc import Iterator
from functools import cache

from PIL import Image
from sample_pictures import encode, plain, png_chunk

from hostile.inputs import CAPTIONED, HostileInput, hostile
from hostile.photos import photo

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDES = ((65_535, 65_535), (50_000_001, 1), (1, 60_000_000), (8000, 8000), (2**31 - 1, 2**31 - 1))


def png(header: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, checksums right."""
    parts = [png_chunk(b"IHDR", header), *(png_chunk(*chunk) for chunk in chunks), png_chunk(b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(parts)


def png_header(width: int, height: int, depth: int = 8, colour: int = 2, interlace: int = 0) -> bytes:
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


def tiff(
    width: int, height: int, bits: int = 8, samples: int = 1, compression: int = 1, **tags: int
) -> bytes:
    """A little-endian TIFF with one strip of a few bytes; further tags as `t<number>`."""
    entries = {256: width, 257: height, 258: bits, 259: compression, 262: 1 if samples == 1 else 2}
    entries |= {273: 8, 277: samples, 278: height, 279: 64}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    directory = struct.pack("<H", len(entries))
    for tag, value in sorted(entries.items()):
        directory += struct.pack("<HHII", tag, 4, 1, value % 2**32)
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + directory + bytes(4)


def bmp(width: int, height: int, bits: int = 24, compression: int = 0, colours: int = 0) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 64, 0, 0, 54) + info + bytes(64)


def webp_canvas(width: int, height: int, flags: int = 0) -> bytes:
    chunk = b"VP8X" + struct.pack("<II", 10, flags) + (width - 1).to_bytes(3, "little")
    chunk += (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose frame header announces another size."""
    data = bytearray(encode(plain(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def gif_of(width: int, height: int) -> bytes:
    data = bytearray(encode(plain(), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


@cache
def zeros(size: int, level: int = 9) -> bytes:
    """So many zeros, deflated."""
    return zlib.compress(bytes(size), level)


@hostile("headers that announce more pixels than are accepted, in every format", "image_too_large")
def _pixel_bombs() -> Iterator[HostileInput]:
    for width, height in SIDES:
        yield HostileInput(f"PNG {width}×{height}", png(png_header(width, height), (b"IDAT", zeros(1000))))
        yield HostileInput(f"TIFF {width}×{height}", tiff(width, height))
        yield HostileInput(f"BMP {width}×{height}", bmp(width, height))
        yield HostileInput(f"BMP upside down {width}×{height}", bmp(width, -height))
    for width, height in ((65_535, 65_535), (65_500, 800), (800, 65_500), (5478, 5478)):
        yield HostileInput(f"JPEG {width}×{height}", jpeg_of(width, height))
        yield HostileInput(f"GIF {width}×{height}", gif_of(width, height))
    for width, height in ((16_384, 16_384), (16_777_215, 64), (60_000, 40_000)):
        yield HostileInput(f"WebP {width}×{height}", webp_canvas(width, height))
        yield HostileInput(f"animated WebP {width}×{height}", webp_canvas(width, height, flags=2))
        if width == 16_384:
            for format in ("AVIF", "HEIC"):
                yield HostileInput(f"{format} {width}×{height}", _announcing(format, width, height))
    for depth, colour in ((1, 0), (16, 6), (8, 3)):
        header = png_header(60_000, 60_000, depth, colour)
        yield HostileInput(f"PNG of {depth} bits, colour {colour}", png(header, (b"IDAT", zeros(100))))
    interlaced = png_header(60_000, 60_000, interlace=1)
    yield HostileInput("interlaced PNG", png(interlaced, (b"IDAT", zeros(100))))


def _announcing(format: str, width: int, height: int) -> bytes:
    """An AVIF or HEIC whose image property (ispe) has another size."""
    data = bytearray(photo(format))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


@hostile("headers just below the limit, with hardly any pixels behind them", "invalid_image")
def _pixels_that_never_come() -> Iterator[HostileInput]:
    for width, height in ((4400, 4400), (20_000_000, 1), (100, 200_000)):
        yield HostileInput(f"PNG {width}×{height}", png(png_header(width, height), (b"IDAT", zeros(99))))
        yield HostileInput(f"TIFF {width}×{height}", tiff(width, height))
        yield HostileInput(f"BMP {width}×{height}", bmp(width, height))
    for width, height in ((4400, 4400), (65_000, 300)):
        yield HostileInput(f"GIF {width}×{height}", gif_of(width, height)[:40])


@hostile("a few kilobytes that inflate to 19 million pixels, which are accepted", CAPTIONED)
def _pixels_by_the_million() -> Iterator[HostileInput]:
    for name, depth, colour, row in (
        ("grey", 8, 0, 4400),
        ("black and white", 1, 0, 550),
        ("RGB", 8, 2, 13_200),
        ("16-bit grey", 16, 0, 8800),
    ):
        header = png_header(4400, 4400, depth, colour)
        yield HostileInput(name, png(header, (b"IDAT", zeros(4400 * (row + 1)))))
    yield HostileInput("GIF", encode(Image.new("L", (4400, 4400)), "GIF"))
    yield HostileInput("JPEG of CMYK", encode(Image.new("CMYK", (4400, 4400)), "JPEG"))


@hostile(
    "PNGs with a text, a profile or a number of chunks that inflates to hundreds of megabytes",
    CAPTIONED,
    "invalid_image",
)
def _chunk_bombs() -> Iterator[HostileInput]:
    header, pixels = png_header(32, 24), (b"IDAT", zeros(24 * 97))
    big = zeros(300_000_000, 6)
    for name, chunk in {
        "zTXt": (b"zTXt", b"a\0\0" + big),
        "iTXt": (b"iTXt", b"a\0\1\0\0\0" + big),
        "iCCP": (b"iCCP", b"a\0\0" + big),
    }.items():
        yield HostileInput(f"{name} before the pixels", png(header, chunk, pixels))
        yield HostileInput(f"{name} behind the pixels", png(header, pixels, chunk))
    yield HostileInput("IDAT of 300 MB for 32×24 pixels", png(header, (b"IDAT", big)))
    small = (b"zTXt", b"a\0\0" + zeros(1_000_000))
    yield HostileInput("200 zTXt of 1 MB each", png(header, *[small] * 200, pixels))
    yield HostileInput("100,000 empty text chunks", png(header, *[(b"tEXt", b"a\0")] * 100_000, pixels))
    yield HostileInput("100,000 empty IDAT chunks", png(header, *[(b"IDAT", b"")] * 100_000, pixels))
    yield HostileInput("50,000 unknown chunks", png(header, *[(b"abCd", bytes(8))] * 50_000, pixels))
    yield HostileInput("palette of 1 MB", png(png_header(32, 24, 8, 3), (b"PLTE", bytes(999_999)), pixels))


@hostile("floating-point pixels by the million, which need more memory than a decoder has", "image_too_large")
def _memory_bombs() -> Iterator[HostileInput]:
    floats = Image.new("F", (5400, 5400))
    yield HostileInput("TIFF of floats", encode(floats, "TIFF", compression="tiff_deflate"))


def _gif_frames(count: int, frame: bytes, loops: int) -> bytes:
    data = encode(plain(), "GIF")
    at = data.index(b"\x2c")  # the first frame's descriptor
    loop = b"\x21\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", loops) + b"\0"
    return data[:at] + loop + data[at:-1] + frame * count + b";"


@hostile("animations: thousands of frames, endless loops, frames larger than the picture", CAPTIONED)
def _animations() -> Iterator[HostileInput]:
    data = encode(plain(), "GIF")
    frame = data[data.index(b"\x2c") : -1]
    yield HostileInput("GIF of 20,000 frames", _gif_frames(20_000, frame, 0))
    yield HostileInput("GIF that loops 65,535 times", _gif_frames(10, frame, 65_535))
    huge = frame[:1] + struct.pack("<HHHH", 0, 0, 65_535, 65_535) + frame[9:]
    yield HostileInput("GIF whose second frame is 65,535×65,535", _gif_frames(1, huge, 0))
    far = frame[:1] + struct.pack("<HHHH", 65_000, 65_000, 32, 24) + frame[9:]
    yield HostileInput("GIF whose second frame is far outside", _gif_frames(1, far, 0))
    yield HostileInput("GIF with 100,000 comments", data[:-1] + b"\x21\xfe\x01a\0" * 100_000 + b";")
    frames = [plain((n, 0, 0)) for n in range(256)]
    for format in ("WEBP", "PNG"):
        animation = encode(frames[0], format, save_all=True, append_images=frames[1:], loop=0, duration=1)
        yield HostileInput(f"animated {format} of 256 frames", animation)
    directory = tiff(8, 8, t270=0)
    yield HostileInput("TIFF whose next directory is itself", directory[:-4] + struct.pack("<I", 72))
    pages = [Image.new("L", (8, 8), n) for n in range(256)]
    yield HostileInput("TIFF of 256 pages", encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))


@hostile(
    "JPEGs that take long: scan after scan, restart markers, comments, thumbnails", CAPTIONED, "invalid_image"
)
def _slow_jpegs() -> Iterator[HostileInput]:
    progressive, baseline = photo("JPEG progressive"), photo()
    scan_at = progressive.rindex(b"\xff\xda")
    scan = progressive[scan_at:-2]
    yield HostileInput("700 scans", progressive[:-2] + scan * 700 + b"\xff\xd9")
    yield HostileInput("700 scans and no end", progressive[:-2] + scan * 700)
    yield HostileInput(
        "comments of 3 MB", baseline[:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 50 + baseline[2:]
    )
    yield HostileInput("100,000 comments", baseline[:2] + b"\xff\xfe\0\2" * 100_000 + baseline[2:])
    yield HostileInput("a million fill bytes", baseline[:2] + b"\xff" * 1_000_000 + baseline[3:])
    yield HostileInput("a thousand beginnings", b"\xff\xd8" * 1000 + baseline)
    yield HostileInput("100,000 restart markers", baseline[:-2] + b"\xff\xd0" * 100_000 + b"\xff\xd9")
    tables = baseline.index(b"\xff\xdb")
    quantisation = baseline[tables : tables + 69]
    yield HostileInput("20,000 tables", baseline[:tables] + quantisation * 20_000 + baseline[tables:])
    wide = bytearray(progressive)
    at = wide.index(b"\xff\xc2") + 5
    wide[at : at + 4] = struct.pack(">HH", 4400, 4400)
    yield HostileInput("progressive, 19 million pixels, few of them there", bytes(wide))
    empty_scan = scan[: 2 + int.from_bytes(scan[2:4], "big")] + b"\0"
    many = bytes(wide[:-2]) + empty_scan * 20_000 + b"\xff\xd9"
    yield HostileInput("19 million pixels in 20,000 empty scans", many)


@hostile("files with more bytes than an image may have", "image_too_large")
def _too_many_bytes() -> Iterator[HostileInput]:
    for format in ("JPEG baseline", "PNG", "GIF", "WebP lossy"):
        yield HostileInput(format, photo(format) + bytes(4_000_000))
    yield HostileInput("zeros", bytes(4_000_001))
    yield HostileInput("zeros, a kilobyte at a time", bytes(4_000_001), chunk=1024)


@hostile("bodies with more bytes than are read, whatever they are", "body_too_large")
def _too_large_bodies() -> Iterator[HostileInput]:
    for content_type in (b"image/jpeg", b"application/json", b"multipart/form-data; boundary=x"):
        for promised in (None, b"10", b"", b"-1", b"\xff", b"1e3", b"9" * 400):
            name = f"{content_type.decode()}, Content-Length {promised!r}"[:80]
            begun = b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n"
            body = (begun if b"boundary" in content_type else b"") + bytes(13_000_000)
            yield HostileInput(name, body, content_type, content_length=promised)
    yield HostileInput("only promised", b"", content_length=b"99999999999")
    yield HostileInput("only promised, in JSON", b"{}", b"application/json", content_length=b"9" * 30)
