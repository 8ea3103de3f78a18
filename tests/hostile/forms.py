"""Multipart bodies that are broken, endless, or full of tricks."""

import gzip
import random
from collections.abc import Iterator
from dataclasses import replace

from hostile.inputs import CAPTIONED, HostileInput, form, form_part, hostile, photo_part
from hostile.photos import photo

END = b"--x--\r\n"


def _field(name: bytes, value: bytes, *headers: bytes) -> bytes:
    return form_part(b'; name="' + name + b'"', value, *headers)


def _typed(name: str, content_type: bytes, body: bytes) -> HostileInput:
    return HostileInput(name, body, content_type)


@hostile(
    "forms without a boundary, or with one that is not the body's, empty, huge or binary", "invalid_body"
)
def _boundaries() -> Iterator[HostileInput]:
    body = photo_part(photo()) + END
    for name, parameter in {
        "none": b"",
        "empty": b"; boundary=",
        "empty in quotes": b'; boundary=""',
        "another": b"; boundary=y",
        "of 60,000 characters": b"; boundary=" + b"x" * 60_000,
        "binary": b"; boundary=\xff\xfe",
        "with a blank": b'; boundary="x "',
        "a line break": b'; boundary="\r\n"',
        "misspelt": b"; bundary=x",
        "a minus more": b"; boundary=-x",
    }.items():
        yield _typed(name, b"multipart/form-data" + parameter, body)
    for name, content in {
        "empty body": b"",
        "text": b"cat",
        "a photo without a form": photo(),
        "noise": random.Random(2).randbytes(10_000),
        "only line breaks": b"\r\n" * 1000,
        "only minus signs": b"-" * 100_000,
        "JSON": b'{"images": []}',
        "url-encoded": b"image=a&language=es",
    }.items():
        yield _typed(name, b"multipart/form-data; boundary=x", content)


