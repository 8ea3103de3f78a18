"""The captions that a bridge at size is trained on: COCO's in English, and their translations."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from retrieval.errors import InvalidRequestError, UnknownLanguageError
from retrieval.languages import normalise
from training.at_size.caption_table import CaptionData, CaptionTableBuilder, open_captions
from training.at_size.karpathy import TRAIN_SPLITS, read_captioned_photos
from training.at_size.rejects import Rejects
from training.at_size.translations import SOURCE_LANGUAGE, TranslationTable, words
from training.corpus import clean_caption

_FORMAT = 1  # of the file of captions, and of what is done to a text


class SizedData(BaseModel):
    """The `[data]` table of a recipe at size."""

    model_config = ConfigDict(extra="forbid")

    karpathy: Path  # Karpathy's dataset_coco.json
    translations: list[Path] = []  # JSON Lines as COCO-35L, .gz and .bz2 too; none: English alone
    languages: list[str] = Field(min_length=1)  # drawn uniformly, one an example
    features: Path  # visual tokens: python -m training.features --vision … --karpathy …
    neighbours: Path  # retrieved captions by photo: python -m training.at_size.neighbours
    captions: Path | None = None  # what was read is kept here; later runs and other processes map it
    max_caption_tokens: PositiveInt = 33
    k: int = Field(default=4, ge=0)  # retrieved captions in a prompt

    @field_validator("languages")
    @classmethod
    def _are_languages(cls, tags: list[str]) -> list[str]:
        try:
            codes = [normalise(tag) for tag in tags]
        except UnknownLanguageError as error:
            raise ValueError(str(error)) from error
        if len(set(codes)) < len(codes):
            raise ValueError("a language comes twice")
        return codes


def read_caption_data(data: SizedData, rejected: Path | None = None) -> CaptionData:
    """All captions of the training photos (splits train and restval) in the languages asked for.

    Args:
        rejected: rows that cannot be used are written there, each with file, line and reason; in any case
            they are counted in `CaptionData.report`.

    Raises:
        InvalidRequestError: a file cannot be read, or a language has no caption at all.
    """
    fingerprint = _fingerprint(data)
    if data.captions is not None and (kept := open_captions(data.captions, fingerprint)) is not None:
        return kept
    with Rejects(rejected) as rejects:
        captions = _read(data, rejects)
    if missing := [language for language in captions.languages if not captions.count(language)]:
        raise InvalidRequestError(
            f"no caption in {', '.join(missing)}: set `languages` to those of the translations"
            + (f" ({captions.report[-1]})" if rejects.total else "")
        )
    if data.captions is not None:
        captions.save(data.captions, fingerprint)
        captions = open_captions(data.captions, fingerprint) or captions
    return captions


def _read(data: SizedData, rejects: Rejects) -> CaptionData:
    photos: dict[str, list[tuple[int, int, str]]] = {}
    others: dict[str, str] = {}
    caption_ids, owners, english = list[int](), list[int](), list[str]()
    for photo in read_captioned_photos(data.karpathy, rejects):
        if photo.split not in TRAIN_SPLITS:
            others[photo.image_id] = photo.split
        elif photo.captions:
            own = photos[photo.image_id] = []
            for caption_id, text in photo.captions:
                own.append((len(caption_ids), caption_id, words(text)))
                caption_ids.append(caption_id)
                owners.append(len(photos) - 1)
                english.append(text)
    if not photos:
        raise InvalidRequestError(
            f"{data.karpathy} has no caption in the splits {' and '.join(TRAIN_SPLITS)}"
        )
    builder = CaptionTableBuilder(caption_ids, owners, list(photos), data.languages)
    if SOURCE_LANGUAGE in data.languages:
        for row, text in enumerate(english):
            if cleaned := clean_caption(text, SOURCE_LANGUAGE):
                builder.add(SOURCE_LANGUAGE, row, cleaned)
            else:
                rejects.add(data.karpathy, f"sentid {caption_ids[row]}", "the caption has no words")
    del english
    wanted = [language for language in data.languages if language != SOURCE_LANGUAGE]
    if wanted:
        table = TranslationTable(photos, others, wanted, builder)
        for path in data.translations:
            table.read(path, rejects)
    return builder.finish(rejects)


def _fingerprint(data: SizedData) -> str:
    """Changes when a file or a setting that decides the captions does."""
    files = []
    for path in (data.karpathy, *data.translations):
        try:
            found = path.stat()
        except OSError as error:
            raise InvalidRequestError(f"cannot read {path}: {error.strerror}") from error
        files.append((path.name, found.st_size, found.st_mtime_ns))
    content = json.dumps([_FORMAT, files, data.languages])
    return hashlib.sha256(content.encode()).hexdigest()
