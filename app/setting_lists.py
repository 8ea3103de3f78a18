"""Settings that are lists: written with commas in the environment, checked when they are read.

Apart from what uses them, so that reading the settings does not import the web framework.
"""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

from app.access.url_policy import check_host_patterns


def check_networks(networks: Sequence[str]) -> Sequence[str]:
    """Raises ValueError for what is neither an address nor a network."""
    for network in networks:
        ip_network(network)
    return networks


def check_origins(origins: Sequence[str]) -> Sequence[str]:
    """Origins as browsers send them: scheme, host, port if unusual. Raises ValueError."""
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}".lower():
            raise ValueError(f"{origin!r} is not an origin: write https://example.org, without a path")
        if not parts.hostname or "*" in origin or "@" in origin:
            raise ValueError(f"{origin!r} is not an origin: name each one, without wildcards")
    return origins


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


# NoDecode: otherwise pydantic-settings expects JSON in the environment.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[Names, AfterValidator(check_networks)]
Origins = Annotated[Names, AfterValidator(check_origins)]
HostPatterns = Annotated[Names, AfterValidator(check_host_patterns)]
