"""Reading the photos of a split and their reference captions."""

import gzip
import json
from pathlib import Path

import pytest
from PIL import Image

from evaluation.references import Photo, open_photo, read_photos, read_references
from retrieval.errors import InvalidImageError, InvalidRequestError

ROWS = [
    {"image_id": "1", "lang": "en", "caption": "A dog 's ball , it is n't red .", "kind": "human"},
    {"image_id": "1", "lang": "en", "caption": "A machine wrote this.", "kind": "MT"},
    {"image_id": "2", "lang": "en", "caption": "A cat."},
    {"image_id": "9", "lang": "en", "caption": "A photo of another split.", "kind": "human"},
    {"image_id": "1", "lang": "es", "caption": "Un perro.", "kind": "MT"},
    {"image_id": "1", "lang": "es", "caption": "  ", "kind": "MT"},
    {"image_id": "2", "lang": "fr", "caption": "Un chat !", "kind": "human-translation"},
]


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as output:
        output.writelines(json.dumps(row) + "\n" for row in ROWS)
    return path


def test_human_references_and_machine_ones_where_there_are_no_others(captions: Path) -> None:
    references = read_references(captions, ["1", "2"])
    assert list(references) == ["en", "es", "fr"]
    assert references["en"].texts == {"1": ["A dog's ball, it isn't red."], "2": ["A cat."]}
    assert references["fr"].texts == {"2": ["Un chat !"]}
    assert references["es"].texts == {"1": ["Un perro."]}
    assert [references[language].by_people for language in ("en", "es", "fr")] == [True, False, True]
    assert references["es"].kinds == ("MT",)


def test_kinds_can_be_chosen(captions: Path) -> None:
    assert read_references(captions, ["1"], ["MT"])["en"].texts == {"1": ["A machine wrote this."]}
    everything = read_references(captions, ["1"], None)["en"]
    assert (everything.kinds, everything.by_people, len(everything.texts["1"])) == (("MT", "human"), True, 2)
    with pytest.raises(InvalidRequestError, match=r"no caption of kind humann \(kinds: MT, human\)"):
        read_references(captions, ["1"], ["humann"])


def test_captions_that_cannot_be_used_are_one_clear_error(captions: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no caption of the 1 photos"):
        read_references(captions, ["404"])
    with pytest.raises(InvalidRequestError, match=r"cannot read .*missing\.jsonl: No such file"):
        read_references(tmp_path / "missing.jsonl", ["1"])
    broken = tmp_path / "broken.jsonl"
    for line, message in [
        ("{", ":2: not JSON"),
        ("[1]", ":2: not a JSON object"),
        ('{"image_id": "1"}', ":2: the row has no 'lang'"),
    ]:
        broken.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
        with pytest.raises(InvalidRequestError, match=message):
            read_references(broken, ["1"])
    captions.write_bytes(captions.read_bytes()[:40])
    with pytest.raises(InvalidRequestError, match="cannot read"):
        read_references(captions, ["1"])


def test_photos_of_a_split(tmp_path: Path) -> None:
    index = tmp_path / "images.jsonl"
    rows = [
        {"image_id": str(n), "file": f"images/{n}.png", "split": "dev" if n else "train"} for n in range(4)
    ]
    index.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.new("RGB", (2, 2)).save(tmp_path / "images" / f"{n}.png")
    # The folder given may be the index's own or the one the photos are in.
    for folder in (tmp_path, tmp_path / "images"):
        photos = read_photos(index, folder, "dev", limit=2)
        assert photos == [Photo("1", tmp_path / "images/1.png"), Photo("2", tmp_path / "images/2.png")]
    with pytest.raises(InvalidRequestError, match=r"no photo in split 'test' \(splits: dev, train\)"):
        read_photos(index, tmp_path, "test")


def test_photos_come_as_upright_rgb(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("L", (40, 20)).save(path, exif=exif)
    image = open_photo(Photo("1", path))
    assert (image.mode, image.size) == ("RGB", (20, 40))


def test_photos_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match="check --images"):
        open_photo(Photo("1", tmp_path / "1.jpg"))
    (tmp_path / "1.jpg").write_text("not a photo")
    with pytest.raises(InvalidImageError, match=r"1\.jpg cannot be decoded"):
        open_photo(Photo("1", tmp_path / "1.jpg"))
