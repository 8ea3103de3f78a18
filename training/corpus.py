"""Captions for training: read, cleaned, grouped by language and photo.

The files are JSON Lines with `image_id`, `lang`, `caption` (`.gz` allowed). Every caption is brought to one
written form, so that the language model learns one: NFC, single spaces, a capital first letter where the
script has capitals, and exactly one full stop at the end (none in Thai).
"""

import gzip
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import InvalidRequestError

# Every other language here ends a sentence with '.'.
FULL_STOP = {"zh": "。", "ja": "。", "hi": "।", "bn": "।", "th": ""}

_SPACE_BEFORE_PUNCTUATION = re.compile(r"\s+([.,;:!?%)])")
_SPLIT_CLITIC = re.compile(r"\s+('(?:s|re|ve|ll|d|m|t)|n't)\b", re.IGNORECASE)
_DOUBLE_QUOTES = re.compile(r"``|''|[“”«»\"]")
_TRAILING = re.compile(r"[\s.。．।|!?,;:，；]+$")
# Tokenised Japanese and Thai have spaces where their writing has none; those in Latin words are meant.
_UNSPACED = {"ja", "th"}
_SPACE_OF_TOKENS = re.compile(r"(?<=[^\x00-\x7f]) | (?=[^\x00-\x7f])")
_CHINESE_PUNCTUATION = str.maketrans({",": "，", ".": "。", ";": "；", ":": "：", "?": "？", "!": "！"})


@dataclass(frozen=True)
class CaptionRow:
    image_id: str
    language: str
    text: str
    kind: str  # human, human-translation, MT-postedited, MT


def clean_caption(text: str, language: str) -> str:
    """Bring one caption to the written form of the module's docstring; may return an empty string."""
    text = unicodedata.normalize("NFC", text)
    text = _DOUBLE_QUOTES.sub("", text)
    text = " ".join(text.split())
    if language == "en":  # Flickr8k's English is stored as tokens: "a dog 's ball ."
        text = _SPLIT_CLITIC.sub(r"\1", text)
    text = _SPACE_BEFORE_PUNCTUATION.sub(r"\1", text)
    text = _TRAILING.sub("", text).lstrip(" -–.,*")
    if not text:
        return ""
    if language == "zh":
        text = text.replace(" ", "").translate(_CHINESE_PUNCTUATION)
    elif language in _UNSPACED:
        text = _SPACE_OF_TOKENS.sub("", text)
    return text[0].upper() + text[1:] + FULL_STOP.get(language, ".")


def read_captions(path: Path) -> Iterator[CaptionRow]:
    """Yield every caption of a file in its own order, cleaned; those left empty by cleaning are skipped.

    Raises:
        InvalidRequestError: the file is missing, or a row lacks a field.
    """
    if not path.is_file():
        raise InvalidRequestError(f"no caption file at {path}")
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                caption = CaptionRow(
                    image_id=row["image_id"],
                    language=row["lang"],
                    text=clean_caption(row["caption"], row["lang"]),
                    kind=row.get("kind", "human"),
                )
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidRequestError(f"{path}:{number}: not a caption row ({error})") from error
            if caption.text:
                yield caption


class CaptionCorpus:
    """Captions by language and photo: `corpus.texts["de"]["1000092795"]` is a list of distinct captions."""

    def __init__(self, rows: Iterable[CaptionRow]) -> None:
        self.texts: dict[str, dict[str, list[str]]] = {}
        for row in rows:
            captions = self.texts.setdefault(row.language, {}).setdefault(row.image_id, [])
            if row.text not in captions:
                captions.append(row.text)

    @property
    def languages(self) -> list[str]:
        return sorted(self.texts)

    def __len__(self) -> int:
        return sum(len(captions) for photos in self.texts.values() for captions in photos.values())
