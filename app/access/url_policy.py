"""Which addresses of images may be fetched: https, on its usual port, from a host on the operator's list.

A URL is taken apart once, here, and the request is made of the parts: no second parser can read it in
another way. Hosts are names; an IP address, however it is written, is on no list.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from app.errors import UrlNotAllowedError

_LABEL = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
# The last label begins with a letter, so that nothing that is read as a number (127.1, 0x7f.1) is a name.
_NAME = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?")
_LONGEST_NAME = 253
_LONGEST_URL = 2000
_PLAIN = re.compile(r"[!-~]+")  # printable ASCII without the space


@dataclass(frozen=True)
class HttpsUrl:
    host: str  # in lower case
    target: str  # path and query, as they go into the request line

    def __str__(self) -> str:
        return f"https://{self.host}{self.target}"


def check_host_patterns(patterns: Sequence[str]) -> Sequence[str]:
    """Host names or `*.` and a domain, in lower case. Raises ValueError for anything else."""
    lower = tuple(pattern.lower() for pattern in patterns)
    for pattern in lower:
        if not _is_name(pattern.removeprefix("*.")):
            raise ValueError(f"{pattern!r} is neither a host name (images.example.org) nor *. and a domain")
    return lower


def allowed_url(url: str, patterns: Sequence[str]) -> HttpsUrl:
    """The URL, if it may be fetched. Raises UrlNotAllowedError."""
    if url[:5].lower() == "data:":
        raise UrlNotAllowedError("a data: URL is sent as `base64`, not as `url`")
    if len(url) > _LONGEST_URL or not _PLAIN.fullmatch(url) or "\\" in url:
        raise UrlNotAllowedError(
            f"a url has at most {_LONGEST_URL} characters, all of them printable ASCII: encode others"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UrlNotAllowedError("the url cannot be understood") from None
    if parts.scheme != "https":
        raise UrlNotAllowedError("only https: urls are fetched")
    if "@" in parts.netloc:
        raise UrlNotAllowedError("a url with a user name or a password is not fetched")
    if port not in (None, 443) or parts.netloc.endswith(":"):
        raise UrlNotAllowedError("only the default port of https is fetched from")
    host = (parts.hostname or "").lower()
    if not _is_name(host):
        raise UrlNotAllowedError("the url's host must be a name, not an address")
    if not any(_matches(host, pattern) for pattern in patterns):
        raise UrlNotAllowedError(f"images are not fetched from {host}; send the bytes as base64")
    return HttpsUrl(host, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def redirected_url(current: HttpsUrl, location: str, patterns: Sequence[str]) -> HttpsUrl:
    """Where a redirect leads, if it may be followed. Raises UrlNotAllowedError."""
    try:
        joined = urljoin(str(current), location)
    except ValueError:
        raise UrlNotAllowedError("the redirect cannot be understood") from None
    try:
        return allowed_url(joined, patterns)
    except UrlNotAllowedError as error:
        raise UrlNotAllowedError(f"the url redirects to where it may not: {error}") from None


def _is_name(host: str) -> bool:
    return len(host) <= _LONGEST_NAME and _NAME.fullmatch(host) is not None


def _matches(host: str, pattern: str) -> bool:
    """`*.example.org` stands for every name below example.org, but not for example.org."""
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
