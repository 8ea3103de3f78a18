import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, features
from sample_pictures import encode, noisy, plain, png_chunk, png_that_announces

from app.images import ImageLimits, decode_image, supported_formats
from retrieval.errors import ImageTooLargeError, InvalidImageError

LOSSLESS = [("PNG", {}), ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]


def pixel(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    decoded = decode_image(data)
    assert decoded.image.mode == "RGB"
    value = decoded.image.getpixel(at)
    assert isinstance(value, tuple)
    return tuple(int(part) for part in value)


@pytest.mark.parametrize(("format", "options"), LOSSLESS)
def test_lossless_formats_keep_every_pixel(format: str, options: dict[str, object]) -> None:
    picture = plain()
    picture.paste((0, 0, 255), (10, 5, 20, 15))
    decoded = decode_image(encode(picture, format, **options))
    assert (decoded.width, decoded.height, decoded.format) == (32, 24, format)
    assert np.array_equal(np.asarray(decoded.image), np.asarray(picture))


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
def test_lossy_formats_are_close(format: str) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    decoded = decode_image(encode(plain(), format, quality=90))
    assert decoded.format == format
    assert np.abs(np.asarray(decoded.image).astype(int) - [200, 40, 10]).max() <= 8


def test_the_format_comes_from_the_bytes_not_from_a_name() -> None:
    with pytest.raises(InvalidImageError, match=r"not an image in a format that is read here \(JPEG, PNG"):
        decode_image(b"just some text in a file named photo.jpg")


@pytest.mark.parametrize("format", ["ICO", "PPM", "TGA", "PCX", "EPS", "PDF", "JPEG2000"])
def test_other_formats_pillow_could_read_are_refused(format: str) -> None:
    with pytest.raises(InvalidImageError, match="format"):
        decode_image(encode(plain(), format))


def test_nothing_at_all() -> None:
    with pytest.raises(InvalidImageError, match="empty"):
        decode_image(b"")


def test_too_many_bytes() -> None:
    with pytest.raises(ImageTooLargeError, match="1,000"):
        decode_image(encode(noisy(), "PNG"), ImageLimits(max_bytes=1000))


@pytest.mark.parametrize("size", [(40_000, 40_000), (10_000, 5_001), (2**31 - 1, 2**31 - 1)])
def test_a_header_that_announces_too_much_is_refused_before_decoding(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLargeError, match="50,000,000"):
        decode_image(png_that_announces(*size))


def test_pixel_limit_holds_for_formats_that_allocate_early() -> None:
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_383).to_bytes(3, "little") * 2
    data = b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas
    with pytest.raises(ImageTooLargeError):
        decode_image(data)
    gif = bytearray(encode(plain(), "GIF"))
    gif[6:10] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(ImageTooLargeError):
        decode_image(bytes(gif))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(format: str) -> None:
    data = encode(noisy(), format)
    assert decode_image(data).width == 120
    for cut in [*range(1, len(data) - 64, max(1, len(data) // 40)), len(data) - 64]:
        with pytest.raises(InvalidImageError):
            decode_image(data[:cut])


def test_truncation_is_named() -> None:
    data = encode(noisy(), "JPEG", progressive=True)
    with pytest.raises(InvalidImageError, match="the JPEG is truncated: the file ends before"):
        decode_image(data[: len(data) // 2])


def test_sixteen_bits_are_rescaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for data in (encode(Image.fromarray(ramp), "PNG"), encode(Image.fromarray(ramp), "TIFF")):
        grey = np.asarray(decode_image(data).image)[..., 0]
        assert np.array_equal(grey, np.arange(256).reshape(16, 16))


def test_big_endian_and_twelve_bit_tiff() -> None:
    def tiff(order: str, bits: int, samples: bytes, width: int) -> bytes:
        tags = [
            (256, 3, 1, width), (257, 3, 1, 1), (258, 3, 1, bits), (259, 3, 1, 1),
            (262, 3, 1, 1), (273, 4, 1, 8 + 2 + 12 * 9 + 4), (277, 3, 1, 1), (278, 3, 1, 1),
            (279, 4, 1, len(samples)),
        ]  # fmt: skip
        mark = b"II*\0" if order == "<" else b"MM\0*"
        entries = b""
        for tag, kind, count, value in tags:
            packed = struct.pack(
                order + ("HH" if kind == 3 else "I"), *([value, 0] if kind == 3 else [value])
            )
            entries += struct.pack(order + "HHI", tag, kind, count) + packed
        return mark + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4) + samples

    sixteen = np.array([0, 32768, 65535], dtype=">u2").tobytes()
    decoded = np.asarray(decode_image(tiff(">", 16, sixteen, 3)).image)[0, :, 0]
    assert decoded.tolist() == [0, 128, 255]
    twelve = bytes([0xFF, 0xF0, 0x00])  # 4095 and 0
    decoded = np.asarray(decode_image(tiff("<", 12, twelve, 2)).image)[0, :, 0]
    assert decoded.tolist() == [255, 0]


def test_floats_and_wide_integers_are_stretched() -> None:
    floats = np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32)
    grey = np.asarray(decode_image(encode(Image.fromarray(floats), "TIFF")).image)[0, :, 0]
    assert grey.tolist() == [0, 128, 255, 0]
    wide = Image.fromarray(np.array([[-100_000, 0, 100_000]], dtype=np.int32))
    assert np.asarray(decode_image(encode(wide, "TIFF")).image)[0, :, 0].tolist() == [0, 128, 255]


def test_transparency_becomes_white() -> None:
    rgba = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
    rgba.putpixel((1, 0), (0, 0, 0, 0))
    rgba.putpixel((2, 0), (0, 0, 0, 128))
    data = encode(rgba, "PNG")
    assert [pixel(data, (x, 0)) for x in range(3)] == [(200, 0, 0), (255, 255, 255), (127, 127, 127)]
    grey = Image.new("LA", (2, 1), (10, 255))
    grey.putpixel((1, 0), (10, 0))
    assert pixel(encode(grey, "PNG"), (1, 0)) == (255, 255, 255)


def test_transparent_palette_entries_become_white() -> None:
    picture = plain().convert("P", palette=Image.Palette.ADAPTIVE)
    index = picture.getpixel((0, 0))
    assert isinstance(index, int)
    assert pixel(encode(picture, "PNG", transparency=index)) == (255, 255, 255)
    assert pixel(encode(picture, "GIF", transparency=index)) == (255, 255, 255)
    alphas = bytearray([255] * 256)
    alphas[index] = 0
    assert pixel(encode(picture, "PNG", transparency=bytes(alphas))) == (255, 255, 255)


@pytest.mark.parametrize(
    ("picture", "transparent"),
    [
        (plain((1, 2, 3)), (1, 2, 3)),
        (Image.new("L", (4, 4), 7), 7),
        (Image.new("1", (4, 4), 0), 0),
        (Image.fromarray(np.full((4, 4), 1000, dtype=np.uint16)), 1000),
    ],
)
def test_a_transparent_colour_becomes_white(picture: Image.Image, transparent: object) -> None:
    assert pixel(encode(picture, "PNG", transparency=transparent)) == (255, 255, 255)
    assert pixel(encode(picture, "PNG")) != (255, 255, 255)


def test_sixteen_bit_colour_png_with_a_transparent_colour() -> None:
    samples = struct.pack(">3H", 0x1234, 0xABCD, 0x00FF) + struct.pack(">3H", 0xFFFF, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)),
            png_chunk(b"tRNS", struct.pack(">3H", 0x1234, 0xABCD, 0x00FF)),
            png_chunk(b"IDAT", zlib.compress(b"\0" + samples)),
            png_chunk(b"IEND", b""),
        ]
    )
    assert pixel(data) == (255, 255, 255)
    assert pixel(data, (1, 0)) == (255, 0, 0)


