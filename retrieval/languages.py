"""Language tags: what users, files and HTTP headers write, turned into the codes used everywhere else.

The codes are those of Crossmodal-3600 (Thapliyal et al. 2022), two or three letters without script or
region: `zh`, `fil`, `no`, `quz`. The module knows languages in general (CLDR data, through langcodes);
which of them a bundle can write is the bundle's business and is passed in.
"""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import langcodes

from retrieval.errors import UnknownLanguageError

XM3600_LANGUAGES = (
    *("ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr"),
    *("he", "hi", "hr", "hu", "id", "it", "ja", "ko", "mi", "nl", "no", "pl"),
    *("pt", "quz", "ro", "ru", "sv", "sw", "te", "th", "tr", "uk", "vi", "zh"),
)

# XM3600 says Norwegian for Bokmål, and names the variety that its Quechua captions are written in.
_OWN_CODES = {"nb": "no", "qu": "quz"}
_NOT_A_LANGUAGE = {"und", "mul", "zxx", "mis"}
_LONGEST_TAG = 35  # the longest tag an implementation must accept, RFC 5646 section 4.4.1
_SUGGESTION_DISTANCE = 40  # CLDR's scale: 20 is Catalan to Spanish, 24 Slovak to Czech, 30 Marathi to Hindi


@lru_cache(maxsize=4096)
def normalise(tag: str) -> str:
    """The code of a BCP-47 tag: "iw" → "he", "pt-BR" → "pt", "zh-Hans" → "zh", "tl" → "fil", "nb" → "no".

    A valid language outside XM3600 keeps its own code. Raises UnknownLanguageError for anything that is not
    a registered language.
    """
    problem = UnknownLanguageError(
        f"{_quoted(tag)} is not a language tag: write one like en, pt-BR or zh-Hans"
    )
    if len(tag) > _LONGEST_TAG:
        raise problem
    try:
        language = langcodes.get(tag.strip())
    except ValueError:  # LanguageTagError is one
        raise problem from None
    if not language.is_valid() or language.language is None or language.language in _NOT_A_LANGUAGE:
        raise problem
    code = language.prefer_macrolanguage().language
    if code is None or _is_private(code):
        raise problem
    return _OWN_CODES.get(code, code)


def match(tag: str, supported: Sequence[str]) -> str:
    """The element of `supported` that is the language of `tag`; regions and scripts decide between several.

    The name of a language is accepted too ("Spanish", "español"). A merely related language is never taken
    silently: UnknownLanguageError names the supported ones, and the related one as a suggestion.
    """
    tag = _tag_of_name(tag)
    code = normalise(tag)
    same = [candidate for candidate in supported if normalise(candidate) == code]
    if same:
        closest, _ = langcodes.closest_match(tag, same, max_distance=1000)
        return closest if closest in same else same[0]
    message = f"{display_name(code)} ({code}) is not one of the languages here: {', '.join(supported)}"
    related, distance = langcodes.closest_match(tag, list(supported), max_distance=_SUGGESTION_DISTANCE)
    if distance <= _SUGGESTION_DISTANCE and related in supported:
        message += f". Did you mean {display_name(related)} ({related})?"
    raise UnknownLanguageError(message)


def display_name(code: str) -> str:
    """The English name: "uk" → "Ukrainian". What is no code, as in a hostile datastore, is its own name."""
    try:
        return langcodes.get(code).display_name("en")
    except ValueError:  # LanguageTagError
        return code


def autonym(code: str) -> str:
    """The language's name in itself: "uk" → "українська"; otherwise as `display_name`."""
    try:
        return langcodes.get(code).autonym()
    except ValueError:  # LanguageTagError
        return code


@lru_cache(maxsize=1024)
def _tag_of_name(tag: str) -> str:
    """The tag of a language's name; anything else is returned as it came."""
    tag = tag.strip()
    try:
        normalise(tag)
    except UnknownLanguageError:
        # langcodes finds a language for almost any two letters ("ee", "en" as names): names are longer, or
        # are written in another script ("中文").
        if len(tag) > _LONGEST_TAG or (tag.isascii() and len(tag) < 4):
            return tag
        # Names have no control characters; a NUL makes langcodes' table fail with a SystemError.
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in tag):
            return tag
        try:
            return langcodes.find(tag).to_tag()
        except LookupError:
            return tag
    return tag


def _is_private(code: str) -> bool:
    return ("qaa" <= code <= "qtz" and len(code) == 3) or code.startswith("x-")


def _quoted(tag: str) -> str:
    """The tag as it can stand in a one-line message."""
    return repr(tag if len(tag) <= _LONGEST_TAG else tag[: _LONGEST_TAG - 1] + "…")
