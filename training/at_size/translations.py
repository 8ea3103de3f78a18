"""Machine translations of COCO's captions, as Crossmodal-3600 publishes them: COCO-35L (Thapliyal et al.,
EMNLP 2022).

JSON Lines (`coco_mt_train.jsonl`, also .gz or .bz2), a line a translation: `image_id`, `src_lang`,
`trg_lang`, `caption_tokenized`, `translation_tokenized`, and `backtranslation_tokenized`, which is not used.
`image_id` is COCO's number and behind it a running number of the caption (`391895_0`). In which order these
count is nowhere said, so a translation is tied to the caption of its photo that has the same words as
`caption_tokenized`, however they are tokenised. Files of one's own may name the caption instead: by
`caption_id`, Karpathy's `sentid`, or without any English by the running number alone; and their fields may be
called `caption` and `translation`.
"""

import bz2
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from retrieval.errors import InvalidRequestError, UnknownLanguageError
from retrieval.languages import normalise
from training.at_size.caption_table import CaptionTableBuilder
from training.at_size.rejects import Rejects
from training.corpus import clean_caption

SOURCE_LANGUAGE = "en"
_BRACKETS = re.compile(r"-[lr][rsc]b-")  # how the Penn Treebank writes ( ) [ ] { }


class UnusableRowError(Exception):
    """Why a row cannot be used."""


class TranslationTable:
    """Ties translations to their English captions and puts them into a table.

    Args:
        photos: the captions of each photo, as (row, caption id, text), in the order of the Karpathy file.
        other_photos: photos of other splits, whose captions must not be learnt.
        languages: those wanted.
    """

    def __init__(
        self,
        photos: Mapping[str, Sequence[tuple[int, int, str]]],
        other_photos: Mapping[str, str],
        languages: Sequence[str],
        builder: CaptionTableBuilder,
    ) -> None:
        self._photos = photos
        self._splits = other_photos
        self._languages = frozenset(languages)
        self._builder = builder
        self._codes: dict[str, str] = {}
        self._seen: tuple[str, str] = ("", "")  # the last English caption and its words: it comes 34 times
        self.other_languages = 0  # rows in languages that are not wanted

    def read(self, path: Path, rejects: Rejects) -> None:
        """Take a file's rows.

        Raises:
            InvalidRequestError: the file cannot be read to its end.
        """
        for number, line in _lines(path):
            if line.strip():
                try:
                    self._take(_row(line))
                except UnusableRowError as error:
                    rejects.add(path, str(number), str(error))

    def _take(self, row: Mapping[str, Any]) -> None:
        language = self._language(row.get("trg_lang"))
        if language not in self._languages:
            self.other_languages += 1
            return
        if self._language(row.get("src_lang", SOURCE_LANGUAGE)) != SOURCE_LANGUAGE:
            raise UnusableRowError("it is not translated from English")
        translation = _text(row, "translation_tokenized", "translation")
        if translation is None:
            raise UnusableRowError("it has no text 'translation_tokenized'")
        text = clean_caption(translation, language)
        if not text:
            raise UnusableRowError("the translation has no words")
        free = [place for place in self._places(row) if not self._builder.has(language, place)]
        if not free:
            raise UnusableRowError("there is a translation of this caption into this language already")
        self._builder.add(language, free[0], text)

    def _language(self, tag: Any) -> str:
        if not isinstance(tag, str):
            raise UnusableRowError("it has no 'trg_lang'")
        if tag not in self._codes:
            try:
                self._codes[tag] = normalise(tag)
            except UnknownLanguageError:
                raise UnusableRowError("'trg_lang' or 'src_lang' is no language") from None
        return self._codes[tag]

    def _places(self, row: Mapping[str, Any]) -> list[int]:
        """The rows of the table that the translation may be of: several if captions have the same words."""
        photo, number = _split_image_id(row.get("image_id"))
        captions = self._photos.get(photo)
        if captions is None:
            if photo in self._splits:
                raise UnusableRowError(f"its photo is in the split '{self._splits[photo]}'")
            raise UnusableRowError("its photo is not in the Karpathy file")
        if "caption_id" in row:
            places = [place for place, caption_id, _ in captions if caption_id == row["caption_id"]]
            if not places:
                raise UnusableRowError("its 'caption_id' is not of its photo")
            return places
        english = _text(row, "caption_tokenized", "caption")
        if english is not None:
            if self._seen[0] != english:
                self._seen = english, words(english)
            places = [place for place, _, own in captions if own == self._seen[1]]
            if not places:
                raise UnusableRowError("its English caption is none of its photo's")
            return places
        if number is None or number >= len(captions):
            raise UnusableRowError("it does not say which caption of its photo it translates")
        return [captions[number][0]]


def words(text: str) -> str:
    """Letters and digits of a caption without case: the same however it was tokenised."""
    folded = _BRACKETS.sub("", text.casefold())
    return "".join(character for character in folded if character.isalnum())


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise UnusableRowError("the line is not JSON") from None
    if not isinstance(row, dict):
        raise UnusableRowError("the line is not a JSON object")
    return row


def _text(row: Mapping[str, Any], *names: str) -> str | None:
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return None


def _split_image_id(value: Any) -> tuple[str, int | None]:
    """COCO's number, and the running number of the caption if there is one: `391895_0`, 391895."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value), None
    if not isinstance(value, str):
        raise UnusableRowError("it has no 'image_id'")
    photo, separator, number = value.rpartition("_")
    if separator and number.isdecimal() and number.isascii():
        return photo, int(number)
    return value, None


def _open(path: Path) -> BinaryIO | gzip.GzipFile | bz2.BZ2File:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return bz2.open(path, "rb") if path.suffix == ".bz2" else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidRequestError(f"cannot read {path} after line {number}: {reason}") from error
