"""Queries, headers, addresses and methods."""

import random
from collections.abc import Iterator

from hostile.inputs import CAPTIONED, CAPTIONS, CHAT, SEARCH, HostileInput, hostile
from hostile.photos import photo

LIVE, MODELS = "/livez", "/v1/models"


def _asked(name: str, query: bytes = b"", *headers: tuple[bytes, bytes]) -> HostileInput:
    return HostileInput(name, photo("GIF", 48), b"image/gif", query=query, headers=headers)


@hostile(
    "parameters in the query that are unknown, repeated, huge, or in odd encodings",
    "invalid_request",
    "unknown_language",
)
def _queries() -> Iterator[HostileInput]:
    for query in (
        b"a", b"=", b"=a", b"a=b", b"languages=es", b"LANGUAGE=es", b"language[]=es", b"language%00=es",
        b"%ff=%fe",
        b"language=%ff%fe", b"language=%00", b"language=%ed%a0%80", b"language=%", b"language=%zz",
        b"language=+%2B",
        b"language=\xff", b"language=es,", b"language=,", b"language=" + b"a" * 60_000,
        b"language=../../etc",
        b"language=%252e", b"language=e%CC%81", b"language=es%0d%0aX:y", b"num_captions=9",
        b"num_captions=-1",
        b"num_captions=1.0e0", b"num_captions=%D9%A1", b"num_captions=1_0", b"num_captions=0b1",
        b"beams=1&beams=1",
        b"num_captions=" + b"9" * 60_000, b"temperature=nan", b"temperature=-0", b"temperature=1e-400",
        b"temperature=1&beams=2", b"top_p=0.5", b"seed=-1", b"seed=4294967296", b"rerank=maybe",
        b"explain=2", b"neutral=maybe",
        b"max_length=0", b"max_length=1001", b"neighbours=99", b"max_tokens=65", b"image=a",
        b"url=http://127.0.0.1/",
        b"num_captions=8&beams=2", b"__proto__[a]=b", b"language=es;num_captions=2",
        b"language=" + b"es," * 20_000,
        b"language=es&" * 41, b"a=b&" * 20_000, b"language=<script>", b"language=x-" + b"a" * 50,
    ):  # fmt: skip
        yield _asked(f"{query[:40]!r}", query)


@hostile("queries that look odd and mean something, or nothing", CAPTIONED)
def _odd_queries() -> Iterator[HostileInput]:
    for query in (
        b"", b"&", b"&&&&", b"language=", b"language=%20", b"language=es&language=es", b"language=%65%73",
        b"language=ES",
        b"language=es-419", b"language=SPANISH", b"language=es,de,all", b"num_captions=%201%20",
        b"num_captions=01",
        b"seed=", b"temperature=2e0", b"&" * 60_000, b"#language=es", b"language=es#x",
    ):  # fmt: skip
        if b"#" not in query:  # a fragment is not sent
            yield _asked(f"{query[:40]!r}", query)


