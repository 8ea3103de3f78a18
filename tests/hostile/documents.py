"""JSON that is not JSON, not a request, or a request nobody means."""

import json
import random
from collections.abc import Iterator

from hostile.inputs import (
    CAPTIONED,
    CAPTIONS,
    CHAT,
    SEARCH,
    HostileInput,
    data_url,
    document,
    hostile,
    in_base64,
)
from hostile.photos import photo

PATHS = (CAPTIONS, CHAT, SEARCH)
IMAGE = {"base64": in_base64(photo("GIF", 48))}
ODD_VALUES: tuple[object, ...] = (
    None, True, 0, -1, 1.5, 1e308, 10**400, "", "a", "\0", "\ud800", "x" * 100_000, [], [[]], [None], {},
    {"a": 1},
    ["en"] * 1000, {"$ne": None}, "true", "1", [1e999],
)  # fmt: skip


@hostile("what is not JSON, or not one document", "invalid_body")
def _not_JSON() -> Iterator[HostileInput]:  # noqa: N802 - the name of the class
    samples = {
        "empty": b"",
        "a blank": b" ",
        "half": b'{"images": [',
        "a comma too many": b'{"images": [],}',
        "single quotes": b"{'images': []}",
        "comment": b"{} // end",
        "two documents": b"{}{}",
        "rubbish behind": b"{}\0",
        "binary": random.Random(3).randbytes(1000),
        "a photo": photo(),
        "XML": b"<images/>",
        "YAML": b"images:\n- base64: a\n",
        "form": b"images=a",
        "byte order mark": b"\xef\xbb\xbf{}",
        "UTF-16": '{"images": []}'.encode("utf-16"),
        "not UTF-8": b'{"images": [{"base64": "\xff\xfe"}]}',
        "control character": b'{"images": [{"base64": "\x01"}]}',
        "unknown escape": rb'{"images": [{"base64": "\x41"}]}',
        "half an escape": rb'{"images": [{"base64": "\u12',
        "leading zeros": b'{"num_captions": 001}',
        "hexadecimal": b'{"num_captions": 0x1}',
        "100,000 brackets": b"[" * 100_000,
        "100,000 objects": b'{"a":' * 100_000,
        "100,000 brackets, closed": b"[" * 100_000 + b"]" * 100_000,
        "deep in an image": b'{"images": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        "lone surrogate escaped": rb'{"images": [{"base64": "\ud800"}]}',
        "undefined": b"undefined",
    }
    for path in PATHS:
        for name, body in samples.items():
            yield document(f"{name} to {path}", body, path)


@hostile(
    "JSON of another shape: no object, lists, numbers and nothing for members, a million of them",
    "invalid_body",
    "invalid_request",
    "no_image",
)
def _other_shapes() -> Iterator[HostileInput]:
    bodies: tuple[object, ...] = (
        None,
        True,
        1,
        -0.0,
        "a",
        [],
        [[]],
        [{}],
        {},
        {"": ""},
        {"images": None},
        {"messages": None},
    )
    for path in PATHS:
        for body in bodies:
            yield document(f"{json.dumps(body)} to {path}", body, path)
        yield document(f"NaN to {path}", b'{"k": NaN}', path)
        yield document(f"Infinity to {path}", b'{"k": -Infinity}', path)
        yield document(f"50 deep to {path}", b'{"a":' * 50 + b"1" + b"}" * 50, path)
        yield document(f"100,000 members to {path}", {f"m{n}": n for n in range(100_000)}, path)
        yield document(f"a list of a million to {path}", b"[" + b"0," * 999_999 + b"0]", path)
        for member in ("images", "languages", "messages"):
            million = b'{"%s": [' % member.encode() + b"0," * 999_999 + b"0]}"
            yield document(f"a million {member} to {path}", million, path)
        yield document(f"a number of a million digits to {path}", b'{"k": ' + b"9" * 1_000_000 + b"}", path)


def _caption_members() -> tuple[str, ...]:
    return (
        "images", "languages", "num_captions", "max_tokens", "max_length", "neighbours", "beams",
        "temperature",
        "top_p", "seed", "rerank", "neutral", "explain",
    )  # fmt: skip


@hostile(
    "values of the wrong type, size or encoding in every member of a caption request",
    CAPTIONED,
    "invalid_body",
    "invalid_request",
    "no_image",
)
def _wrong_members() -> Iterator[HostileInput]:
    for member in _caption_members():
        for number, value in enumerate(ODD_VALUES):
            name = f"{member}, value {number}"
            yield document(name, {"images": [IMAGE]} | {member: value})


@hostile("unknown members, and members given twice", CAPTIONED, "invalid_request")
def _unknown_members() -> Iterator[HostileInput]:
    for member in (
        "",
        "image",
        "__proto__",
        "constructor",
        "n" * 100_000,
        "\0",
        "\ud83d\ude00",
        "Images",
        "lang",
    ):
        yield document(f"{member[:20]!r}", {"images": [IMAGE], member: 1})
        yield document(f"{member[:20]!r} in an image", {"images": [IMAGE | {member: 1}]})
    image = json.dumps(IMAGE).encode()
    yield document(
        "num_captions twice, first wrong", b'{"num_captions": 99, "num_captions": 1, "images": [%s]}' % image
    )
    yield document(
        "num_captions twice, last wrong", b'{"num_captions": 1, "num_captions": 99, "images": [%s]}' % image
    )
    yield document("images 10,000 times", b"{" + b'"images": [], ' * 10_000 + b'"images": [%s]}' % image)


