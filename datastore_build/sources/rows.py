"""One row of a source: which fields it may have, what a usable caption is, and why a row is rejected.

The module does not know file formats; readers hand it the row as a mapping.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from retrieval.errors import UnknownLanguageError
from retrieval.languages import normalise

LONGEST_TEXT = 2000  # characters
LONGEST_ID = 256  # characters

_TEXT_FIELDS = ("text", "caption")
_LANGUAGE_FIELDS = ("language", "lang")
FIELDS = ("id", "texts", *_TEXT_FIELDS, *_LANGUAGE_FIELDS, "image")

_NAMES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


class RowError(Exception):
    """Why a row cannot be used, as the rejects file says it."""


@dataclass(frozen=True)
class Row:
    """A usable row: the texts of one entry, or some of them."""

    source: int  # which of the build's sources, counted from 0
    line: int  # of the file, counted from 1; the row's or annotation's number where a format has no lines
    id: str | None
    texts: tuple[tuple[str, str], ...]  # (language, text), each language once
    image: str | None = None  # the file of the photo that they describe, as the row names it


@dataclass(frozen=True)
class Reject:
    """A row that does not become part of an entry, or one text of it that does not."""

    source: int
    line: int
    reason: str
    kind: str = "unusable"  # or which filter left it out
    whole_row: bool = True


def without(
    row: Row, kept: Sequence[tuple[str, str]], faults: Sequence[tuple[str, str]]
) -> Iterator[Row | Reject]:
    """A Reject for each text that is left out, then the row with those that are kept, if any.

    faults: (kind, reason) of each text left out. The last one counts the row as well if nothing is kept.
    """
    for number, (kind, reason) in enumerate(faults, start=1):
        last = not kept and number == len(faults)
        yield Reject(row.source, row.line, reason, kind=kind, whole_row=last)
    if kept:
        yield replace(row, texts=tuple(kept)) if faults else row


def parse_row(fields: object, default_language: str) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """(id, texts) of a row. Fields that are not ours are ignored, null is the same as absent.

    `fields` holds "id" (optional) and either "texts" ({language: text}) or one of "text" and "caption" with
    an optional "language" or "lang". Raises RowError.
    """
    if not isinstance(fields, Mapping):
        raise RowError(f"the row is not an object but {_name(fields)}")
    present = {name: fields[name] for name in FIELDS if fields.get(name) is not None}
    entry_id = _parse_id(present.get("id"))
    given = [name for name in ("texts", *_TEXT_FIELDS) if name in present]
    if not given:
        raise RowError("the row has no text: give text, caption or texts")
    if len(given) > 1:
        raise RowError(f"the row has both {given[0]} and {given[1]}: give one")
    if given == ["texts"]:
        return entry_id, _parse_texts(present["texts"])
    languages = [present[name] for name in _LANGUAGE_FIELDS if name in present]
    if len(languages) > 1:
        raise RowError("the row has both language and lang: give one")
    language = _parse_language(languages[0]) if languages else default_language
    return entry_id, ((language, _parse_text(present[given[0]], given[0])),)


def image_of(fields: object) -> str | None:
    """The photo that a row names in "image", None if it names none."""
    image = fields.get("image") if isinstance(fields, Mapping) else None
    return image if isinstance(image, str) and image else None


def _parse_texts(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise RowError(f"texts is not an object of language and text but {_name(value)}")
    texts: dict[str, str] = {}
    for tag, text in value.items():
        if text is None:
            continue
        language = _parse_language(tag)
        if language in texts:
            raise RowError(f"texts has two texts in {language}")
        texts[language] = _parse_text(text, f"the text in {language}")
    if not texts:
        raise RowError("texts holds no text")
    return tuple(texts.items())


def _parse_language(tag: object) -> str:
    if not isinstance(tag, str):
        raise RowError(f"the language is not a string but {_name(tag)}")
    try:
        return normalise(tag)
    except UnknownLanguageError as error:
        raise RowError(str(error)) from None


def _parse_id(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, float) and value.is_integer():  # a column of integers with gaps, as pandas writes it
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RowError(f"the id is neither a string nor a whole number but {_name(value)}")
    if isinstance(value, int) and abs(value) >= 2**64:
        raise RowError("the id is too large a number")
    text = str(value)
    _check_characters(text, "the id")
    if len(text) > LONGEST_ID:
        raise RowError(f"the id is longer than {LONGEST_ID} characters")
    return text


def _parse_text(value: object, field: str) -> str:
    """The caption with its white space made single and its accents composed (NFC)."""
    if not isinstance(value, str):
        raise RowError(f"{field} is not a string but {_name(value)}")
    if len(value) > LONGEST_TEXT:
        raise RowError(f"{field} has {len(value):,} characters, more than {LONGEST_TEXT:,}")
    for space in "\t\n\r":
        value = value.replace(space, " ")
    _check_characters(value, field)
    text = unicodedata.normalize("NFC", " ".join(value.split()))
    # Zero-width characters alone are no caption either.
    if not any(unicodedata.category(character)[0] in "LMNPS" for character in text):
        raise RowError(f"{field} is empty")
    return text


def _check_characters(text: str, field: str) -> None:
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":  # a byte that is not UTF-8 (see readers), or half a surrogate pair from JSON
            raise RowError(f"{field} is not valid UTF-8")
        if category == "Cc":
            raise RowError(f"{field} holds the control character U+{ord(character):04X}")


def _name(value: object) -> str:
    return "null" if value is None else _NAMES.get(type(value), f"a {type(value).__name__}")
