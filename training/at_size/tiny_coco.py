"""Drawn photos with captions in the files that training at size reads: Karpathy's, and COCO-35's.

The captions are those of the default bundle's datastore. They do not describe the drawings, and nothing good
is learnt from them, but every step gets what it would get of real data.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.bundle import DATASTORE, Bundle
from retrieval.datastore import Datastore
from retrieval.errors import InvalidRequestError
from training.at_size.translations import SOURCE_LANGUAGE
from training.tiny_data import draw_scene

_PHOTOS = 8
_CAPTIONS = 3  # of a photo


@dataclass(frozen=True)
class TinyCoco:
    """Where everything is."""

    images: Path  # folder of the photos
    karpathy: Path
    translations: Path
    captions: Path  # the same ones as a source of a datastore
    languages: tuple[str, ...]
    texts: Sequence[str]  # all captions in all languages
    first: Path  # one of the photos


def make_tiny_coco(bundle: Bundle, folder: Path) -> TinyCoco:
    """Draw and write everything into `folder`.

    Raises:
        DatastoreError: the bundle has no datastore.
        InvalidRequestError: its datastore has too few captions in English.
    """
    entries = _entries(bundle, _PHOTOS * _CAPTIONS)
    images = folder / "images"
    images.mkdir(parents=True)
    rng = random.Random(0)
    rows, translated = [], []
    for number in range(_PHOTOS):
        name = f"drawing-{number}.png"
        draw_scene(rng).save(images / name)
        sentences = []
        for place in range(_CAPTIONS):
            caption = number * _CAPTIONS + place
            texts = entries[caption]
            sentences.append({"sentid": caption, "raw": texts[SOURCE_LANGUAGE]})
            translated += [
                {
                    "image_id": f"{number}_{place}",
                    "src_lang": SOURCE_LANGUAGE,
                    "trg_lang": language,
                    "caption_tokenized": texts[SOURCE_LANGUAGE],
                    "translation_tokenized": text,
                }
                for language, text in texts.items()
                if language != SOURCE_LANGUAGE
            ]
        rows.append(
            {"cocoid": number, "filepath": "", "filename": name, "split": "train", "sentences": sentences}
        )
    made = TinyCoco(
        images,
        folder / "dataset_coco.json",
        folder / "coco_mt_train.jsonl",
        folder / "captions.jsonl",
        tuple(sorted(set.intersection(*(set(texts) for texts in entries)))),
        [text for texts in entries for text in texts.values()],
        images / "drawing-0.png",
    )
    made.karpathy.write_text(json.dumps({"images": rows}), encoding="utf-8")
    _write_lines(made.translations, translated)
    _write_lines(made.captions, [{"id": str(place), "texts": texts} for place, texts in enumerate(entries)])
    return made


def _entries(bundle: Bundle, count: int) -> list[Mapping[str, str]]:
    """The first entries of the bundle's datastore, each as texts by language."""
    datastore = Datastore.open(bundle.path / DATASTORE)
    found = list[Mapping[str, str]]()
    for entry in range(len(datastore)):
        texts = {text.language: text.text for text in datastore.texts(entry)}
        if SOURCE_LANGUAGE in texts:
            found.append(texts)
        if len(found) == count:
            return found
    raise InvalidRequestError(f"{datastore.folder} has fewer than {count} captions to try this with")


def _write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
