"""Bytes from anyone in, an sRGB image out, or one clear error.

The picture's format comes from its first bytes, never from its name or declared type, and only the decoders
listed here are ever tried. The size in the header is checked before a pixel is decoded. Pillow's process-wide
settings and its registry of formats are left as they are. This module does not fetch, cache or caption.
"""

import importlib
import importlib.util
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from app.image_color import to_eight_bit, to_srgb
from app.jpeg_scans import MOST_SCANS, has_too_many_scans
from retrieval.errors import ImageTooLargeError, InvalidImageError


@dataclass(frozen=True)
class ImageLimits:
    """What is refused, and how large the picture handed on may be."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000  # by the header, width × height
    max_side: int = 1024  # a larger picture is scaled down: no encoder looks at more, and memory stays small


@dataclass(frozen=True)
class DecodedImage:
    """`image` is RGB in sRGB, upright, its longer side at most `max_side`.

    Width and height are those of the original, also upright.
    """

    image: Image.Image
    width: int
    height: int
    format: str  # JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF or HEIF


def decode_image(data: bytes, limits: ImageLimits | None = None) -> DecodedImage:
    """Decode one picture; the first frame of an animation.

    Raises ImageTooLargeError for too many bytes or pixels and InvalidImageError for everything else that is
    not a complete picture in a known format. Safe to call from several threads.
    """
    limits = limits or ImageLimits()
    check_bytes(data, limits)
    name = _identify(data)
    with _pillow_warnings_ignored():
        try:
            return _decode(name, data, limits)
        except InvalidImageError:
            raise
        except Image.DecompressionBombError as error:
            raise ImageTooLargeError(
                f"the {name} announces more pixels than the {limits.max_pixels:,} accepted"
            ) from error
        except MemoryError as error:
            raise ImageTooLargeError(f"the {name} needs more memory to decode than is allowed") from error
        except Exception as error:  # decoders of hostile bytes raise nearly every type there is
            if "truncated" in str(error).lower() or isinstance(error, EOFError):
                message = f"the {name} is truncated: the file ends before the picture does"
            else:
                message = f"the {name} is damaged and cannot be decoded"
            raise InvalidImageError(message) from error


def check_bytes(data: bytes, limits: ImageLimits) -> None:
    """Raises InvalidImageError for an empty file and ImageTooLargeError for too large a one."""
    if not data:
        raise InvalidImageError("the image is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise ImageTooLargeError(
            f"the image has {len(data):,} bytes; at most {limits.max_bytes:,} are accepted"
        )


def supported_formats() -> tuple[str, ...]:
    """The formats this installation can decode, as people write them."""
    names = ["JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"]
    if features.check("avif"):
        names.append("AVIF")
    if importlib.util.find_spec("pillow_heif") is not None:
        names.append("HEIC")
    return tuple(names)


def _decode(name: str, data: bytes, limits: ImageLimits) -> DecodedImage:
    if name == "JPEG" and has_too_many_scans(data):
        raise InvalidImageError(f"the JPEG has more than {MOST_SCANS} scans: save it anew")
    with _OPENERS[name](io.BytesIO(data)) as image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise ImageTooLargeError(
                f"the {name} is {width:,} × {height:,} pixels; at most {limits.max_pixels:,} are accepted"
            )
        if isinstance(image, JpegImagePlugin.JpegImageFile) and max(width, height) > limits.max_side:
            # A JPEG can be decoded straight to 1/2, 1/4 or 1/8: much faster for camera photos.
            scale = limits.max_side / max(width, height)
            image.draft(None, (max(1, int(width * scale)), max(1, int(height * scale))))
        image.load()
        turn = _orientation(image)
        icc_profile = image.info.get("icc_profile")
        picture = to_eight_bit(image, _white_level(image))
    if max(picture.size) > limits.max_side:
        picture.thumbnail((limits.max_side, limits.max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    rgb = to_srgb(picture, icc_profile if isinstance(icc_profile, bytes) else None)
    if turn is not None:
        rgb = rgb.transpose(turn)
        if turn in _SWAPS_SIDES:
            width, height = height, width
    rgb.info = {}  # the file's metadata (place, camera, thumbnails) goes no further
    return DecodedImage(rgb, width, height, name)


# EXIF orientation → what turns the stored picture upright (Exif 2.3, tag 0x0112).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = {
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> Image.Transpose | None:
    """Read after load(), when Pillow's TIFF reader has turned the picture and dropped the tag itself."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF must not cost a good picture
        return None


def _white_level(image: Image.Image) -> int:
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE)
        if bits == (12,):
            return 4095
    return 65535


def _open_heif(data: io.BytesIO) -> ImageFile.ImageFile:
    # The opener is called directly: registering it would change which formats the whole process accepts.
    plugin = importlib.import_module("pillow_heif")
    image: ImageFile.ImageFile = plugin.HeifImageFile(data)
    return image


# The classes are called directly, not through Image.open(): it would try other formats, take a JPEG with an
# extra picture in it (MPO) for another format, and warn by Pillow's own pixel limit before ours is asked.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "HEIF": _open_heif,
}
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
)
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}


def _identify(data: bytes) -> str:
    """The format by its first bytes, or InvalidImageError."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":  # ISO base media: the brands in the first box tell which
        box = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        brands = {box[at : at + 4] for at in range(0, len(box), 4)} - {b""}
        if brands & {b"avif", b"avis"} and features.check("avif"):
            return "AVIF"
        if brands & _HEIC_BRANDS:
            if importlib.util.find_spec("pillow_heif") is None:
                raise InvalidImageError(
                    "this is a HEIC photo, which needs the pillow-heif package; install it or convert to JPEG"
                )
            return "HEIF"
    known = supported_formats()
    raise InvalidImageError(
        f"this is not an image in a format that is read here ({', '.join(known[:-1])} or {known[-1]})"
    )


_warnings_lock = threading.Lock()
_warnings_users = 0
_warnings_saved: "warnings.catch_warnings[None] | None" = None  # the class has no [] at run time


@contextmanager
def _pillow_warnings_ignored() -> Iterator[None]:
    """Pillow's plugins warn about odd files; here a file either decodes or is refused.

    `warnings.catch_warnings` swaps process state, so two threads that overlap would restore each other's
    filters in the wrong order. The first decoder in and the last one out do it for all.
    """
    global _warnings_users, _warnings_saved
    with _warnings_lock:
        if _warnings_users == 0:
            _warnings_saved = warnings.catch_warnings()
            _warnings_saved.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\.")
        _warnings_users += 1
    try:
        yield
    finally:
        with _warnings_lock:
            _warnings_users -= 1
            if _warnings_users == 0 and _warnings_saved is not None:
                _warnings_saved.__exit__(None, None, None)
                _warnings_saved = None
