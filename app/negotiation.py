"""Which languages to caption in: what the caller named, else what it prefers, else the default.

Knows tags and preference lists, also that of Accept; what a tag means is retrieval/languages.py's knowledge.
"""

import re
from collections.abc import Mapping, Sequence

from retrieval.errors import InvalidRequestError, UnknownLanguageError
from retrieval.languages import match, normalise

ALL = "all"
EVENT_STREAM = "text/event-stream"
_WEIGHT = re.compile(r"(?P<range>[^;]*?)[ \t]*(?:;[ \t]*[qQ][ \t]*=[ \t]*(?P<q>[01](?:\.[0-9]{0,3})?))?")
# A registered language has two or three letters before the first hyphen; no other is looked up.
_TAG = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{1,8})*|\*")
_LONGEST_HEADER = 1000  # characters looked at; browsers send under 100
_MOST_RANGES = 50  # looked up, which takes a millisecond each


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
    """The language of an Accept-Language header that is wanted most, else the default (RFC 9110, 12.5.4).

    Malformed parts of the header are skipped. `*` stands for the languages that the header does not name: the
    default if it is one of them, else the first of `supported` that is. A language with q=0 is not given,
    also where nothing else matches; only if that leaves none, the header is disregarded.
    """
    named: dict[str, bool] = {}  # by code: is it wanted?
    wanted: list[str] = []
    for tag, quality in _by_preference(accept_language or ""):
        if tag == "*":
            if quality > 0:
                wanted.append(tag)
            continue
        code = _supported(tag, supported)
        if code is None:
            continue
        if quality > 0:
            wanted.append(code)
            named[code] = True
        elif "-" not in tag:  # en-US;q=0 says nothing about the English of others
            named.setdefault(code, False)
    candidates = (default, *supported)
    for code in wanted:
        others = (other for other in candidates if other not in named)
        chosen = code if code != "*" else next(others, None)
        if chosen is not None:
            return chosen
    return next((code for code in candidates if named.get(code, True)), default)


def wants_events(accept: str | None) -> bool:
    """Whether an Accept header prefers a stream of events to a JSON document (RFC 9110, 12.5.1)."""
    qualities: dict[str, float] = {}
    for media_type, quality in _weighted(accept or ""):
        qualities[media_type.lower()] = quality
    return qualities.get(EVENT_STREAM, 0.0) > qualities.get("application/json", 0.0)


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


def _supported(tag: str, supported: Sequence[str]) -> str | None:
    """As `match`, without its search for what an unknown tag could mean, which takes much longer."""
    try:
        known = normalise(tag) in map(normalise, supported)
        return match(tag, supported) if known else None
    except UnknownLanguageError:
        return None


def _by_preference(header: str) -> list[tuple[str, float]]:
    """The tags of an Accept-Language header with their q, most wanted first; equals keep their order."""
    qualities: dict[str, float] = {}
    for tag, quality in _weighted(header):
        if _TAG.fullmatch(tag):
            qualities.setdefault(tag.lower(), quality)
    return sorted(qualities.items(), key=lambda pair: -pair[1])[:_MOST_RANGES]


def _weighted(header: str) -> list[tuple[str, float]]:
    """The members of a preference list with their q; those that are malformed are left out."""
    if len(header) > _LONGEST_HEADER:  # what is cut is left out whole: es-419;q=0.5 must not become es
        header = header[:_LONGEST_HEADER].rpartition(",")[0]
    members = []
    for part in header.split(","):
        found = _WEIGHT.fullmatch(part.strip(" \t"))
        if found is not None and found["range"]:
            members.append((found["range"], 1.0 if found["q"] is None else min(float(found["q"]), 1.0)))
    return members
