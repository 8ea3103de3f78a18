"""Captions that have to fit into a number of characters, as alternative texts of pictures do.

A caption that is too long is cut where the reader stumbles least: behind a sentence, else behind a clause,
else behind a word that does not wait for another. What is left is always the beginning of the caption as it
was. Characters are Unicode code points; what a reader sees as one (grapheme clusters, UAX 29) stays whole.
"""

from collections.abc import Iterator, Sequence

import regex

from models.captions import WordAttention
from models.function_words import function_words

_UNSPACED = frozenset({"zh", "ja", "th"})  # languages without spaces between words
# A full stop behind one or two letters is rather that of an abbreviation.
_SENTENCE_END = regex.compile(
    r"(?:[!?…؟।॥]|(?<!\b\p{L}{1,2})\.)+[\"'”’»)]*(?=\s+(?!\p{Ll})|$)|[。！？]+[”’」』）]*"
)
_CLAUSE_END = regex.compile(r"(?=\s*[,;:،؛、，；：](?:\s|$|(?=\p{Han}))|\s+[–—-]\s)")
_SPACED_WORD = regex.compile(r"\S+")
_UNSPACED_WORD = regex.compile(r"[\p{Latin}\p{N}\p{M}'’.-]*[\p{Latin}\p{N}]\p{M}*|\X")
_LOOSE_END = regex.compile(r"[\s,;:،؛、，；：–—\-(\[{«„“‘‹「『（《/&+]+$")
_LEAST_CLAUSE = 0.5  # of the characters there are; a shorter clause would leave out too much


def shorten(text: str, most: int, language: str) -> str:
    """The text, or its beginning that makes most sense, in at most `most` characters.

    Empty if not even its first word fits.
    """
    if len(text) <= most:
        return text
    sentence = max((end for end in _ends(_SENTENCE_END, text) if end <= most), default=0)
    if sentence:
        return text[:sentence]
    clause = max((end for end in _ends(_CLAUSE_END, text) if end <= most), default=0)
    if clause >= _LEAST_CLAUSE * most:
        return _without_loose_end(text[:clause], language)
    word = _UNSPACED_WORD if language in _UNSPACED else _SPACED_WORD
    ends = [end for found in word.finditer(text) for end in _word_ends(found.group(), found.start())]
    return _without_loose_end(text[: max((end for end in ends if end <= most), default=0)], language)


def choose(texts: Sequence[str], most: int, language: str) -> list[tuple[int, str]]:
    """Which of these texts, best first, to show in at most `most` characters: (index, shortened text) each.

    Those that fit come before those that have to be cut; what is the same after that comes once. Of texts
    that cannot be cut to anything the first is given, empty, if there is nothing else.
    """
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]) > most)  # stable
    chosen: dict[str, int] = {}
    for index in order:
        chosen.setdefault(shorten(texts[index], most, language), index)
    if len(chosen) > 1:
        chosen.pop("", None)
    return [(index, text) for text, index in chosen.items()]


def within(words: Sequence[WordAttention], whole: str, text: str) -> tuple[WordAttention, ...]:
    """Those words of the whole caption that are in `text`, its beginning; the last without what was cut."""
    kept, place = [], 0
    for word in words:
        place = whole.find(word.text, place)
        if place < 0 or place >= len(text):
            break
        kept.append(WordAttention(word.text[: len(text) - place], word.weights))
        place += len(word.text)
    return tuple(kept)


def _ends(pattern: regex.Pattern[str], text: str) -> Iterator[int]:
    return (found.end() for found in pattern.finditer(text))


def _word_ends(word: str, start: int) -> Iterator[int]:
    """Where a word may end: behind it, and before the punctuation that follows it."""
    yield start + len(word)
    bare = regex.sub(r"\p{P}+$", "", word)
    if bare:
        yield start + len(bare)


def _without_loose_end(text: str, language: str) -> str:
    """Without punctuation and words that lead on, unless nothing else is there."""
    waiting = function_words(language)
    text = str(_LOOSE_END.sub("", text))
    shortened = text
    while shortened:
        rest = _without_last_word(shortened, waiting, language)
        if rest is None:
            return shortened
        shortened = str(_LOOSE_END.sub("", rest))
    return text


def _without_last_word(text: str, waiting: frozenset[str], language: str) -> str | None:
    """The text before its last word if that waits for another, else None."""
    if language in _UNSPACED:
        longest = max((word for word in waiting if text.endswith(word)), key=len, default="")
        return text[: -len(longest)] if longest else None
    last = text.rsplit(maxsplit=1)[-1]
    return text[: -len(last)] if last.casefold() in waiting else None
