"""What is no photo at all, sent as one; and files that are two things at once."""

import io
import random
import struct
import zipfile
from collections.abc import Iterator

from hostile.inputs import CAPTIONED, HostileInput, hostile
from hostile.photos import FORMATS, photo

SIGNATURES = {
    "JPEG": b"\xff\xd8\xff\xe0",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF89a",
    "WebP": b"RIFF\x00\x10\x00\x00WEBPVP8 ",
    "BMP": b"BM",
    "TIFF, little-endian": b"II*\0",
    "TIFF, big-endian": b"MM\0*",
    "BigTIFF": b"II+\0\x08\0\0\0",
    "AVIF": b"\0\0\0\x20ftypavif\0\0\0\0mif1avif",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
}
IMAGE_TYPES = (b"image/jpeg", b"image/png", b"image/webp", b"image/avif", b"image/svg+xml", b"image/x-icon")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
XML_BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><svg xmlns="http://www.w3.org/2000/svg"><text>&c;</text></svg>'
)
EXTERNAL_ENTITY = (
    b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b'<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>'
)


@hostile("nothing, or next to nothing, under every image type", "invalid_image")
def _empty() -> Iterator[HostileInput]:
    for content_type in (*IMAGE_TYPES, b"image/", b"image/*", b"application/octet-stream"):
        yield HostileInput(f"empty as {content_type.decode()}", b"", content_type)
    for data in (b"\0", b"\xff", b"\n", b" ", b"\xff\xd8", b"\x89PNG", b"GIF", b"BM", b"II", b"RIFF"):
        yield HostileInput(f"only {data!r}", data)


@hostile("random bytes, alone and behind the first bytes of every format", "invalid_image")
def _noise() -> Iterator[HostileInput]:
    draw = random.Random(1)
    for size in (1, 2, 16, 100, 1000, 10_000, 100_000, 1_000_000):
        yield HostileInput(f"{size:,} bytes", draw.randbytes(size))
    for name, signature in SIGNATURES.items():
        for size in (0, 20, 400, 5000):
            yield HostileInput(f"{size:,} bytes behind {name}", signature + draw.randbytes(size))
        yield HostileInput(f"zeros behind {name}", signature + bytes(3000))
        yield HostileInput(f"ones behind {name}", signature + b"\xff" * 3000)


@hostile("text, HTML, SVG, PDF, archives, programs and other media, sent as images", "invalid_image")
def _other_files() -> Iterator[HostileInput]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("../../photo.jpg"), photo())
    files = {
        "text": b"a photo of a cat\n" * 50,
        "HTML": b"<!doctype html><script>alert(1)</script>",
        "SVG with a script": SVG,
        "SVG with an entity bomb": XML_BOMB,
        "SVG with an external entity": EXTERNAL_ENTITY,
        "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog/OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n",
        "ZIP": archive.getvalue(),
        "gzip": b"\x1f\x8b\x08\0" + bytes(100),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
        "ELF": b"\x7fELF\x02\x01\x01" + bytes(200),
        "Windows program": b"MZ\x90\0" + bytes(200),
        "shell script": b"#!/bin/sh\nrm -rf /\n",
        "PHP": b"<?php system($_GET['c']); ?>",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n",
        "EPS with a DOS header": b"\xc5\xd0\xd3\xc6" + bytes(26) + b"%!PS",
        "ImageMagick script": b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\npop\n",
        "XPM": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c red", "a"};',
        "PPM": b"P6\n1 1\n255\n\0\0\0",
        "ICO": b"\0\0\1\0\1\0\1\1\0\0\1\0\x20\0" + bytes(40),
        "PSD": b"8BPS\0\1" + bytes(40),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40),
        "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40),
        "FITS": b"SIMPLE  =                    T" + b" " * 2850,
        "DICOM": bytes(128) + b"DICM" + bytes(100),
        "MP4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100),
        "WAV in RIFF": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
        "MP3": b"ID3\x04" + bytes(100),
        "WebAssembly": b"\0asm\1\0\0\0" + bytes(40),
        "Java class": b"\xca\xfe\xba\xbe" + bytes(40),
        "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "SQLite": b"SQLite format 3\0" + bytes(100),
        "JSON": b'{"images": []}',
        "base64 of a photo": b"/9j/4AAQSkZJRgABAQAAAQABAAD",
        "data: URL": b"data:image/png;base64,iVBORw0KGgo=",
        "byte order mark and text": b"\xef\xbb\xbfphoto",
        "UTF-16 text": "photo".encode("utf-16"),
        "tar": b"photo.jpg".ljust(257, b"\0") + b"ustar\x0000" + bytes(250),
        "EICAR": rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*",
    }
    for number, (name, data) in enumerate(files.items()):
        yield HostileInput(name, data, IMAGE_TYPES[number % len(IMAGE_TYPES)])


@hostile("a photo behind something else: a page, a PDF, a blank", "invalid_image")
def _something_before_a_photo() -> Iterator[HostileInput]:
    for name, before in {
        "a page": b"<html><!--",
        "a PDF": b"%PDF-1.4\n",
        "a blank": b" ",
        "a line break": b"\r\n",
        "a byte order mark": b"\xef\xbb\xbf",
        "a zero": b"\0",
        "a shell script": b"#!/bin/sh\nexit\n",
    }.items():
        for format in ("JPEG baseline", "PNG", "GIF"):
            yield HostileInput(f"{format} behind {name}", before + photo(format))


@hostile(
    "photos that are a script, a page or an archive as well: what follows the picture is not read", CAPTIONED
)
def _polyglots() -> Iterator[HostileInput]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("x.html"), "<script>alert(1)</script>")
    for name, behind in {
        "a ZIP": archive.getvalue(),
        "a page": b"<html><script>alert(1)</script></html>",
        "a PDF": b"%PDF-1.7\n%%EOF",
        "PHP": b"<?php system('id'); ?>",
        "another photo": photo("PNG"),
        "a megabyte of zeros": bytes(1_000_000),
    }.items():
        for format in FORMATS:
            yield HostileInput(f"{format} and {name}", photo(format) + behind)
    page = b"<html><script>alert(1)</script></html>"
    comment = b"\xff\xfe" + struct.pack(">H", len(page) + 2) + page
    yield HostileInput("JPEG with a page in its comment", b"\xff\xd8" + comment + photo()[2:])
    gif = photo("GIF")
    extension = b"\x21\xfe" + bytes([len(page)]) + page + b"\0"
    at = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    yield HostileInput("GIF with a page in its comment", gif[:at] + extension + gif[at:])
