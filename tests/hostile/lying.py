"""Files that say about themselves what is not so, and metadata made to hurt its reader."""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, ImageCms
from sample_pictures import encode, png_chunk

from hostile.bombs import PNG_SIGNATURE, bmp, gif_of, jpeg_of, png, png_header, tiff, webp_canvas, zeros
from hostile.inputs import CAPTIONED, HostileInput, hostile
from hostile.photos import FORMATS, photo, picture

ODD_TYPES = (
    b"image/png",
    b"IMAGE/JPEG",
    b"image/svg+xml",
    b"image/" + b"a" * 10_000,
    b"image/jpeg; charset=utf-7",
    b"image/jpeg, text/html",
    b"image/../../etc/passwd",
    b"image/\xff\xfe",
    b"application/octet-stream",
)


@hostile("a Content-Type that is not the file's: the bytes decide", CAPTIONED)
def _wrong_content_type() -> Iterator[HostileInput]:
    for number, format in enumerate(FORMATS):
        for content_type in (ODD_TYPES[number % 9], ODD_TYPES[(number + 4) % 9]):
            yield HostileInput(f"{format} as {content_type[:40]!r}", photo(format), content_type)


@hostile("the first bytes of one format on the body of another", "invalid_image", "image_too_large")
def _wrong_magic() -> Iterator[HostileInput]:
    for format in FORMATS:
        for name, magic in {"PNG": PNG_SIGNATURE, "GIF": b"GIF89a", "TIFF": b"II*\0", "BMP": b"BM"}.items():
            if not photo(format).startswith(magic[:3]):
                yield HostileInput(f"{name} on {format}", magic + photo(format)[len(magic) :])


@hostile("no pixels at all: zero width, zero height", "invalid_image")
def _no_pixels() -> Iterator[HostileInput]:
    for width, height in ((0, 0), (0, 24), (32, 0)):
        yield HostileInput(f"PNG {width}×{height}", png(png_header(width, height), (b"IDAT", zeros(100))))
        yield HostileInput(f"JPEG {width}×{height}", jpeg_of(width, height))
        yield HostileInput(f"BMP {width}×{height}", bmp(width, height))
        yield HostileInput(f"TIFF {width}×{height}", tiff(width, height))
    yield HostileInput("JPEG without a frame", b"\xff\xd8\xff\xd9")
    yield HostileInput("PNG without pixels", png(png_header(32, 24)))
    yield HostileInput("PNG without a header", PNG_SIGNATURE + png_chunk(b"IDAT", zeros(100)))
    yield HostileInput("GIF without a frame", b"GIF89a" + struct.pack("<HH", 32, 24) + b"\0\0\0;")
    yield HostileInput("WebP without a frame", webp_canvas(32, 24))


@hostile("samples of a depth, colour type, compression or number that does not exist", "invalid_image")
def _nonsense_in_headers() -> Iterator[HostileInput]:
    for depth, colour in ((0, 2), (3, 0), (7, 2), (32, 2), (255, 255), (8, 1), (8, 5), (16, 3), (1, 6)):
        header = png_header(32, 24, depth, colour)
        yield HostileInput(f"PNG, {depth} bits, colour type {colour}", png(header, (b"IDAT", zeros(9999))))
    for field, value in ((10, 1), (11, 255)):
        changed = bytearray(png_header(32, 24))
        changed[field] = value
        yield HostileInput(
            f"PNG, byte {field} of the header {value}", png(bytes(changed), (b"IDAT", zeros(99)))
        )
    for bits in (0, 3, 5, 9, 31, 33, 64, 65_535):
        yield HostileInput(f"BMP of {bits} bits", bmp(4, 4, bits))
        yield HostileInput(f"TIFF of {bits} bits", tiff(4, 4, bits))
    for compression in (1, 2, 3, 4, 5, 99, 2**31):
        yield HostileInput(f"BMP with compression {compression}", bmp(4, 4, 24, compression))
    for compression in (0, 2, 3, 4, 5, 6, 7, 8, 99, 32_773, 34_892, 50_000, 65_535):
        yield HostileInput(f"TIFF with compression {compression}", tiff(64, 64, compression=compression))
    for samples in (0, 2, 5, 255, 65_535):
        yield HostileInput(f"TIFF of {samples} samples", tiff(4, 4, samples=samples))
    for precision in (0, 1, 7, 12, 16, 255):
        data = bytearray(photo())
        data[data.index(b"\xff\xc0") + 4] = precision
        yield HostileInput(f"JPEG of {precision} bits", bytes(data))
    for components in (0, 2, 5, 255):
        data = bytearray(photo())
        data[data.index(b"\xff\xc0") + 9] = components
        yield HostileInput(f"JPEG of {components} components", bytes(data))