@hostile("what is not base64, or is base64 of no picture", "invalid_image")
def _wrong_base64() -> Iterator[HostileInput]:
    good = in_base64(photo())
    for name, text in {
        "empty": "",
        "blanks": " \n\t",
        "one character": "A",
        "padding only": "====",
        "not the alphabet": "!!!!",
        "URL-safe alphabet": "_-_-",
        "not ASCII": "éééé",
        "fullwidth letters": "ＡＡＡＡ",
        "padding inside": good[:40] + "=" + good[40:],
        "half": good[: len(good) // 2],
        "cut by one": good[:-1],
        "backwards": good[::-1],
        "a million A": "A" * 1_000_000,
        "text": in_base64(b"a photo of a cat"),
        "base64 of base64": in_base64(good.encode()),
        "hexadecimal": photo().hex(),
        "a path": "/etc/passwd",
        "percent": good[:40] + "%2B" + good[40:],
        "zeros": "\0" * 100,
        "comma": ",",
    }.items():
        yield document(name, {"images": [{"base64": text}]})
        yield document(f"{name}, in a search", {"image": {"base64": text}}, SEARCH)


@hostile(
    "data: URLs without base64, without a comma, of other types, in other spellings",
    CAPTIONED,
    "invalid_image",
)
def _data_urls() -> Iterator[HostileInput]:
    code = in_base64(photo("GIF", 48))
    urls = (
        "data:", "data:,", "data:;base64", "data:;base64,", "data:image/png", "data:image/png,abc",
        "data:,cat",
        "data:text/html,<script>alert(1)</script>", "data:image/gif;base64;base64,",
        "data:image/svg+xml;utf8,<svg/>",
        "data:image/gif;base64,%52%30", "data:base64," + code, "data:image/gif;charset=utf-8," + code,
        "data:" + "a" * 100_000 + ";base64,", "data:image/gif;base64 ," + code,
        "data://image/gif;base64;" + code,
        "data:image/gif;base64," + code + "#fragment", "data:image/gif;base64," + code + "?query",
        "DATA:image/gif;BASE64," + code, "data:;base64," + code, "data:text/html;base64," + code,
        "data:a;b;c;d;base64," + code, "data:image/gif;base64,data:image/gif;base64," + code,
    )  # fmt: skip
    for url in urls:
        for member in ("base64", "url"):
            yield document(f"{url[:40]} in {member}", {"images": [{member: url}]})


@hostile("addresses of the machine itself, its network, its files and its cloud", "url_not_allowed")
def _addresses() -> Iterator[HostileInput]:
    urls = (
        "http://127.0.0.1/", "http://localhost:8000/livez", "https://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/", "http://0/", "http://2130706433/", "http://0x7f.1/",
        "http://127.1/",
        "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:6379/_FLUSHALL",
        "dict://127.0.0.1:11211/",
        "jar:file:///a!/b", "ldap://127.0.0.1/", "javascript:alert(1)", "blob:null/1", "about:blank",
        "//127.0.0.1/",
        "https://", "https://user:password@127.0.0.1/", "https://example.invalid\\@127.0.0.1/",
        "https://a b/", "x",
        "https://" + "a" * 100_000 + ".invalid/", "https://\u2460\u2461\u2466.0.0.1/", "https://[",
        "https://a:99999/",
        "\r\nHost: a", " data:image/gif;base64,", "https://127.0.0.1%00.example.invalid/", "\0",
        "https://①/",
    )  # fmt: skip
    for url in urls:
        yield document(url[:50], {"images": [{"url": url}]})
        message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        yield document(f"{url[:50]} in a chat", {"model": "echo", "messages": [message]}, CHAT)


@hostile("huge lists of images, languages and captions", "invalid_request")
def _huge_lists() -> Iterator[HostileInput]:
    for count in (17, 256, 20_000):
        yield document(
            f"{count:,} images", {"images": [IMAGE] * min(count, 1000) + [{"base64": ""}] * (count - 1000)}
        )
        yield document(f"{count:,} empty images", {"images": [{"base64": ""}] * count})
    for count in (41, 100_000):
        yield document(f"{count:,} languages", {"images": [IMAGE], "languages": ["en"] * count})
    yield document(
        "769 captions", {"images": [IMAGE] * 16, "languages": ["all"], "num_captions": 8, "beams": 8}
    )
    yield document("a language of 100,000 letters", {"images": [IMAGE], "languages": ["a" * 100_000]})


@hostile(
    "a JSON body under another name, or with parameters in the query as well",
    "unsupported_media_type",
    "invalid_request",
)
def _wrong_wrapping() -> Iterator[HostileInput]:
    body = json.dumps({"images": [IMAGE]}).encode()
    for kind in (
        None,
        b"",
        b"text/json",
        b"application/xml",
        b"application/x-www-form-urlencoded",
        b"application/json-patch+json",
        b"application/\xff",
        b"a" * 50_000,
        b"*/*",
        b"multipart/mixed; boundary=x",
        b"text/html",
    ):
        yield HostileInput(f"as {kind!r}"[:60], body, kind)
        yield HostileInput(f"as {kind!r} to the search"[:60], body, kind, SEARCH)
    for query in (b"num_captions=2", b"a", b"%00", b"&" * 1000 + b"a=b", b"language=es&language=de"):
        yield HostileInput(f"with the query {query[:20]!r}", body, b"application/json", query=query)


@hostile("megabytes of a photo as a data: URL", "image_too_large")
def _large_in_base64() -> Iterator[HostileInput]:
    large = photo() + bytes(4_000_000)
    yield document("captions", {"images": [{"base64": in_base64(large)}]})
    yield document("captions, as an address", {"images": [{"url": data_url(large)}]})
    yield document("search", {"image": {"base64": in_base64(large)}}, SEARCH)
