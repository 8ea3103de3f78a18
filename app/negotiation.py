"""Which languages to caption in: what the caller named, else what it prefers, else the default.

Knows tags and preference lists; what a tag means is retrieval/languages.py's knowledge.
"""

import re
from collections.abc import Mapping, Sequence

from retrieval.errors import InvalidRequestError, UnknownLanguageError
from retrieval.languages import match

ALL = "all"
_RANGE = re.compile(
    r"(?P<tag>[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)(?:\s*;\s*q\s*=\s*(?P<q>[01](?:\.[0-9]{0,3})?))?"
)
_LONGEST_HEADER = 1000  # characters looked at; browsers send under 100


def named_languages(names: Sequence[str], supported: Sequence[str]) -> tuple[str, ...]:
    """The codes of the languages a caller named, in order, each once; `all` stands for all of them.

    A name may hold several, separated by commas. Raises UnknownLanguageError for one that is not supported.
    """
    codes: dict[str, None] = {}
    for name in (part.strip() for names_at_once in names for part in names_at_once.split(",")):
        if not name:
            raise InvalidRequestError("a language is empty: write a tag like en or pt-BR")
        if name.lower() == ALL:
            codes.update(dict.fromkeys(supported))
        else:
            codes[match(name, supported)] = None
    return tuple(codes)


def preferred_language(accept_language: str | None, supported: Sequence[str], default: str) -> str:
    """The first language of an Accept-Language header that is supported, else the default (RFC 9110, 12.5.4).

    Malformed parts of the header are skipped, as are languages with q=0; `*` means the default.
    """
    for tag in _by_preference(accept_language or ""):
        if tag == "*":
            return default
        try:
            return match(tag, supported)
        except UnknownLanguageError:
            continue
    return default


def locale_language(environment: Mapping[str, str], supported: Sequence[str], default: str) -> str:
    """The language of the user's locale (LC_ALL, LC_MESSAGES, LANG) if it is supported, else the default."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        locale = environment.get(variable)
        if not locale:
            continue
        tag = re.split(r"[.@]", locale)[0].replace("_", "-")
        if tag in ("C", "POSIX"):
            return default
        try:
            return match(tag, supported)
        except UnknownLanguageError:
            return default
    return default


def default_language(wanted: str, supported: Sequence[str]) -> str:
    """The configured default, or the bundle's first language if the bundle cannot write it."""
    try:
        return match(wanted, supported)
    except UnknownLanguageError:
        return supported[0]


def _by_preference(header: str) -> list[str]:
    """The tags of an Accept-Language header, most wanted first; equals keep their order."""
    ranked: list[tuple[float, str]] = []
    for part in header[:_LONGEST_HEADER].split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None:
            continue
        quality = 1.0 if found["q"] is None else min(float(found["q"]), 1.0)
        if quality > 0:
            ranked.append((quality, found["tag"]))
    return [tag for _, tag in sorted(ranked, key=lambda pair: -pair[0])]