@hostile(
    "sizes and places in a TIFF that are negative, huge or outside of the file",
    "invalid_image",
    "image_too_large",
)
def _tiff_places() -> Iterator[HostileInput]:
    for value in (-1, 2**31, 2**32 - 8, 10_000_000):
        for tag in (273, 278, 279, 320, 322, 324, 325):
            yield HostileInput(f"tag {tag} is {value}", tiff(64, 64, **{f"t{tag}": value}))
    for side in (2**31, 2**32 - 1):
        yield HostileInput(f"width {side}", tiff(side, 1))
    for offset in (0, 1, 2**31, 2**32 - 1):
        yield HostileInput(f"directory at {offset}", b"II*\0" + struct.pack("<I", offset) + bytes(100))
    entry = struct.pack("<HHII", 256, 4, 2**32 - 1, 8)
    yield HostileInput("a tag of four billion values", b"II*\0\x08\0\0\0" + b"\1\0" + entry + bytes(4))
    yield HostileInput("65,535 tags", b"II*\0\x08\0\0\0\xff\xff" + entry * 65_535)
    yield HostileInput("BigTIFF far away", b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63) + bytes(50))


@hostile(
    "a size in the header that is not that of the data: what is missing stays black or grey",
    CAPTIONED,
    "invalid_image",
)
def _wrong_size() -> Iterator[HostileInput]:
    rows = b"".join(b"\0" + bytes(96) for _ in range(24))
    for width, height in ((32, 24), (32, 23), (16, 24), (33, 24), (32, 25), (64, 48), (320, 240)):
        header = png_header(width, height)
        yield HostileInput(f"PNG 32×24 as {width}×{height}", png(header, (b"IDAT", zlib.compress(rows))))
        yield HostileInput(f"JPEG 32×24 as {width}×{height}", jpeg_of(width, height))
        yield HostileInput(f"GIF 32×24 as {width}×{height}", gif_of(width, height))
    for width, height in ((0, 0), (0, 24), (32, 0)):  # of a GIF the size of the frame counts
        yield HostileInput(f"GIF 32×24 as {width}×{height}", gif_of(width, height))


@hostile("PNGs with a wrong checksum, length or zlib stream", "invalid_image")
def _wrong_checksums() -> Iterator[HostileInput]:
    data = photo("PNG")
    for wrong in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01"):
        yield HostileInput(f"header with {wrong!r}", data[:29] + wrong + data[33:])
    for length in (2**31, 2**32 - 1, 0, 5):
        broken = data[:33] + struct.pack(">I", length) + data[37:]
        yield HostileInput(f"IDAT of {length} bytes", broken)
    stream = bytearray(zlib.compress(b"".join(b"\0" + bytes(96) for _ in range(24))))
    for at in (0, 1, 2, 5):
        broken_stream = bytes(stream[:at]) + b"\xff" + bytes(stream[at + 1 :])
        yield HostileInput(f"zlib, byte {at}", png(png_header(32, 24), (b"IDAT", broken_stream)))


def _with_exif(exif: bytes) -> bytes:
    content = b"Exif\0\0" + exif
    return (
        b"\xff\xd8\xff\xe1"
        + struct.pack(">H", min(len(content) + 2, 65_535))
        + content[:65_533]
        + photo()[2:]
    )


