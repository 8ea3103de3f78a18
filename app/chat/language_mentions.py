"""Which language a text asks for: "Describe this in Spanish", "auf Deutsch bitte", "用中文描述".

The rule is deliberately a small one, and docs/http.md tells it: the name of a language counts where a word
for "in" goes with it, a tag only where it can hardly be a word, and the last one found wins. A name is the
language's own, the English one, or one in a language of the bundle.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import langcodes
import regex

from retrieval.errors import UnknownLanguageError
from retrieval.languages import XM3600_LANGUAGES, autonym, display_name, normalise

_IN = "in|into|to|auf|ins|en|al|em|v|ve|do"
_VARIETY = "simple|plain|simplified|traditional|brazilian|european|british|american|mexican|modern standard"
_LABEL = "language|lang|locale|sprache|idioma|langue|língua|jazyk|мова|اللغة|भाषा|语言"
_OPENING = "[\"'“”„‘’«`(*]*"
_START, _END = r"(?<![\p{L}\p{M}\p{N}_-])", r"(?![\p{L}\p{M}\p{N}_-])"
_TAG = r"[a-z]{2,3}(?:-[a-z0-9]{2,8})*"
_MOST_TEXTS, _MOST_MATCHES = 20, 20  # looked at, from the last one: a tag takes a millisecond
_ALSO_WORDS = frozenset({"he", "it", "no"})  # "what is in it?"


@dataclass(frozen=True)
class _Vocabulary:
    codes: dict[str, str]  # by name in lower case
    proper: frozenset[str]  # names as they are written, of the languages that are not supported
    patterns: tuple["regex.Pattern[str]", ...]  # with a group `name` or `tag`


def mentioned_language(texts: Sequence[str], supported: tuple[str, ...]) -> str | None:
    """The code of the language mentioned last, in the last text that mentions one; None if none does.

    It need not be a supported one. The names of those that are not count only as they are written properly:
    "to polish" is no wish for Polish.
    """
    vocabulary = _vocabulary(supported)
    for text in itertools.islice(reversed(texts), _MOST_TEXTS):
        alone = text.strip(" \t\r\n.!?。:").casefold()
        if alone in vocabulary.codes:  # the text is the name of a language and nothing else
            return vocabulary.codes[alone]
        found = [match for pattern in vocabulary.patterns for match in pattern.finditer(text)]
        found.sort(key=lambda match: match.end(), reverse=True)
        for match in found[:_MOST_MATCHES]:
            if code := _code(match.groupdict(), vocabulary, supported):
                return code
    return None


def _code(groups: Mapping[str, str | None], vocabulary: _Vocabulary, supported: Sequence[str]) -> str | None:
    """The language that a pattern has found; None if it is only a word."""
    if name := groups.get("name"):
        code = vocabulary.codes.get(name.casefold())
        return code if code in supported or name in vocabulary.proper else None
    if tag := groups.get("tag"):
        try:
            code = normalise(tag)
        except UnknownLanguageError:
            return None
        return code if code in supported or code in XM3600_LANGUAGES else None
    bare = (groups.get("bare") or "").lower()
    return bare if bare in XM3600_LANGUAGES and bare not in _ALSO_WORDS else None


@lru_cache(maxsize=4)
def _vocabulary(supported: tuple[str, ...]) -> _Vocabulary:
    codes: dict[str, str] = {}
    adverbs: dict[str, str] = {}
    proper: set[str] = set()
    for code in supported:
        for reader in ("en", code, *supported):
            codes.setdefault(_name(code, reader), code)
        if "cs" in supported and (name := _name(code, "cs")).endswith("ina"):
            codes[name[:-1] + "ě"] = code  # ve španělštině
        if "uk" in supported and (name := _name(code, "uk")).endswith("ська"):
            adverbs[name[:-1] + "ою"] = code  # українською
    if "hi" in supported:
        codes["हिंदी"] = "hi"  # as it is mostly spelt
    for code in XM3600_LANGUAGES:
        if code not in supported:
            names = (display_name(code), autonym(code))
            proper.update(names)
            for name in names:
                codes.setdefault(name.casefold(), code)
    name = f"(?P<name>{_alternatives(codes)})"
    marked = rf"{_START}(?:{_IN})\s+{_OPENING}"
    sources = [
        rf"{marked}(?:(?:{_VARIETY})\s+)?{name}{_END}",
        rf"{_START}(?:{_LABEL})\s*[:=：]\s*{_OPENING}(?:{name}|(?P<tag>{_TAG})){_END}",
        rf"{marked}(?P<tag>(?<=[\"'`])[a-z]{{2,3}}(?=[\"'`])|[a-z]{{2,3}}(?:-[a-z0-9]{{2,8}})+){_END}",
        rf"{marked}(?P<bare>[a-z]{{2,3}})(?=\s*(?:[.!?,;)]|$))",
        rf"{_START}{name}\s+में{_END}",
        rf"(?:用|以|成|为)\s*{name}",
        rf"{_START}ب(?:اللغة\s+)?{name}{_END}",
    ]
    if adverbs:
        sources.append(rf"{_START}(?P<name>{_alternatives(adverbs)}){_END}")
    patterns = tuple(regex.compile(source, regex.IGNORECASE) for source in sources)
    return _Vocabulary({**codes, **adverbs}, frozenset(proper), patterns)


def _name(code: str, reader: str) -> str:
    return langcodes.get(code).display_name(reader).casefold()


def _alternatives(names: Iterable[str]) -> str:
    return "|".join(regex.escape(name) for name in sorted(names, key=len, reverse=True))
