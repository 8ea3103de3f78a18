"""English captions cut into the tokens of the Penn Treebank, as the scores in papers are computed on.

The published code pipes captions through the Java program PTBTokenizer (Stanford CoreNLP 3.4.1, options
`-preserveLines -lowerCase`) and drops punctuation. This gives the same tokens without Java: the longest of
several patterns is taken at each place, as a generated lexer does. It knows what occurs in captions; things
like emoticons and telephone numbers it cuts by the general rules. The Java program takes all captions as one
text, so that a letter and a full stop at the end of one depend on the next; here each stands alone.
"""

from collections.abc import Iterator
from typing import Any

import regex

# What the published code drops. Brackets it looks for in upper case, after lower-casing: "-lrb-" stays.
PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))

_QUOTES = "'’‘`´"
_LETTER = r"[\p{L}\p{M}]"
_WORD = rf"{_LETTER}[\p{{L}}\p{{M}}\p{{Nd}}]*(?:[.!?]{_LETTER}[\p{{L}}\p{{M}}\p{{Nd}}]*)*"
_NUMBER = r"(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+)"
# Written with a full stop wherever they stand, and those that are only before a number.
_ABBREVIATIONS = (
    "mr|mrs|ms|messrs|drs?|profs?|rev|gen|col|capt|sgt|lt|lieut|cpl|pvt|maj|govs?|sens?|reps?|pres|hon|brig|adm|"
    "co?mdr|pfc|spc|supt|det|mme|mt|ft|ste?|ave|blvd|rd|rt|jr|sr|inc|cos?|corp|ltd|plc|bros|vs|etc|ph|esq|cf|al|"
    "dept|univ|assn|intl|sys|bancorp|bhd|ptys?|pte|atty|asst|tel|est|ext|bldg|sq|"
    "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thurs|thu|fri|"
    "calif|ala|ariz|fla|ga|ind|ky|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn|va|vt|wis|wyo|ct"
)
_BEFORE_NUMBERS = "nos?|prop|ca|figs?|pp"
# After a letter with a full stop, what says that the stop was the end of a sentence.
_SENTENCE_ENDS = (
    r"(?=\s*$|\s+(?-i:A|An|The|He|She|It|They|We|Then|There|This|That|These|One|Two|In|On|At|And|But)\b)"
)

_PATTERNS = tuple(
    regex.compile(pattern, regex.IGNORECASE)
    for pattern in (
        rf"{_WORD}",
        r"[a-z0-9][a-z0-9.,]*(?:-[a-z0-9]+)+",  # T-shirt, 3-year-old
        rf"[dol]['’]{_LETTER}+(?:-{_LETTER}+)*",  # O'Neill, d'oeuvre
        rf"(?:{_LETTER}|\d)+(?:[-/](?:{_LETTER}|\d)+)+",  # and/or, 24/7
        rf"(?:{_LETTER}|\d)+",
        rf"[-+]?{_NUMBER}",
        r"\d{1,4}(?:[ -]\d{1,4})?/\d{1,4}",
        r"\p{L}(?:\.\p{L})+\.?",  # U.S., p.m
        rf"\p{{L}}\.(?!{_SENTENCE_ENDS})",
        rf"(?:{_ABBREVIATIONS})\.",
        rf"(?:{_BEFORE_NUMBERS})\.(?=\s*\d)",
        r"(?-i:[A-Z]+(?:&[A-Z]+)+)",
        r"['’](?:em|n['’]?|cause|till?|\d0s)(?!\p{L})",
        r"(?:ol|dunkin|somethin|[ldj])['’]",
        r"c['’]mon|ma['’]am|['’]t(?=(?:is|was)\b)|ph\.d\.",
        r"[@#][a-z]\w*",
        r"y['’](?=\p{L})",
        r"['’](?:[msd]|re|ve|ll)(?!\p{L})",
        r"n['’]t(?!\p{L})",
        r"https?://[^\s\"<>|()]+|www\.[^\s\"<>|()]+",
        r"[^\s\"<>|(),;:@]+@[^\s\"<>|(),;:@]+",
        r"</?[a-z][a-z0-9]*\s*/?>",
        r"\.|-{2,4}|_+|[*]+|[!?]+|``|''",
        r"\S",
    )
)
_CHUNK = regex.compile(r"\S+")
_PLAIN = regex.compile(r"[a-z]+", regex.IGNORECASE)
_NEGATED = regex.compile(r"(\p{L}+?)(?=n['’]t(?!\p{L}))", regex.IGNORECASE)
_SPLIT = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}
_NAMES = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "–": "--", "—": "--", "―": "--", "…": "...", "£": "#", "€": "$", "½": "1/2", "¼": "1/4", "¾": "3/4",
    '"': "''", "“": "``", "”": "''", "‘": "`", "’": "'", "´": "'", "«": "``", "»": "''", "‹": "`", "›": "'",
}  # fmt: skip


_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&nbsp;": " ", "\u00ad": ""}
_ENTITY = regex.compile("|".join(_ENTITIES))


def penn_treebank_tokens(text: str) -> list[str]:
    """Lower-cased tokens without punctuation."""
    text = _ENTITY.sub(lambda found: _ENTITIES[found[0]], text)
    tokens: list[str] = []
    for chunk in _CHUNK.finditer(text):
        if _PLAIN.fullmatch(chunk[0]):  # most words of most captions
            tokens += _named(chunk[0])
        else:
            tokens += _scan(text, *chunk.span())
    return [token for token in tokens if token not in PUNCTUATION]


def _scan(text: str, place: int, end: int) -> Iterator[str]:
    """Tokens from `place` to `end`; patterns may look beyond."""
    while place < end:
        negated = _NEGATED.match(text, place)
        found = (
            negated[1] if negated else max((_match(pattern, text, place) for pattern in _PATTERNS), key=len)
        )
        yield from _named(found)
        place += len(found)


def _match(pattern: Any, text: str, place: int) -> str:
    found = pattern.match(text, place)
    return str(found[0]) if found else ""


def _named(token: str) -> tuple[str, ...]:
    lower = token.lower()
    if len(lower) > 1:
        lower = lower.replace("’", "'")
    if lower.startswith("--"):
        return ("--",)
    return _SPLIT.get(lower) or (_NAMES.get(lower, lower),)
