"""Tiny files in the formats of Karpathy's COCO split and of COCO-35L, with scenes made up here."""

import bz2
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SCENES = {
    11: ("train", ["A red kite over the dunes.", "Someone's kite (red) is flying!", "Wind lifts a kite."]),
    12: ("restval", ["Two goats eat thistles.", "Goats on a slope.", "Two goats eat thistles."]),
    13: ("train", ["A lamp lights the empty desk.", "It's late: a desk with a lamp.", "The lamp is on."]),
    14: ("val", ["A tram stops in the rain.", "Rain on the tram's windows.", "People wait for a tram."]),
}


def caption_id(photo: int, number: int) -> int:
    return photo * 100 + number


def karpathy_document(scenes: dict[int, tuple[str, list[str]]] = SCENES) -> dict[str, Any]:
    return {
        "dataset": "coco",
        "images": [
            {
                "cocoid": photo,
                "filepath": "val2014",
                "filename": f"COCO_val2014_{photo:012d}.png",
                "split": split,
                "sentences": [
                    {"raw": text, "sentid": caption_id(photo, number)} for number, text in enumerate(texts)
                ],
            }
            for photo, (split, texts) in scenes.items()
        ],
    }


def write_karpathy(path: Path, document: dict[str, Any] | None = None) -> Path:
    path.write_text(json.dumps(document or karpathy_document()), encoding="utf-8")
    return path


def write_photos(folder: Path, photos: Iterable[int] = SCENES) -> Path:
    """Random pixels under the names of the Karpathy file."""
    generator = np.random.default_rng(5)
    (folder / "val2014").mkdir(parents=True, exist_ok=True)
    for photo in photos:
        pixels = generator.integers(0, 256, (20, 28, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "val2014" / f"COCO_val2014_{photo:012d}.png")
    return folder


def translation(image_id: str, language: str, english: str, text: str) -> dict[str, Any]:
    """A row as Crossmodal-3600 publishes it."""
    return {
        "image_id": image_id,
        "src_lang": "en",
        "trg_lang": language,
        "caption_tokenized": english,
        "translation_tokenized": text,
        "backtranslation_tokenized": english,
    }


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """JSON Lines, packed as the name says; texts are written as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    content = "".join(line + "\n" for line in lines).encode()
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".bz2":
        content = bz2.compress(content)
    path.write_bytes(content)
    return path