@hostile("forms that end too early: no final boundary, half a part, half a header", "invalid_body")
def _unfinished_forms() -> Iterator[HostileInput]:
    body = photo_part(photo()) + END
    yield form("final boundary missing", photo_part(photo()), end=b"")
    yield form("final boundary without its minus signs", photo_part(photo()), end=b"--x\r\n")
    yield form("final boundary of one minus sign", photo_part(photo()), end=b"--x-")
    for cut in (1, 2, 3, 4, 5, 10, 20, 40, 60, 70, 80, 90, 500, 1024, len(body) // 2, len(body) - 8):
        yield _typed(f"first {cut} bytes", b"multipart/form-data; boundary=x", body[:cut])


@hostile("parts with headers that are missing, doubled, malformed, binary, or many", "invalid_body")
def _part_headers() -> Iterator[HostileInput]:
    start = b"--x\r\n"
    for name, headers in {
        "none": b"",
        "no name": b"Content-Disposition: form-data\r\n",
        "no colon": b"Content-Disposition form-data; name=image\r\n",
        "a blank before the colon": b'Content-Disposition : form-data; name="image"\r\n',
        "empty name of a header": b": form-data\r\n",
        "binary name of a header": b"\xff\xfe: form-data\r\n",
        "zero in a header's name": b'Content\0-Disposition: form-data; name="image"\r\n',
        "line feeds only": b'Content-Disposition: form-data; name="image"\n\n',
        "carriage returns only": b'Content-Disposition: form-data; name="image"\r\r',
        "50,000 headers": b"A: b\r\n" * 50_000,
        "one header of 1 MB": b"A: " + b"b" * 1_000_000 + b"\r\n",
        "a header's name of 1 MB": b"A" * 1_000_000 + b": b\r\n",
        "folded": b"Content-Disposition: form-data;\r\n name=image\r\n",
    }.items():
        yield form(name, start + headers + b"\r\n" + photo() + b"\r\n")


@hostile(
    "names of fields that do not exist: huge, empty, binary, or with a path",
    "invalid_body",
    "invalid_request",
)
def _field_names() -> Iterator[HostileInput]:
    for name, field in {
        "empty": b"",
        "of 3,000 characters": b"n" * 3000,
        "of 7,000 characters": b"n" * 7000,
        "zero": b"lang\0uage",
        "not UTF-8": b"\xff\xfe\xfd",
        "half a surrogate": b"\xed\xa0\x80",
        "brackets": b"language[]",
        "prototype": b"__proto__",
        "path": b"../../language",
        "right to left": "‮egaugnal".encode(),
        "upper case": b"LANGUAGE",
        "blank": b"language ",
        "format string": b"%s%s%s%n",
        "template": b"{{7*7}}",
        "line": b"a\\r\\nX: y",
        "SQL": b"' OR 1=1 --",
    }.items():
        yield form(name, _field(field, b"es"), photo_part(photo()))
    yield form("an image under another name", form_part(b'; name="file"; filename="a"', photo()))


@hostile(
    "values of fields that are huge, binary, empty of sense or out of range",
    "invalid_request",
    "unknown_language",
    "invalid_body",
)
def _field_values() -> Iterator[HostileInput]:
    for value in (
        b"x" * 900,
        b"\xff\xfe",
        b"\0",
        b"../../etc/passwd",
        b"'; --",
        b"${jndi:ldap://127.0.0.1}",
        b",",
        "‮".encode(),
    ):
        yield form(f"language {value[:20]!r}", _field(b"language", value), photo_part(photo()))
    for value in (
        b"0",
        b"9",
        b"-1",
        b"1.5",
        b"1e0",
        b"NaN",
        b"Infinity",
        b"9" * 900,
        b"0x1",
        b"\xd9\xa1",
        b"true",
        b"\0",
    ):
        yield form(f"num_captions {value[:20]!r}", _field(b"num_captions", value), photo_part(photo()))
    for value in (b"0", b"-1", b"nan", b"inf", b"1e999", b"2.0001", b"1,5", b"9" * 900):
        yield form(f"temperature {value[:20]!r}", _field(b"temperature", value), photo_part(photo()))
    for value in (b"-1", b"4294967296", b"9" * 999):
        yield form(f"seed {value[:20]!r}", _field(b"seed", value), photo_part(photo()))
    for size in (1001, 100_000, 3_000_000):
        yield form(f"language of {size:,} bytes", _field(b"language", b"e" * size), photo_part(photo()))


@hostile("thousands of parts, fields or files", "invalid_body", "invalid_request")
def _many_parts() -> Iterator[HostileInput]:
    for count in (101, 1000, 20_000):
        yield form(f"{count:,} fields", *[_field(b"language", b"es")] * count)
        yield form(f"{count:,} empty fields", *[_field(b"language", b"")] * count, photo_part(photo()))
        yield form(f"{count:,} empty files", *[photo_part(b"")] * count)
    yield form("17 photos", *[photo_part(photo())] * 17)
    yield form("100 files of other names", *[form_part(b'; name="f"; filename="f"', b"a")] * 100)
    yield form("50 languages", *[_field(b"language", b"es")] * 50, photo_part(photo()))
    yield form("num_captions twice", *[_field(b"num_captions", b"1")] * 2, photo_part(photo()))


@hostile("forms in forms: what is inside is not looked into", "invalid_image", "no_image")
def _nested_forms() -> Iterator[HostileInput]:
    for depth in (1, 10, 300):
        inner, kind = photo(), b"Content-Type: image/jpeg"
        for level in range(depth):
            boundary = b"level%d" % level
            part = form_part(b'; name="image"; filename="a"', inner, kind, boundary=boundary)
            inner = part + b"--" + boundary + b"--\r\n"
            kind = b"Content-Type: multipart/mixed; boundary=" + boundary
        yield form(f"{depth} deep", photo_part(inner, kind))
    yield form("the photo as a field", _field(b"image", photo()[:900]))
    yield form("no parts", end=END)


@hostile(
    "file names with paths, commands, scripts, zeros, or of 3,000 characters: they are not used", CAPTIONED
)
def _file_names() -> Iterator[HostileInput]:
    for filename in (
        b"../../../etc/passwd", rb"..\\..\\windows\\win.ini", b"/dev/null", b"|id", b"$(id)", b"`id`",
        b"a\0.jpg",
        b"<script>alert(1)</script>.jpg", b"photo.php", b"photo.jpg.exe", b"\xff\xfe.jpg", b"n" * 3000,
        "‮gpj.exe".encode(), b"con", b".htaccess", b"%2e%2e%2f", b"a;b", b"'", b"%00", "猫.jpg".encode(),
    ):  # fmt: skip
        yield form(f"{filename[:30]!r}", photo_part(photo(), filename=filename))
    for disposition in (
        b"; name=image; filename*=UTF-8''%2e%2e%2fphoto.jpg; filename=a",
        b'; name="image"; filename="a"; filename="b"',
        b'; name="image"; name="image"; filename="a"',
        b'; filename="a"; name="image"; size=1',
    ):
        yield form(f"{disposition!r}", form_part(disposition, photo()))


@hostile("parts that say to be encoded, or of another type: they are taken as they are", CAPTIONED)
def _part_types() -> Iterator[HostileInput]:
    for header in (
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: quoted-printable",
        b"Content-Transfer-Encoding: x-nonsense",
        b"Content-Type: text/html",
        b"Content-Type: image/svg+xml",
        b"Content-Type: multipart/mixed; boundary=y",
        b"Content-Type: \xff",
        b"Content-Length: 5",
        b"Content-Length: 99999999999",
        b"Content-Encoding: gzip",
        b"Set-Cookie: a=b",
    ):
        yield form(f"{header.decode('latin-1')}", photo_part(photo(), header))


@hostile(
    "a form's charset that does not exist, cannot decode, or is a codec of another kind",
    CAPTIONED,
    "invalid_body",
    "invalid_request",
    "unknown_language",
)
def _form_charsets() -> Iterator[HostileInput]:
    for charset in (
        b"utf-8",
        b"utf-7",
        b"utf-16",
        b"undefined",
        b"punycode",
        b"idna",
        b"rot13",
        b"hex",
        b"zlib",
        b"nonsense",
        b"\xff",
        b"",
        b"a" * 5000,
        b"raw_unicode_escape",
        b"unicode_escape",
        b"mbcs",
    ):
        body = _field(b"language", b"es\\x00") + _field(b"num_captions", b"1") + photo_part(photo()) + END
        yield _typed(f"{charset[:20]!r}", b"multipart/form-data; boundary=x; charset=" + charset, body)
        body = photo_part(photo()) + END
        yield _typed(
            f"{charset[:20]!r}, photo only", b"multipart/form-data; boundary=x; charset=" + charset, body
        )


@hostile("bodies compressed for transport, which is not offered", "invalid_body", "invalid_image")
def _content_encodings() -> Iterator[HostileInput]:
    squeezed = gzip.compress(photo(), mtime=0)
    bomb = gzip.compress(bytes(100_000_000), mtime=0)
    for encoding in (b"gzip", b"deflate", b"br", b"zstd", b"gzip, gzip"):
        for name, data in {"photo": squeezed, "100 MB": bomb}.items():
            headers = ((b"content-encoding", encoding),)
            yield HostileInput(f"{name} as {encoding.decode()}", data, headers=headers)
            inside = replace(
                document_of(data), headers=headers, name=f"{name} in JSON as {encoding.decode()}"
            )
            yield inside


def document_of(data: bytes) -> HostileInput:
    return HostileInput("", data, b"application/json")


@hostile("forms that arrive a byte at a time, or with a Content-Length that is not theirs", CAPTIONED)
def _arrival() -> Iterator[HostileInput]:
    whole = form("", photo_part(photo("GIF", 64)))
    for chunk in (1, 2, 3, 7, 64):
        yield replace(whole, name=f"{chunk} bytes at a time", chunk=chunk)
    for length in (b"", b"0", b"1", b"-5", b"abc", b"\xff", b"1, 2", b"+10", b" 10 ", b"0x10"):
        yield replace(whole, name=f"Content-Length {length!r}", content_length=length)