def test_cmyk_jpeg() -> None:
    red = pixel(encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red[0] > 230
    assert max(red[1:]) < 40


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    light = Image.new("LAB", (4, 4), (255, 128, 128))
    assert min(pixel(encode(light, "TIFF", icc_profile=lab))) > 250
    assert min(pixel(encode(light, "TIFF"))) > 250  # LAB says enough even without a profile
    swapped = encode(plain((255, 0, 0)), "PNG", icc_profile=_profile_with_red_and_blue_swapped())
    red, green, blue = pixel(swapped)
    assert blue > 200
    assert max(red, green) < 60


@pytest.mark.parametrize("profile", [b"", b"not a profile", bytes(128), b"\xff" * 4000])
def test_a_broken_profile_is_ignored(profile: bytes) -> None:
    assert pixel(encode(plain(), "PNG", icc_profile=profile)) == (200, 40, 10)


def test_a_profile_for_another_colour_space_is_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert pixel(encode(plain(), "PNG", icc_profile=lab)) == (200, 40, 10)


def test_a_grey_picture_with_a_colour_profile() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert pixel(encode(Image.new("L", (4, 4), 99), "PNG", icc_profile=srgb)) == (99, 99, 99)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_turns_the_picture_upright(format: str, orientation: int) -> None:
    upright = Image.new("RGB", (48, 32), (0, 0, 0))
    upright.paste((255, 255, 255), (0, 0, 24, 16))  # the top left quarter is white
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(encode(stored, format, exif=exif))
    assert (decoded.width, decoded.height) == decoded.image.size == (48, 32)
    grey = np.asarray(decoded.image.convert("L"))
    assert grey[4:12, 4:20].min() > 200
    assert grey[20:, :].max() < 55
    assert grey[:, 28:].max() < 55


def test_damaged_exif_does_not_cost_the_picture() -> None:
    assert decode_image(encode(plain(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).width == 32


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_gives_its_first_frame(format: str) -> None:
    frames = [plain((250, 0, 0)), plain((0, 250, 0)), plain((0, 0, 250))]
    options: dict[str, object] = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert pixel(data)[0] > 240


def test_large_photos_are_scaled_down_and_keep_their_size_in_the_answer() -> None:
    picture = noisy((300, 200)).resize((3000, 2000))
    for format in ("JPEG", "PNG"):
        decoded = decode_image(encode(picture, format))
        assert (decoded.width, decoded.height) == (3000, 2000)
        assert decoded.image.size == (1024, 683)
    assert decode_image(encode(picture, "PNG"), ImageLimits(max_side=5000)).image.size == (3000, 2000)


def test_a_line_one_pixel_high() -> None:
    assert decode_image(encode(plain(size=(5000, 1)), "PNG")).image.size == (1024, 1)


def test_metadata_goes_no_further() -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    data = encode(plain(), "JPEG", exif=exif, comment=b"secret")
    assert decode_image(data).image.info == {}


def test_heic_names_what_it_needs() -> None:
    data = (24).to_bytes(4, "big") + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100)
    with pytest.raises(InvalidImageError) as caught:
        decode_image(data)
    assert ("pillow-heif" in str(caught.value)) != ("HEIC" in supported_formats())


def test_heic_photos_decode_where_pillow_heif_is_installed() -> None:
    plugin = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    plugin.from_pillow(plain(size=(64, 48))).save(buffer, quality=95)
    decoded = decode_image(buffer.getvalue())
    assert (decoded.width, decoded.height, decoded.format) == (64, 48, "HEIF")
    assert np.abs(np.asarray(decoded.image).astype(int) - [200, 40, 10]).max() <= 8


def test_pillow_is_left_as_it_was() -> None:
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    decode_image(encode(plain(), "PNG"))
    with pytest.raises(ImageTooLargeError):
        decode_image(png_that_announces(12_000, 12_000))
    assert limit == Image.MAX_IMAGE_PIXELS
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert filters == list(warnings.filters)


def test_many_threads_leave_the_warning_filters_alone() -> None:
    filters = list(warnings.filters)
    data, failures = encode(noisy((300, 300)), "PNG"), []

    def work() -> None:
        try:
            for _ in range(10):
                assert decode_image(data).width == 300
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert filters == list(warnings.filters)


def test_decoding_leaves_the_users_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(encode(plain(), "PNG"))
    before = file.read_bytes()
    decode_image(before)
    assert file.read_bytes() == before


SIGNATURES = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*"]
SEEDS = [
    encode(noisy((40, 30)), "JPEG"),
    encode(noisy((40, 30)), "JPEG", progressive=True, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    encode(noisy((40, 30)), "PNG"),
    encode(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)), "PNG", transparency=3),
    encode(noisy((40, 30)), "GIF"),
    encode(noisy((40, 30)), "BMP"),
    encode(noisy((40, 30)), "TIFF", compression="tiff_lzw"),
    encode(noisy((40, 30)), "TIFF"),
    encode(noisy((40, 30)), "WEBP"),
    encode(Image.new("CMYK", (20, 20), (9, 90, 9, 0)), "JPEG"),
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.none() | st.floats(0, 1),
    early=st.booleans(),
)
def test_mutated_files_decode_or_are_refused(
    seed: bytes, changes: list[tuple[float, int]], cut: float | None, early: bool
) -> None:
    data = bytearray(seed)
    for where, value in changes:
        reach = min(len(data), 200) if early else len(data)  # headers are where decoders are most surprised
        data[int(where * (reach - 1))] = value
    if cut is not None:
        del data[int(cut * len(data)) :]
    try:
        decoded = decode_image(bytes(data), ImageLimits(max_pixels=1_000_000))
    except InvalidImageError as error:  # anything else fails the test
        message = str(error)
    else:
        assert decoded.image.mode == "RGB"
        assert max(decoded.image.size) <= 1024
        return
    assert message.strip()
    assert "\n" not in message


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.sampled_from(SIGNATURES),
    st.binary(),
)
def test_arbitrary_bytes_are_refused(signature: bytes, rest: bytes) -> None:
    with pytest.raises(InvalidImageError):
        decode_image(signature + rest)


def _profile_with_red_and_blue_swapped() -> bytes:
    """sRGB's profile with the tags of its red and blue primaries exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)
