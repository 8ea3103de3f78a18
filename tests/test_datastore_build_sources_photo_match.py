import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hashing_embedder import HashingEmbedder
from PIL import Image

from datastore_build.build import build_datastore
from datastore_build.build_state import QualityFilters
from datastore_build.report import BuildReport
from datastore_build.sources.photo_match import PhotoMatch
from retrieval.datastore import Datastore
from retrieval.manifest import REJECTS

_COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


class ColourMatcher:
    """A text fits if it names the colour of the photo."""

    def __init__(self) -> None:
        self.photos: list[int] = []  # of each call

    def match(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        self.photos.append(len(images))
        logits = []
        for image, own in zip(images, texts, strict=True):
            pixel = image.getpixel((0, 0))
            assert isinstance(pixel, tuple)
            colour = list(_COLOURS)[pixel.index(max(pixel))]
            logits.append([2.0 if colour in text else -2.0 for text in own])
        return logits


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in _COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.jpg")
    (folder / "broken.jpg").write_bytes(b"no photo")
    return folder


def _build(folder: Path, match: PhotoMatch, *rows: dict[str, Any]) -> tuple[BuildReport, list[str]]:
    source = folder / "captions.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = build_datastore(
        [source], folder / "out", HashingEmbedder(), filters=QualityFilters(min_match=0.5), match=match
    )
    store = Datastore.open(folder / "out")
    return report, [text.text for entry in range(len(store)) for text in store.texts(entry)]


def test_texts_that_do_not_fit_their_photo_are_left_out(tmp_path: Path, photos: Path) -> None:
    matcher = ColourMatcher()
    report, texts = _build(
        tmp_path,
        PhotoMatch(lambda: matcher, photos),
        {"text": "a red wall", "image": "red.jpg"},
        {"text": "a blue wall", "image": "red.jpg"},
        {"text": "no photo to judge it by"},
        {"texts": {"en": "all green", "de": "alles blau", "fr": "green"}, "image": "green.jpg"},
        {"text": "a photo that is none", "image": "broken.jpg"},
        {"text": "a photo that is not there", "image": "gone.jpg"},
        {"text": "a photo elsewhere", "image": "../captions.jsonl"},
    )
    assert texts == ["a red wall", "no photo to judge it by", "all green", "green"]
    assert report.dropped == {"poor_match": 2, "unreadable_photo": 3}
    assert (report.rows, report.published, report.rejected) == (7, 3, 4)
    lines = [json.loads(line) for line in (Path(report.path) / REJECTS).read_text().splitlines()]
    assert [(line["line"], line["reason"].partition(":")[0]) for line in lines] == [
        (2, "the text in en fits the photo 'red.jpg' with a confidence of 0.119, less than 0.5"),
        (4, "the text in de fits the photo 'green.jpg' with a confidence of 0.119, less than 0.5"),
        (5, "the photo 'broken.jpg' cannot be read"),
        (6, f"there is no photo 'gone.jpg' in {photos}"),
        (7, f"the photo '../captions.jsonl' is not in {photos}"),
    ]


def test_photos_lie_beside_the_source_and_are_judged_together(tmp_path: Path, photos: Path) -> None:
    matcher = ColourMatcher()
    rows = [{"text": f"red {number}", "image": "photos/red.jpg"} for number in range(40)]
    report, texts = _build(tmp_path, PhotoMatch(lambda: matcher), *rows)
    assert len(texts) == 40
    assert report.dropped == {}
    assert matcher.photos == [16, 16, 8]


def test_without_photos_no_matcher_is_loaded(tmp_path: Path) -> None:
    def load() -> ColourMatcher:
        raise AssertionError("it was loaded")

    _, texts = _build(tmp_path, PhotoMatch(load), {"text": "a"}, {"text": "b", "image": None})
    assert texts == ["a", "b"]