def _exif(*entries: tuple[int, int, int, int], then: int = 0) -> bytes:
    """A directory of (tag, type, count, value or place)."""
    body = b"".join(struct.pack("<HHII", tag, kind, count, value) for tag, kind, count, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + struct.pack("<I", then)


@hostile(
    "EXIF with orientations that do not exist, loops, places outside, and gigabytes announced", CAPTIONED
)
def _exif_attacks() -> Iterator[HostileInput]:
    for orientation in (0, 9, 255, 65_535, 2**31, 2**32 - 1):
        yield HostileInput(f"orientation {orientation}", _with_exif(_exif((0x112, 4, 1, orientation))))
    for kind in (0, 1, 2, 5, 7, 12, 13, 99, 65_535):
        yield HostileInput(f"orientation of type {kind}", _with_exif(_exif((0x112, kind, 1, 6))))
    for count in (0, 2, 1000, 2**31, 2**32 - 1):
        yield HostileInput(f"{count} orientations", _with_exif(_exif((0x112, 3, count, 6))))
    yield HostileInput("next directory is itself", _with_exif(_exif((0x112, 3, 1, 1), then=8)))
    yield HostileInput("EXIF directory is itself", _with_exif(_exif((0x8769, 4, 1, 8))))
    yield HostileInput("GPS directory is itself", _with_exif(_exif((0x8825, 4, 1, 8))))
    yield HostileInput("directory far away", _with_exif(_exif((0x8769, 4, 1, 2**32 - 1))))
    yield HostileInput("thumbnail of 4 GB", _with_exif(_exif((0x201, 4, 1, 8), (0x202, 4, 1, 2**32 - 1))))
    yield HostileInput("5,000 tags", _with_exif(_exif(*[(0x112, 3, 1, n % 9) for n in range(5000)])))
    yield HostileInput("nothing", _with_exif(b""))
    yield HostileInput("64 KB of ones", _with_exif(b"\xff" * 65_000))
    yield HostileInput("wrong byte order", _with_exif(b"XX*\0\x08\0\0\0"))
    yield HostileInput("maker's note", _with_exif(_exif((0x927C, 7, 2**31, 0))))
    exif = Image.Exif()
    exif[0x112] = 77
    for format in ("PNG", "WEBP", "TIFF"):
        yield HostileInput(f"orientation 77 in {format}", encode(picture(), format, exif=exif))
    yield HostileInput(
        "PNG with a broken eXIf", png(png_header(4, 4), (b"eXIf", b"\xff" * 99), (b"IDAT", zeros(52)))
    )


@hostile("colour profiles that are broken, huge, or made for another colour space", CAPTIONED)
def _profiles() -> Iterator[HostileInput]:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    profiles = {
        "empty": b"",
        "a word": b"profile",
        "zeros": bytes(500),
        "ones": b"\xff" * 5000,
        "cut": srgb[:200],
        "for LAB": lab,
        "a megabyte": srgb + bytes(1_000_000),
        "tag count of four billion": srgb[:128] + b"\xff\xff\xff\xff" + srgb[132:],
        "first tag outside": srgb[:136] + b"\xff\xff\xff\xf0" + srgb[140:],
        "first tag of 4 GB": srgb[:140] + b"\xff\xff\xff\xff" + srgb[144:],
        "size of zero": bytes(4) + srgb[4:],
        "size of 4 GB": b"\xff\xff\xff\xff" + srgb[4:],
        "CMYK class": srgb[:16] + b"CMYK" + srgb[20:],
        "device link": srgb[:12] + b"link" + srgb[16:],
        "named colours": srgb[:12] + b"nmcl" + srgb[16:],
    }
    for name, profile in profiles.items():
        for format in ("JPEG", "PNG", "WEBP", "TIFF"):
            yield HostileInput(f"{name}, in {format}", encode(picture(), format, icc_profile=profile))
    for seed in range(24):
        broken = bytearray(srgb)
        for n in range(6):
            broken[(seed * 97 + n * 41) % len(broken)] ^= 0xFF
        yield HostileInput(f"damaged, seed {seed}", encode(picture(), "PNG", icc_profile=bytes(broken)))
    cmyk = io.BytesIO()
    picture().convert("CMYK").save(cmyk, "JPEG", icc_profile=srgb)
    yield HostileInput("sRGB on CMYK", cmyk.getvalue())