@hostile(
    "Accept-Language, Accept, Range and other headers that are huge, binary or nonsense: they do no harm",
    CAPTIONED,
)
def _headers() -> Iterator[HostileInput]:
    draw = random.Random(4)
    for name, value in {
        "50,000 languages": b",".join(b"a%d" % n for n in range(50_000)),
        "50,000 commas": b"," * 50_000,
        "a tag of 60,000 letters": b"a" * 60_000,
        "a tag of 30,000 parts": b"a-" * 30_000,
        "10,000 q": b"en" + b";q=0" * 10_000,
        "q of 10,000 digits": b"en;q=0." + b"1" * 10_000,
        "q of NaN": b"en;q=nan, es;q=inf, de;q=-1, fr;q=1e999",
        "all excluded": b"*;q=0",
        "binary": draw.randbytes(500).replace(b"\n", b"").replace(b"\r", b""),
        "not UTF-8": b"\xff\xfe;q=1",
        "stars": b"*-*, *, *;q=0, **",
        "surrogates": b"\xed\xa0\x80",
        "arabic digits": "en;q=٠.٥".encode(),
    }.items():
        yield _asked(f"Accept-Language: {name}", b"", (b"accept-language", value))
    yield _asked("1,000 Accept-Language", b"", *[(b"accept-language", b"es;q=0.1")] * 1000)
    for value in (
        b"",
        b"*/*",
        b"image/png",
        b"text/html",
        b"application/json;q=0",
        b"\xff",
        b"a" * 60_000,
        b"," * 60_000,
        b"*/*;q=nan",
    ):
        yield _asked(f"Accept: {value[:20]!r}", b"", (b"accept", value))
    for header, value in (
        (b"range", b"bytes=0-1"), (b"range", b"bytes=" + b"0-,5-4," * 5000), (b"if-match", b"*"),
        (b"expect", b"100-continue"),
        (b"if-none-match", b""), (b"if-none-match", b'"' + b"a" * 50_000), (b"if-none-match",
        b'W/"x",' * 10_000),
        (b"if-modified-since", b"never"), (b"cookie", b"a=b;" * 10_000), (b"authorization",
        b"Bearer " + b"a" * 50_000),
        (b"authorization", b"\xff"), (b"authorization", b"Basic !!"), (b"x-api-key", b"\0"), (b"origin",
        b"null"),
        (b"origin", b"https://example.invalid"), (b"x-forwarded-for", b"127.0.0.1, " * 5000),
        (b"x-forwarded-for", b"\xff"),
        (b"forwarded", b"for=127.0.0.1"), (b"host", b"169.254.169.254"), (b"x-http-method-override",
        b"DELETE"),
        (b"x-original-url", b"/metrics"), (b"x-request-id", b"a" * 65), (b"x-request-id",
        b"a\r\nSet-Cookie: b=c"),
        (b"x-request-id", b"\xff"), (b"x-request-id", b"../.."), (b"traceparent",
        b"00-" + b"f" * 32 + b"-" + b"f" * 16 + b"-01"),
        (b"traceparent", b"\xff" * 500), (b"baggage", b"a=b," * 5000), (b"transfer-encoding",
        b"chunked, gzip"),
        (b"upgrade", b"websocket"), (b"connection", b"close, x-api-key"), (b"user-agent",
        b"() { :; }; /bin/id"),
        (b"user-agent", b"${jndi:ldap://127.0.0.1/a}"), (b"referer", b"javascript:alert(1)"), (b"te",
        b"\xff"),
        (b"accept-encoding", b"gzip;q=nan"), (b"accept-charset", b"utf-7"), (b"", b""), (b"\xff",
        b"\xff"), (b"a" * 50_000, b"b"),
        (b"content-md5", b"x"), (b"digest", b"sha-256=x"), (b"prefer", b"respond-async"),
        (b"access-control-request-method", b"PUT"),
    ):  # fmt: skip
        yield _asked(f"{header[:20]!r}: {value[:30]!r}", b"", (header, value))
    yield _asked("5,000 headers", b"", *[(b"x-%d" % n, b"a") for n in range(5000)])


@hostile("Idempotency-Keys that are empty, too long or binary", "invalid_request")
def _idempotency_keys() -> Iterator[HostileInput]:
    for value in (
        b"",
        b" ",
        b"a" * 65,
        b"a b",
        b"\xff",
        b"\xc3\xa9",
        b"../a",
        b"a\0",
        b"a,b",
        b"'",
        b"a\n",
        b"*",
        b"a" * 60_000,
    ):
        yield _asked(f"{value[:20]!r}", b"", (b"idempotency-key", value))


@hostile("addresses that do not exist: files, traversals, other services' administration", "not_found")
def _nowhere() -> Iterator[HostileInput]:
    for path in (
        "/v1", "/v1/", "/v1/caption", "/v1//captions", "//v1/captions", "/v1/captions/..",
        "/../etc/passwd", "/V1/CAPTIONS",
        "/v1/captions\0", "/v1/captions%00", "/..%2f..%2fetc/passwd", "/.env", "/.git/config",
        "/wp-login.php", "/admin",
        "/actuator/env", "/server-status", "/static/../app/settings.py", "/docs/../../etc",
        "/" + "a" * 60_000, "/é", "/\ud7ff",
        "/v1/captions;x=y", "/v1/captions/é", "/cgi-bin/id", "/v1/\r\nX: y", "*", "http://127.0.0.1/",
    ):  # fmt: skip
        for method in ("GET", "POST"):
            yield HostileInput(f"{method} {path[:40]!r}", b"", None, path, method=method)


@hostile("methods that an address does not have", "method_not_allowed")
def _methods() -> Iterator[HostileInput]:
    for method in (
        "GET",
        "PUT",
        "DELETE",
        "PATCH",
        "HEAD",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "PROPFIND",
        "get",
        "A" * 10_000,
        "POST ",
    ):
        for path in (CAPTIONS, CHAT, SEARCH):
            if method != "HEAD":  # its answer has no body
                yield HostileInput(f"{method[:20]} {path}", b"", None, path, method=method)
    for path in (LIVE, MODELS):
        yield HostileInput(f"POST {path}", bytes(1000), None, path, method="POST")
